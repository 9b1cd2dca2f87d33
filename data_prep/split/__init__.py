"""The split into train, validation and test studies, drawn once and frozen.

draw.py     draw, freeze, read
strata.py   exam types and sides of emboli, drawn evenly
shared.py   studies that are in another data set too
"""

from data_prep.split.draw import freeze_split, make_split, read_split, split_balance
from data_prep.split.shared import read_shared

__all__ = ["freeze_split", "make_split", "read_shared", "read_split", "split_balance"]
