"""Lung and heart masks, by a method's name (paper, section IV).

methods.py                  segment(volume, spacing, method, **options)
threshold.py                the embedded method: body.py, airway.py, heart.py
from_totalsegmentator.py, from_lungmask.py, precomputed.py     other segmenters' masks
plausible.py                what no chest can look like
masks.py, hull.py           the masks, their convex hull, the crop
"""

from data_prep.anatomy.methods import CTPA_MIN_HU, METHODS, check_method, contrast_hu, segment

__all__ = ["CTPA_MIN_HU", "METHODS", "check_method", "contrast_hu", "segment"]
