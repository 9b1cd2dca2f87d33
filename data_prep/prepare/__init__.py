"""Preparation: masks, hull, crop, landmarks, store.

study.py     one study
studies.py   a whole data set; `python -m data_prep.prepare` does it, or one shard of it
space.py     disk and memory that it takes
"""

from data_prep.prepare.study import Prepared, PrepareSettings, prepare_volume, segment_volume

__all__ = ["PrepareSettings", "Prepared", "prepare_volume", "segment_volume"]
