"""Convex hull around lungs and heart, and the crop to it (paper, section IV).

Volumes are (Z, Y, X) int16 HU, masks (Z, Y, X) bool; a box is start and stop voxels (3, 2) zyx.
"""

from functools import reduce

import cv2
import numpy as np

from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError
from pekit.common.errors import UserError, nearest
from pekit.dataset.schema import OUTSIDE_HU


def convex_hull(*masks: np.ndarray) -> np.ndarray:
    """Convex hull (Z, Y, X) bool around the union of masks, slice by slice (paper, section IV)."""
    hull = np.zeros(masks[0].shape, np.uint8)
    for z, plane in enumerate(hull):
        # Slice by slice the data stay in the processor's cache: four times as fast.
        union = reduce(np.logical_or, (mask[z] for mask in masks))
        rows = np.flatnonzero(union.any(1))
        if len(rows):
            # The first and last voxel of each row have the same hull as all of its voxels.
            first, last = union.argmax(1), union.shape[1] - 1 - union[:, ::-1].argmax(1)
            ends = np.stack([np.r_[first[rows], last[rows]], np.r_[rows, rows]], 1)
            cv2.fillConvexPoly(plane, cv2.convexHull(ends.astype(np.int32)), 1)
    return hull.view(bool)


def crop_box(mask: np.ndarray) -> np.ndarray:
    """Crop box of a mask (Z, Y, X): start and stop voxels (3, 2) int, rows z, y, x.

    Raises:
        SegmentationError: the mask is empty.
    """
    slices = np.flatnonzero([plane.any() for plane in mask])
    if not len(slices):
        raise SegmentationError("the mask is empty: no crop box")
    flat = reduce(np.logical_or, mask[slices[0] : slices[-1] + 1])
    ends = (np.flatnonzero(line)[[0, -1]] for line in (flat.any(1), flat.any(0)))
    return np.array([(start, stop + 1) for start, stop in (slices[[0, -1]], *ends)])


def hull_and_box(masks: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Hull (Z, Y, X) bool around lungs, heart and the place of unseen lung; its box (3, 2)."""
    hull = convex_hull(*masks.parts())
    return hull, crop_box(hull)


def apply_crop(
    hu: np.ndarray, hull: np.ndarray, box: np.ndarray, crop: str = "masked"
) -> np.ndarray:
    """Crop a volume (Z, Y, X) int16 HU.

    Args:
        hu: the whole study.
        hull: (Z, Y, X) bool, same shape.
        box: (3, 2) start and stop voxels.
        crop: `masked` (the box, OUTSIDE_HU outside the hull), `box` or `none` (the whole study).

    Raises:
        UserError: an unknown crop.
    """
    if crop == "none":
        return hu
    if crop not in ("masked", "box"):
        raise UserError(f"unknown crop {crop!r}: {nearest(crop, ('masked', 'box', 'none'))}")
    where = tuple(slice(start, stop) for start, stop in box)
    if crop == "box":
        return hu[where].copy()
    return np.where(hull[where], hu[where], np.int16(OUTSIDE_HU))


def volume_ratio(box: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Volume of the crop box as a fraction of the whole study's."""
    return float(np.prod(box[:, 1] - box[:, 0]) / np.prod(shape))
