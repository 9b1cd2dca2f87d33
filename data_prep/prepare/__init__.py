"""Prepare studies: masks, hull, crop, landmarks, store.

study.py     one study
studies.py   a whole data set, or one shard of it; `python -m data_prep.prepare` runs it
space.py     disk space and memory that it needs
gpus.py      processes for a segmenter that is a network
"""

from data_prep.prepare.study import (
    Prepared,
    PrepareSettings,
    prepare_volume,
    segment_volume,
    settings_of_one_study,
)

__all__ = [
    "PrepareSettings",
    "Prepared",
    "prepare_volume",
    "segment_volume",
    "settings_of_one_study",
]
