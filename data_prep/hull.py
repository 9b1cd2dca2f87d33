"""The convex hull around lungs and heart, and the crop made of it (paper, section IV).

Volumes are (Z, Y, X) int16 HU, masks (Z, Y, X) bool; a box is start and stop voxels (3, 2) zyx.
"""

import cv2
import numpy as np

from data_prep.errors import SegmentationError
from data_prep.masks import Masks
from pekit.errors import UserError
from pekit.store import OUTSIDE_HU


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Convex hull of a mask (Z, Y, X) bool on each slice by itself (paper, section IV)."""
    hull = np.zeros(mask.shape, np.uint8)
    rows = mask.any(2)
    first = mask.argmax(2)
    last = mask.shape[2] - 1 - mask[:, :, ::-1].argmax(2)
    for z in np.flatnonzero(rows.any(1)):
        y = np.flatnonzero(rows[z])
        # The ends of each row have the same hull as all of its voxels.
        ends = np.concatenate([np.stack([first[z, y], y], 1), np.stack([last[z, y], y], 1)])
        cv2.fillConvexPoly(hull[z], cv2.convexHull(ends.astype(np.int32)), 1)
    return hull.astype(bool)


def crop_box(mask: np.ndarray) -> np.ndarray:
    """Start and stop voxels (3, 2) int, rows z, y, x, of the box around a mask (Z, Y, X).

    Raises:
        SegmentationError: the mask is empty.
    """
    if not mask.any():
        raise SegmentationError("the mask is empty: no crop box")
    planes = mask.any(2)
    ends = (
        np.flatnonzero(line)[[0, -1]] for line in (planes.any(1), planes.any(0), mask.any((0, 1)))
    )
    return np.array([(start, stop + 1) for start, stop in ends])


def hull_and_box(masks: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Hull (Z, Y, X) bool around lungs and heart together, and its crop box (3, 2)."""
    hull = convex_hull(masks.lung | masks.heart)
    return hull, crop_box(hull)


def apply_crop(
    hu: np.ndarray, hull: np.ndarray, box: np.ndarray, crop: str = "masked"
) -> np.ndarray:
    """The part of a volume (Z, Y, X) int16 HU that is kept.

    Args:
        hu: the whole study.
        hull: (Z, Y, X) bool of the same shape.
        box: (3, 2) start and stop voxels.
        crop: `masked` (the box, OUTSIDE_HU outside the hull), `box` or `none` (the whole study).

    Raises:
        UserError: an unknown crop.
    """
    if crop == "none":
        return hu
    if crop not in ("masked", "box"):
        raise UserError(f"unknown crop {crop!r}: one of masked, box, none")
    where = tuple(slice(start, stop) for start, stop in box)
    if crop == "box":
        return hu[where].copy()
    return np.where(hull[where], hu[where], np.int16(OUTSIDE_HU))


def volume_ratio(box: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Volume of the crop box as a fraction of the whole study's."""
    return float(np.prod(box[:, 1] - box[:, 0]) / np.prod(shape))
