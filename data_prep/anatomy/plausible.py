"""Check that masks are plausible, and fill in the place of a lung that is missing from them.

A mask that breaks a rule counts as a failed segmentation, with the rule as the reason. The paper
left out about 400 studies whose segmentation failed (section V.A). A lung can be missing because
it is opaque (fluid, collapse): its place is then the other lung, mirrored at the midline.
"""

from dataclasses import replace

import numpy as np

from data_prep.anatomy.body import LUNG_HU, OUTER_HU, midline
from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError

# mL: from a child's single lung to an emphysematous adult's two; from an infant's heart to a huge
# one.
PLAUSIBLE_ML = {"lung": (300.0, 12000.0), "heart": (30.0, 3000.0)}
SIDE_SHARE = 0.4  # of the larger lung; beside a big heart the left one has 0.6 or more
MAX_AERATED = 0.5  # of the place of a missing lung


def check_masks(masks: Masks, hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Masks:
    """The masks, with the place of a missing lung as `opaque`, if they are plausible.

    Args:
        masks: of the whole volume `hu` (Z, Y, X) int16 HU; `spacing_mm`: (z, y, x).

    Raises:
        SegmentationError: one of these rules is broken; the message names it.
            empty: a mask has no voxel.
            volume: lungs or heart are outside PLAUSIBLE_ML.
            one side: a lung is missing, though its place is aerated.
            whole image: the crop box is the whole volume, along all three axes.
    """
    for organ, (least, most) in PLAUSIBLE_ML.items():
        mask = getattr(masks, organ)
        if not mask.any():
            raise SegmentationError(f"no {organ}: the mask is empty")
        ml = np.count_nonzero(mask) * float(np.prod(spacing_mm)) / 1000
        if not least <= ml <= most:
            raise SegmentationError(
                f"{organ} of {ml:.0f} mL is implausible ({least:.0f} to {most:.0f} mL)"
            )
    if masks.opaque is None and (missing := missing_side(masks.lung, midline(hu))):
        side, place = missing
        _check_opaque(side, place, masks, hu)
        masks = replace(masks, opaque=place)
    if all(
        any(part.take(end, axis).any() for part in masks.parts())
        for axis in range(3)
        for end in (0, -1)
    ):
        raise SegmentationError("lungs and heart reach all edges: the box is the whole image")
    return masks


def missing_side(lung: np.ndarray, middle: int) -> tuple[str, np.ndarray] | None:
    """The side with little lung, and where its lung should be.

    Args:
        lung: (Z, Y, X) bool, LPS axes.
        middle: the column between the right lung and the left.

    Returns:
        `right` or `left` and the other lung mirrored at `middle`, (Z, Y, X) bool; None if both
        lungs are there.
    """
    right, left = (np.count_nonzero(part) for part in (lung[:, :, :middle], lung[:, :, middle:]))
    if min(right, left) >= SIDE_SHARE * max(right, left):
        return None
    mirrored = np.zeros_like(lung)
    width = min(middle, lung.shape[2] - middle)
    near_right, near_left = slice(middle - width, middle), slice(middle, middle + width)
    source, target = (near_left, near_right) if right < left else (near_right, near_left)
    mirrored[:, :, target] = lung[:, :, source][:, :, ::-1]
    return "right" if right < left else "left", mirrored


def _check_opaque(side: str, place: np.ndarray, masks: Masks, hu: np.ndarray) -> None:
    """Refuse a missing lung whose place has the density of lung: it is neither opaque nor gas."""
    values = hu[place & ~masks.lung]
    if np.mean((values > OUTER_HU) & (values < LUNG_HU)) > MAX_AERATED:
        raise SegmentationError(f"no {side} lung in the mask, though its place is aerated")
