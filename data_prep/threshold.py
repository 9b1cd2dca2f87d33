"""The embedded segmenter: lungs are the air inside the body, the heart the blood between them.

Volumes are (Z, Y, X) int16 HU in LPS axes, spacing is (z, y, x) mm.
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

from data_prep.airway import AIRWAY_HU, trace_airway
from data_prep.errors import SegmentationError
from data_prep.hull import convex_hull, crop_box
from data_prep.masks import Masks

COARSE_MM = 4.0  # the threshold method works at about this voxel size
LUNG_HU = -400  # half-way between lung (about -850) and soft tissue (about 40)
GAS_HU = -975  # the darkest quarter of bowel gas lies below, that of emphysematous lung above
SOFT_HU = (-20, 700)  # fat below, cortical bone above
CONTRAST_HU = 120  # opacified blood above; myocardium, liver and clotted blood below
DOME_TOP_MM2 = 400.0  # the first section of the dome, larger than those of a hilum
MIN_LUNG_ML = 300.0
MIN_HEART_ML = 30.0


def segment_by_threshold(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Masks:
    """Masks of lungs and heart of a volume (Z, Y, X) int16 HU, found at about COARSE_MM.

    Raises:
        SegmentationError: lungs or heart not found.
    """
    coarse, spacing = reduce_volume(hu, spacing_mm)
    inside = air_inside_body(coarse)
    if not inside.any():
        raise SegmentationError("no lungs: no air inside the body")
    airway, _ = trace_airway(inside & (coarse < AIRWAY_HU), spacing)
    # The wall goes with the airway: it is air by partial volume.
    airway = _morphology(airway, cv2.MORPH_DILATE, 2.0, spacing)
    lung = _choose_lungs(coarse, inside, spacing)
    lung = _morphology(lung, cv2.MORPH_CLOSE, 6.0, spacing) & ~airway
    heart = _heart(coarse, lung, spacing)
    if coarse.shape == hu.shape:
        return Masks(lung, heart)
    return Masks(
        _enlarge(lung, hu, lambda slice_hu: slice_hu < LUNG_HU),
        _enlarge(heart, hu, lambda slice_hu: slice_hu > SOFT_HU[0]),
    )


def reduce_volume(
    hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The volume at about COARSE_MM, never finer than it was: (Z, Y, X) int16 HU, and its spacing.

    In plane voxels are averaged; of the slices every n-th is taken.
    """
    step, *factors = (max(1, round(COARSE_MM / mm)) for mm in spacing_mm)
    size = [max(1, round(n / f)) for n, f in zip(hu.shape[1:], factors, strict=True)]
    slices = hu[step // 2 :: step] if len(hu) > step // 2 else hu[:1]
    if size != list(hu.shape[1:]):
        slices = np.stack([cv2.resize(s, size[::-1], interpolation=cv2.INTER_AREA) for s in slices])
    in_plane = (mm * n / m for mm, n, m in zip(spacing_mm[1:], hu.shape[1:], size, strict=True))
    return slices, (spacing_mm[0] * step, *in_plane)


def _enlarge(
    coarse: np.ndarray, hu: np.ndarray, belongs: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A coarse mask at full size: its inside as it is, a shell of one coarse voxel judged by HU."""
    zone = ndimage.binary_dilation(coarse).astype(np.uint8)
    zone += ndimage.binary_erosion(coarse, border_value=1)
    full = np.zeros(hu.shape, bool)
    at = np.minimum(np.arange(len(hu)) * len(coarse) // len(hu), len(coarse) - 1)
    for z in np.flatnonzero(zone.any((1, 2))[at]):
        near = cv2.resize(zone[at[z]], hu.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        full[z] = (near == 2) | ((near == 1) & belongs(hu[z]))
    return full


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Air that on its slice is not connected to the image's border: (Z, Y, X) bool."""
    air = np.pad((hu < LUNG_HU).astype(np.uint8), ((0, 0), (1, 1), (1, 1)), constant_values=1)
    for plane in air:
        cv2.floodFill(plane, None, (0, 0), 0)
    return air[:, 1:-1, 1:-1].astype(bool)


def _choose_lungs(hu: np.ndarray, air: np.ndarray, spacing_mm: tuple) -> np.ndarray:
    """The largest air region, and others of its kind beside it; bowel gas is left out."""
    labels, _ = ndimage.label(air)
    ml = np.bincount(labels.ravel(), minlength=2) * np.prod(spacing_mm) / 1000
    ml[0] = 0
    boxes = ndimage.find_objects(labels)
    kept, reach = [], None
    for i in np.argsort(-ml)[:8]:
        if i == 0 or ml[i] < 0.05 * ml.max():
            break
        values = hu[boxes[i - 1]][labels[boxes[i - 1]] == i]
        if np.percentile(values, 25) < GAS_HU:
            continue
        z = boxes[i - 1][0]
        if reach is None:
            if ml[i] < MIN_LUNG_ML:
                break
            reach = z
        elif (z.start + z.stop) / 2 < reach.start + 0.15 * (reach.stop - reach.start):
            continue  # at the foot of the lungs: stomach or bowel
        kept.append(i)
    if not kept:
        raise SegmentationError(
            f"no lungs: nothing of their density inside the body fills {MIN_LUNG_ML:.0f} mL"
        )
    return np.isin(labels, kept)


def _morphology(
    mask: np.ndarray, operation: int, radius_mm: float, spacing_mm: tuple
) -> np.ndarray:
    """An OpenCV morphology operation on each slice, with an ellipse of that radius."""
    ry, rx = (max(1, round(radius_mm / mm)) for mm in spacing_mm[1:])
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rx + 1, 2 * ry + 1))
    planes = mask.astype(np.uint8)
    for z in np.flatnonzero(mask.any((1, 2))):
        planes[z] = cv2.morphologyEx(planes[z], operation, kernel)
    return planes.astype(bool)


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    size = np.bincount(labels.ravel(), minlength=2)
    size[0] = 0
    return labels == size.argmax() if size.max() else mask


