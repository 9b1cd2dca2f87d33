"""Find the place of a lung, or of a part of it, that is opaque: fluid, collapse.

Both lungs reach about as far down and up. Where one side has nearly none and the other side has,
its place is the other lung mirrored at the spine; in the lower part also its own outline from
above, since the thorax narrows upwards, not downwards.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SIDE_SHARE = 0.4  # of the larger lung; beside a big heart the left one has 0.6 or more
SLICE_SHARE = 0.2  # of the other lung's area on a slice; real lungs have less on 20 mm, at the base
MIN_MM = 25.0  # height of an opaque part
MIN_CM2 = 20.0  # of the other lung on its slices
CRUMB_CM2 = 5.0  # less on a slice is a bronchus in fluid, or the tip of a lung
EDGE_MM = 20.0  # height of the aerated part beside it whose outline counts
BELOW_MM = 15.0  # how much lower than the other lung one may end


@dataclass(frozen=True)
class Opaque:
    """An opaque lung.

    Attributes:
        side: `right` or `left`.
        whole: whether nearly all of it is opaque.
        mirrored: (Z, Y, X) bool, the other lung mirrored, on its slices.
        place: (Z, Y, X) bool, all that the hull should cover.
    """

    side: str
    whole: bool
    mirrored: np.ndarray
    place: np.ndarray


def opaque_lung(
    lung: np.ndarray, middle: int, spacing_mm: tuple[float, float, float]
) -> Opaque | None:
    """The lung that is missing from a mask, whole or in part; None if both lungs are there.

    Args:
        lung: (Z, Y, X) bool, LPS axes.
        middle: the column between the right lung and the left.
        spacing_mm: (z, y, x).
    """
    sides = {"right": np.s_[:, :, :middle], "left": np.s_[:, :, middle:]}
    area = {name: np.count_nonzero(lung[side], axis=(1, 2)) for name, side in sides.items()}
    for name, other in (("right", "left"), ("left", "right")):
        cm2 = area[other] * spacing_mm[1] * spacing_mm[2] / 100
        low = (cm2 > MIN_CM2) & (area[name] < SLICE_SHARE * area[other])
        runs = [run for (run,) in ndimage.find_objects(ndimage.label(low)[0])]
        runs = [run for run in runs if (run.stop - run.start) * spacing_mm[0] >= MIN_MM]
        gone = area[name].sum() < SIDE_SHARE * area[other].sum()
        if not runs and not gone:
            continue
        mirrored = _mirror(lung, middle, other)
        own = np.zeros_like(lung)
        own[sides[name]] = lung[sides[name]]
        own[area[name] * spacing_mm[1] * spacing_mm[2] < 100 * CRUMB_CM2] = False
        places = [_place(run, own, mirrored, spacing_mm[0]) for run in runs]
        if any(place is None for place in places) or not runs:
            return Opaque(name, True, mirrored, mirrored)
        here = np.zeros(len(lung), bool)
        for run in runs:
            here[run] = True
        mirrored[~here] = False
        return Opaque(name, False, mirrored, np.logical_or.reduce(places))
    return None


def _place(run: slice, own: np.ndarray, mirrored: np.ndarray, z_mm: float) -> np.ndarray | None:
    """What the hull should cover for an opaque part on the slices `run` of one side, or None if
    there is no lung on that side above and below.

    Args:
        own: lung on that side, (Z, Y, X) bool; `mirrored`: the other lung, mirrored onto it.
        z_mm: distance of slices.
    """
    edge = max(1, round(EDGE_MM / z_mm))
    above, below = own[run.stop : run.stop + edge], own[max(0, run.start - edge) : run.start]
    if not above.any() and not below.any():
        return None
    first = run.start
    if not below.any():  # the base
        ends = np.flatnonzero(mirrored.any((1, 2)))[0]
        first = max(0, min(first, ends - round(BELOW_MM / z_mm)))
    place = np.zeros_like(own)
    place[first : run.stop] = (above if above.any() else below).any(0)
    place[run] |= mirrored[run]
    return place


def _mirror(lung: np.ndarray, middle: int, side: str) -> np.ndarray:
    """The lung on one side, mirrored at the column `middle` onto the other: (Z, Y, X) bool."""
    mirrored = np.zeros_like(lung)
    width = min(middle, lung.shape[2] - middle)
    right, left = slice(middle - width, middle), slice(middle, middle + width)
    source, target = (right, left) if side == "right" else (left, right)
    mirrored[:, :, target] = lung[:, :, source][:, :, ::-1]
    return mirrored
