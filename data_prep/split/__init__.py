"""The split into train, validation and test studies.

draw.py     draw it (pekit/dataset/split.py freezes and reads it)
strata.py   exam types and sides of emboli, drawn evenly
shared.py   studies that are in another data set too
"""

from data_prep.split.draw import make_split, split_balance
from data_prep.split.shared import read_shared

__all__ = ["make_split", "read_shared", "split_balance"]
