"""Masks that cannot be right count as a failed segmentation, each by a named rule.

The paper left out about 400 studies whose segmentation failed (section V.A); here each has its
reason.
"""

from dataclasses import replace

import numpy as np

from data_prep.anatomy.body import LUNG_HU, OUTER_HU, midline
from data_prep.anatomy.sides import missing_side
from data_prep.errors import SegmentationError
from data_prep.masks import Masks

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
