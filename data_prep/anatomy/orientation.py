"""Compare the anatomy with the orientation that the header gives: domes, trachea, spine, heart.

An image may be upside down, front to back or mirrored without any sign in its header. Works on a
coarse CT, of about 4 mm, in what should be LPS axes.
"""

import cv2
import numpy as np

from data_prep.anatomy.airway import AIRWAY_HU, trace_airway
from data_prep.anatomy.body import BONE_HU, air_inside_body
from data_prep.anatomy.coarse import morphology
from data_prep.anatomy.heart import SOFT_HU
from data_prep.anatomy.hull import convex_hull
from data_prep.anatomy.thorax import Thorax

MIN_DOME_ML = 30.0  # of soft tissue that bulges into the lungs
DOME_RATIO = 4.0  # below to above; in real chests and phantoms above 50
SPINE_DEPTH_MM = 40.0  # from the hull of the lungs inwards
SPINE_OUT_MM = 45.0  # and outwards
SPINE_HALF_MM = 15.0  # to each side of the middle
MIN_BONE_ML = 10.0
SPINE_SHARE = 0.35  # of the bone that lies behind; 0.73 and more in whole chests, 0.28 if turned
HEART_MM = -7.0  # from the spine to the left; 7 to 18 in real chests
CHECK = "check the orientation in the file's header"


def orientation_remarks(thorax: Thorax) -> list[str]:
    """Where the anatomy contradicts the axes; empty if it agrees or says nothing."""
    remarks = []
    if upside_down(thorax):
        remarks.append("upside down: the trachea divides upwards")
    elif _heart_mm(thorax) < HEART_MM:
        remarks.append("left and right may be exchanged: the heart lies to the right of the spine")
    if back_to_front(thorax):
        remarks.append("front and back are exchanged: the spine lies in front of the lungs")
    return [f"{remark}; {CHECK}" for remark in remarks]


def remarks_without_masks(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[str]:
    """As `orientation_remarks`, for a coarse CT (Z, Y, X) HU whose lungs were not found."""
    air = air_inside_body(hu)
    return orientation_remarks(Thorax(hu, air, spacing_mm)) if air.any() else []


def upside_down(thorax: Thorax) -> bool:
    """Whether the trachea divides upwards, and no diaphragm bulges into the lungs from below."""
    slices = np.flatnonzero(thorax.seen.any((1, 2)))
    third = max(1, (slices[-1] + 1 - slices[0]) // 3)
    ends = (slice(slices[0], slices[0] + third), slice(slices[-1] + 1 - third, slices[-1] + 1))
    below, above = (_bulge_ml(thorax, end) for end in ends)
    if below > MIN_DOME_ML and below > DOME_RATIO * above:
        return False
    inside = air_inside_body(thorax.hu) & (thorax.hu < AIRWAY_HU)
    if trace_airway(inside, thorax.spacing_mm)[1] is not None:
        return False
    return trace_airway(inside[::-1], thorax.spacing_mm)[1] is not None


def _bulge_ml(thorax: Thorax, slices: slice) -> float:
    """Soft tissue inside the hull of each lung, beside the heart, on some slices."""
    half, middle, found = round(0.2 * thorax.width), thorax.middle, 0
    beside = slice(0, max(1, middle - half)), slice(half, None)
    for lung, part in zip((slice(0, middle), slice(middle, None)), beside, strict=True):
        seen = thorax.seen[slices, :, lung]
        bulge = morphology(convex_hull(seen) & ~seen, cv2.MORPH_OPEN, 8.0, thorax.spacing_mm)
        found += np.count_nonzero(bulge[:, :, part])
    return found * float(np.prod(thorax.spacing_mm)) / 1000


def back_to_front(thorax: Thorax) -> bool:
    """Whether there is more bone in front of the lungs than behind, near the middle."""
    _, y_mm, x_mm = thorax.spacing_mm
    half = max(1, round(SPINE_HALF_MM / x_mm))
    band = slice(max(0, thorax.middle - half), thorax.middle + half)
    deep, out = round(SPINE_DEPTH_MM / y_mm), round(SPINE_OUT_MM / y_mm)
    front = back = 0
    for z, plane in enumerate(convex_hull(thorax.seen)[:, :, band]):
        rows = np.flatnonzero(plane.any(1))
        if len(rows):
            bone = thorax.hu[z, :, band] > BONE_HU
            front += np.count_nonzero(bone[max(0, rows[0] - out) : rows[0] + deep])
            back += np.count_nonzero(bone[max(0, rows[-1] + 1 - deep) : rows[-1] + 1 + out])
    enough = (front + back) * np.prod(thorax.spacing_mm) / 1000 > MIN_BONE_ML
    return bool(enough and back < SPINE_SHARE * (front + back))


def _heart_mm(thorax: Thorax) -> float:
    """How far to the left of the spine the soft tissue between the lungs lies, in their lower half;
    0 where the lungs are not seen whole."""
    if thorax.place is not None or thorax.goes_on:
        return 0.0
    slices = np.flatnonzero(thorax.seen.any((1, 2)))
    height = slices[-1] + 1 - slices[0]
    low = slice(slices[0] + height // 4, slices[0] + height // 2 + 1)
    seen = thorax.seen[low]
    soft = convex_hull(seen) & ~seen & (thorax.hu[low] > SOFT_HU[0])
    columns = np.count_nonzero(soft, axis=(0, 1))
    if not columns.any():
        return 0.0
    centre = np.average(np.arange(len(columns)), weights=columns)
    return float(centre - thorax.middle) * thorax.spacing_mm[2]
