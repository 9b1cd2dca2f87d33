"""The split into train, validation and test studies.

draw.py     draws the split (pekit/dataset/split.py freezes and reads it)
strata.py   strata (exam type, sides of the emboli) and even draws across them
shared.py   list of studies that are also in another data set
"""

from data_prep.split.draw import make_split, split_balance
from data_prep.split.shared import read_shared

__all__ = ["make_split", "read_shared", "split_balance"]
