"""The embedded segmenter: lungs from air inside the body, the heart from blood between them.

Volumes are (Z, Y, X) int16 HU in LPS axes, spacing is (z, y, x) mm.
"""

import cv2
import numpy as np
from scipy import ndimage

from data_prep.anatomy.airway import AIRWAY_HU, trace_airway
from data_prep.anatomy.body import LUNG_HU, air_inside_body
from data_prep.anatomy.coarse import enlarge, morphology, reduce_volume
from data_prep.anatomy.heart import SOFT_HU, find_heart
from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError

GAS_HU = -975  # lower quartile: below in bowel gas, above in lung, emphysematous lung included
MIN_LUNG_ML = 300.0
MIN_PART_ML = 10.0  # of lung in one piece


def segment_by_threshold(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Masks:
    """Masks of lungs and heart of a volume (Z, Y, X) int16 HU, computed at about 4 mm.

    Raises:
        SegmentationError: lungs or heart not found.
    """
    coarse, spacing = reduce_volume(hu, spacing_mm)
    inside = air_inside_body(coarse)
    if not inside.any():
        raise SegmentationError("no lungs: no air inside the body")
    airway, _ = trace_airway(inside & (coarse < AIRWAY_HU), spacing)
    # The airway's wall is removed with it: partial volume makes it look like lung.
    airway = morphology(airway, cv2.MORPH_DILATE, 2.0, spacing)
    lung = _choose_lungs(coarse, inside, spacing)
    lung = morphology(lung, cv2.MORPH_CLOSE, 6.0, spacing) & ~airway
    lung = _without_crumbs(lung, spacing)
    heart = find_heart(coarse, lung, spacing)
    if coarse.shape == hu.shape:
        return Masks(lung, heart, coarse=(coarse, spacing))
    return Masks(
        enlarge(lung, hu, lambda slice_hu: slice_hu < LUNG_HU),
        enlarge(heart, hu, lambda slice_hu: slice_hu > SOFT_HU[0]),
        coarse=(coarse, spacing),
    )


def _without_crumbs(lung: np.ndarray, spacing_mm: tuple) -> np.ndarray:
    """The mask without small parts, such as remains of larynx or trachea above the lungs."""
    labels, count = ndimage.label(lung)
    ml = np.bincount(labels.ravel(), minlength=count + 1) * np.prod(spacing_mm) / 1000
    return lung & (ml >= MIN_PART_ML)[labels]


def _choose_lungs(hu: np.ndarray, air: np.ndarray, spacing_mm: tuple) -> np.ndarray:
    """The largest air region and similar ones beside it; bowel gas is left out."""
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
            f"no lungs: nothing of their density inside the body reaches {MIN_LUNG_ML:.0f} mL"
        )
    return np.isin(labels, kept)
