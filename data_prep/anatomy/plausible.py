"""Check that masks are plausible, and fill in the place of lung that is missing from them.

A mask that breaks a rule counts as a failed segmentation, with the rule as the reason. The paper
left out about 400 studies whose segmentation failed (section V.A). Lung can be missing because it
is opaque, or because the image cuts it (thorax.py).
"""

from dataclasses import replace

import numpy as np

from data_prep.anatomy.body import LUNG_HU, OUTER_HU
from data_prep.anatomy.coarse import enlarge_blocks, reduce_mask, reduce_volume
from data_prep.anatomy.masks import Masks
from data_prep.anatomy.orientation import orientation_remarks
from data_prep.anatomy.thorax import Thorax
from data_prep.errors import SegmentationError

# mL: from a child's single lung to an emphysematous adult's two; from an infant's heart to a huge
# one.
PLAUSIBLE_ML = {"lung": (300.0, 12000.0), "heart": (30.0, 3000.0)}
MAX_AERATED = 0.5  # of the place of a missing lung


def check_masks(masks: Masks, hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Masks:
    """The masks, with the place of missing lung as `unseen` and remarks, if they are plausible.

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
    coarse, coarse_mm = masks.coarse or reduce_volume(hu, spacing_mm)
    thorax = Thorax(coarse, reduce_mask(masks.lung, spacing_mm), coarse_mm)
    if thorax.opaque and thorax.opaque.whole:
        _check_opaque(thorax)
    if thorax.place is not None:
        masks = replace(masks, unseen=enlarge_blocks(thorax.place, hu.shape))
    masks = replace(
        masks,
        coarse=(coarse, coarse_mm),
        remarks=(*orientation_remarks(thorax), *thorax.remarks()),
    )
    if all(
        any(part.take(end, axis).any() for part in masks.parts())
        for axis in range(3)
        for end in (0, -1)
    ):
        raise SegmentationError("lungs and heart reach all edges: the box is the whole image")
    return masks


def _check_opaque(thorax: Thorax) -> None:
    """Refuse a missing lung whose place has the density of lung: it is neither opaque nor gas."""
    opaque = thorax.opaque
    values = thorax.hu[opaque.mirrored & ~thorax.seen]
    if np.mean((values > OUTER_HU) & (values < LUNG_HU)) > MAX_AERATED:
        raise SegmentationError(f"no {opaque.side} lung in the mask, though its place is aerated")
