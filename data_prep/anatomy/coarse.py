"""Reduce volumes and masks to about 4 mm, where the threshold method works, and enlarge masks.

Volumes are (Z, Y, X) int16 HU in LPS axes, masks (Z, Y, X) bool, spacing is (z, y, x) mm.
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

COARSE_MM = 4.0


def reduce_volume(
    hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The volume at about COARSE_MM, never finer than it was: (Z, Y, X) int16 HU, and its spacing.

    Voxels are averaged in plane; along z every n-th slice is taken.
    """
    step, size, spacing = _grid(hu.shape, spacing_mm)
    slices = _every(hu, step)
    if size != hu.shape[1:]:
        slices = np.stack([cv2.resize(s, size[::-1], interpolation=cv2.INTER_AREA) for s in slices])
    return slices, spacing


def reduce_mask(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A mask (Z, Y, X) bool on the grid of `reduce_volume`: voxels more than half covered by it."""
    step, size, _ = _grid(mask.shape, spacing_mm)
    slices = _every(mask, step).astype(np.uint8) * np.uint8(255)
    return np.stack([cv2.resize(s, size[::-1], interpolation=cv2.INTER_AREA) for s in slices]) > 127


def _grid(shape: tuple, spacing_mm: tuple) -> tuple[int, tuple[int, int], tuple]:
    step, *factors = (max(1, round(COARSE_MM / mm)) for mm in spacing_mm)
    size = tuple(max(1, round(n / f)) for n, f in zip(shape[1:], factors, strict=True))
    in_plane = (mm * n / m for mm, n, m in zip(spacing_mm[1:], shape[1:], size, strict=True))
    return step, size, (spacing_mm[0] * step, *in_plane)


def _every(volume: np.ndarray, step: int) -> np.ndarray:
    return volume[step // 2 :: step] if len(volume) > step // 2 else volume[:1]


def enlarge(
    coarse: np.ndarray, hu: np.ndarray, belongs: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A coarse mask at full size; in a shell of one coarse voxel at its edge the HU decide.

    Args:
        coarse: mask on the grid of `reduce_volume`.
        hu: the full volume (Z, Y, X).
        belongs: takes the HU of a slice (Y, X), returns which voxels belong to the organ.
    """
    zone = ndimage.binary_dilation(coarse).astype(np.uint8)
    zone += ndimage.binary_erosion(coarse, border_value=1)
    full = np.zeros(hu.shape, bool)
    at = np.arange(len(hu)) * len(coarse) // len(hu)
    for coarse_z in np.flatnonzero(zone.any((1, 2))):
        near = cv2.resize(zone[coarse_z], hu.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        inner, shell = near == 2, near == 1
        for z in np.flatnonzero(at == coarse_z):
            full[z] = inner | (shell & belongs(hu[z]))
    return full


def enlarge_blocks(coarse: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A coarse mask at full size, (Z, Y, X) bool, each of its voxels as a block."""
    full = np.empty(shape, np.uint8)
    for z, at in enumerate(np.arange(shape[0]) * len(coarse) // shape[0]):
        plane = coarse[at].astype(np.uint8)
        full[z] = cv2.resize(plane, shape[:0:-1], interpolation=cv2.INTER_NEAREST)
    return full.view(bool)


def morphology(
    mask: np.ndarray, operation: int, radius_mm: float, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Apply an OpenCV morphology operation to each slice, with an ellipse of that radius."""
    ry, rx = (max(1, round(radius_mm / mm)) for mm in spacing_mm[1:])
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rx + 1, 2 * ry + 1))
    planes = mask.astype(np.uint8)
    for z in np.flatnonzero(mask.any((1, 2))):
        planes[z] = cv2.morphologyEx(planes[z], operation, kernel)
    return planes.astype(bool)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    labels, _ = ndimage.label(mask)
    size = np.bincount(labels.ravel(), minlength=2)
    size[0] = 0
    return labels == size.argmax() if size.max() else mask
