"""Find landmarks in one or more organs: the geometry behind the rules.

Each function takes `Organ`s and returns a voxel (z, y, x), or None if the place is not seen.
"""

import math

import numpy as np
from scipy import ndimage

from data_prep.landmarks.organ import Organ, Point

MAX_GAP_MM = 10.0  # largest gap between the masks of a vessel and its branch
NEAR_MM = 2.0  # voxels at most this much farther than the nearest one form the contact

# Smallest area of a section, and how far down two sections must be seen. Less is not an aorta or a
# main bronchus, but a bump of the surface or an upper lobe branch beside the trachea.
AORTA = (150.0, 15.0)  # mm2, mm
AIRWAY = (50.0, 8.0)


def arch_centre(aorta: Organ) -> Point | None:
    """Centre of the aorta above the slice where it divides into ascending and descending."""
    z = aorta.parting(*AORTA)
    if z is None or z + 1 == len(aorta.mask):
        return None
    return aorta.between(0, z + 1, len(aorta.mask)).centre()


def root(aorta: Organ) -> Point | None:
    """Centre of the lowest 10 mm of the front part below the arch; the valve plane is oblique."""
    z = aorta.parting(*AORTA)
    if z is None:
        return None
    sections = aorta.sections(z, AORTA[0])[:2]
    front, back = sorted(sections, key=lambda section: np.argwhere(section)[:, 0].mean())
    labels, _ = ndimage.label(aorta.mask[: z + 1])
    ascending = labels[z][front][0]
    if ascending == labels[z][back][0]:
        return None
    return aorta.part(labels == ascending).end(0, -1, 10.0).centre()


def carina(airway: Organ) -> Point | None:
    """Centre of the last slice of the trachea before it divides."""
    z = airway.parting(*AIRWAY)
    if z is None or z + 1 == len(airway.mask):
        return None
    section = airway.sections(z + 1, AIRWAY[0])[0]
    return airway.part(section[None], (z + 1, 0, 0)).centre()


def trachea_end(trachea: Organ) -> Point | None:
    """The carina, or the lower end of a trachea mask that does not divide."""
    if trachea.parting(*AIRWAY) is None:
        return trachea.end(0, -1).centre()
    return carina(trachea)


def bronchus(airway: Organ, fork: Point | None, sign: int, mm: float) -> Point | None:
    """Centre of the airway below the carina, at a distance of `mm` from it.

    Args:
        airway: trachea and bronchi.
        fork: the carina, in the same voxels.
        sign: -1 for the right bronchus, 1 for the left.
        mm: distance from the carina.
    """
    if fork is None:
        return None
    points = airway.points
    offset = (points - fork) * airway.spacing_mm
    half = max(2.0, 0.75 * max(airway.spacing_mm))
    there = np.abs(np.linalg.norm(offset, axis=1) - mm) <= half
    return airway.centre_of(points[there & (offset[:, 0] < 0) & (sign * offset[:, 2] > 0)])


def origin(branch: Organ, vessel: Organ) -> Point | None:
    """Origin of a branch: the centre of the branch's voxels nearest to the vessel."""
    return _nearest(branch, branch.gap_to(vessel))


def bifurcation(trunk: Organ, one: Organ, other: Organ) -> Point | None:
    """Bifurcation of a trunk into two arteries: the centre of its voxels nearest to both."""
    return _nearest(trunk, np.maximum(trunk.gap_to(one), trunk.gap_to(other)))


def _nearest(organ: Organ, gap_mm: np.ndarray) -> Point | None:
    nearest = gap_mm.min()
    if nearest > MAX_GAP_MM:
        return None
    return organ.centre_of(organ.points[gap_mm <= nearest + NEAR_MM])


def notch(sternum: Organ) -> Point | None:
    """Centre of the upper 3 mm of the middle 10 mm of the manubrium (the highest 25 mm)."""
    manubrium = sternum.end(0, 1, 25.0)
    middle, half = manubrium.mask.shape[2] / 2, 5.0 / sternum.spacing_mm[2]
    first, stop = max(0, int(middle - half)), math.ceil(middle + half)
    if not manubrium.mask[:, :, first:stop].any():
        return None
    return manubrium.between(2, first, stop).end(0, 1, 3.0).centre()


def vertebral_branch(subclavian: Organ, sign: int) -> Point | None:
    """Centre of the highest 3 mm of the artery within 30 mm of its medial end.

    Args:
        subclavian: the artery.
        sign: -1 for the right one, 1 for the left.
    """
    return subclavian.end(2, -sign, 30.0).end(0, 1, 3.0).centre()


def highest(*organs: Organ | None) -> Point | None:
    """Centre of the highest section of several organs; missing ones (None) are left out."""
    there = [organ for organ in organs if organ]
    if not there:
        return None
    return max(there, key=lambda organ: organ.start[0] + len(organ.mask)).end(0, 1).centre()
