"""pekit finds pulmonary embolism in CT pulmonary angiograms: dataset, model, hop, voting.

dataset/     prepared studies -> 2.5D stacks     model/     encoders, heads
hop.py       aggregator and K-hop network        voting.py  from slices to the study
training/  inference/  evaluation/               fit, predict, judge
checkpoint.py  explain.py  figures/  reports/  review/  tracking/  common/
"""

from importlib import import_module

__version__ = "0.1.0"

# What one types most, loaded when it is asked for: importing torch takes seconds.
LAZY = {
    "Store": "pekit.dataset.store",
    "StackDataset": "pekit.dataset.stacks",
    "Encoder": "pekit.model.encoder",
    "HopNet": "pekit.hop",
    "Vote": "pekit.voting",
    "best_vote": "pekit.voting",
}


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'pekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LAZY])
