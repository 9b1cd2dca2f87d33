"""Masks that cannot be right count as a failed segmentation, each by a named rule.

The paper left out about 400 studies whose segmentation failed (section V.A); here each has its
reason.
"""

from dataclasses import replace

import numpy as np

from data_prep.anatomy.body import LUNG_HU, OUTER_HU, midline
from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError

SIDE_SHARE = 0.4  # of the larger lung; a big heart leaves the left one with 0.6 or more


def missing_side(lung: np.ndarray, middle: int) -> tuple[str, np.ndarray] | None:
    """The side with little lung, and where its lung should be.

    Args:
        lung: (Z, Y, X) bool, LPS axes.
        middle: the column that parts the right lung from the left.

    Returns:
        `right` or `left` and the other lung mirrored at `middle`, (Z, Y, X) bool, or None where
        both lungs are there.
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


# Of a child's single lung to an emphysematous adult's two; of an infant's heart to a huge one.
PLAUSIBLE_ML = {"lung": (300.0, 12000.0), "heart": (30.0, 3000.0)}
MAX_AERATED = 0.5  # of a missing lung's place


def check_masks(masks: Masks, hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Masks:
    """The masks, with the place of a missing lung as `opaque`, if nothing speaks against them.

    Args:
        masks: of the whole volume `hu` (Z, Y, X) int16 HU; `spacing_mm`: (z, y, x).

    Raises:
        SegmentationError: says which of these rules is broken.
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
        _explain(side, place, masks, hu)
        masks = replace(masks, opaque=place)
    if all(
        any(part.take(end, axis).any() for part in masks.parts())
        for axis in range(3)
        for end in (0, -1)
    ):
        raise SegmentationError("lungs and heart reach all edges: the box is the whole image")
    return masks


def _explain(side: str, place: np.ndarray, masks: Masks, hu: np.ndarray) -> None:
    """A missing lung is opaque, or its side is full of gas: its place does not look like lung."""
    values = hu[place & ~masks.lung]
    if np.mean((values > OUTER_HU) & (values < LUNG_HU)) > MAX_AERATED:
        raise SegmentationError(f"no {side} lung in the mask, though its place is aerated")