def midline(hu: np.ndarray) -> int:
    """The column x with as much tissue to its right as to its left, of a volume (Z, Y, X) HU."""
    tissue = (hu[:: max(1, len(hu) // 40), ::2] > LUNG_HU).sum((0, 1)).cumsum()
    return int(np.searchsorted(tissue, tissue[-1] / 2))


def diaphragm_dome(
    lung: np.ndarray, middle: int, spacing_mm: tuple[float, float, float]
) -> tuple[int, int, int] | None:
    """Top (z, y, x) of the right diaphragm: soft tissue in the hull of the right lung.

    Args:
        lung: (Z, Y, X) bool; `middle`: the column that parts the right lung from the left.
        spacing_mm: voxel size (z, y, x).

    Returns:
        None where no lung rides on a dome, e.g. because the volume's lower edge cuts it.
    """
    right = lung[:, :, :middle]
    columns = np.flatnonzero(right.any((0, 1)))
    if not len(columns):
        return None
    # The part that lies to the right of the heart.
    outer = columns[0] + round(0.6 * (middle - columns[0]))
    bulge = (convex_hull(right) & ~right)[:, :, :outer]
    bulge = _largest(_morphology(bulge, cv2.MORPH_OPEN, 8.0, spacing_mm))
    area = bulge.sum((1, 2)) * spacing_mm[1] * spacing_mm[2]
    z = int(area.argmax())
    if area[z] < 5 * DOME_TOP_MM2:
        return None
    while z + 1 < len(area) and area[z + 1] > DOME_TOP_MM2:
        z += 1
    y, x = np.argwhere(bulge[z]).mean(0)
    return z, round(y), round(x)


def _both_sides(lung: np.ndarray, middle: int) -> np.ndarray:
    """The lungs; where one is missing or opaque, the other one mirrored in its place."""
    right, left = lung[:, :, :middle].sum(), lung[:, :, middle:].sum()
    if min(right, left) > 0.2 * max(right, left):
        return lung
    mirrored = 2 * middle - np.arange(lung.shape[2])
    inside = (mirrored >= 0) & (mirrored < lung.shape[2])
    both = lung.copy()
    both[:, :, inside] |= lung[:, :, mirrored[inside]]
    return both


def _heart(hu: np.ndarray, lung: np.ndarray, spacing_mm: tuple) -> np.ndarray:
    """Soft tissue in the hull of the lungs: opacified blood where there is any."""
    middle = midline(hu)
    lung = _both_sides(lung, middle)
    (z0, y0, x0), (z1, y1, x1) = crop_box(lung).T
    width = x1 - x0
    dome = diaphragm_dome(lung, middle, spacing_mm)
    bottom = max(z0, dome[0] - round(20 / spacing_mm[0])) if dome else z0
    # The lower two thirds of the lungs down to the diaphragm, in front of the spine, more to the
    # left than to the right.
    where = (
        slice(bottom, max(bottom + 1, z0 + round((z1 - z0) * 2 / 3))),
        slice(y0, y0 + max(1, round((y1 - y0) * 0.68))),
        slice(max(0, round(middle - 0.2 * width)), round(middle + 0.35 * width)),
    )
    part = hu[where]
    soft = (part > SOFT_HU[0]) & (part < SOFT_HU[1]) & convex_hull(lung[where[0]])[:, *where[1:]]
    ml = np.prod(spacing_mm) / 1000
    blood = _largest(_morphology(soft & (part > CONTRAST_HU), cv2.MORPH_OPEN, 7.0, spacing_mm))
    if blood.sum() * ml > MIN_HEART_ML:
        # Its wall is about 10 mm thick, at the apex too.
        wall = max(1, round(10 / spacing_mm[0]))
        line = np.ones((2 * wall + 1, 1, 1), bool)
        found = _morphology(blood, cv2.MORPH_DILATE, 10.0, spacing_mm)
        found = ndimage.binary_dilation(found, line) & soft
    else:
        found = _largest(_morphology(soft, cv2.MORPH_OPEN, 12.0, spacing_mm))
    if found.sum() * ml < MIN_HEART_ML:
        raise SegmentationError(
            f"no heart: {found.sum() * ml:.0f} mL of soft tissue between the lungs"
        )
    heart = np.zeros(hu.shape, bool)
    heart[where] = found
    return heart
