"""Masks of lungs and heart by a choice of methods, their hull and the crop (paper, section IV).

methods.py                  segment(volume, spacing, method, **options)
threshold.py                the embedded method: body.py, airway.py, heart.py, coarse.py
from_totalsegmentator.py, from_lungmask.py, precomputed.py     masks by other segmenters
plausible.py                refuses implausible masks; thorax.py, opaque.py fill in lung that is not
                            seen, orientation.py compares the anatomy with the header's axes
masks.py, hull.py           the masks, their convex hull, the crop
"""

from data_prep.anatomy.methods import CTPA_MIN_HU, METHODS, check_method, contrast_hu, segment

__all__ = ["CTPA_MIN_HU", "METHODS", "check_method", "contrast_hu", "segment"]
