"""Find the air inside the body and the body's midline on a coarse CT.

Volumes are (Z, Y, X) int16 HU in LPS axes.
"""

import cv2
import numpy as np

from data_prep.anatomy.coarse import morphology
from data_prep.anatomy.hull import convex_hull, crop_box

LUNG_HU = -400  # half-way between lung (about -850) and soft tissue (about 40)
OUTER_HU = -950  # room air is darker, lung that touches the image border is not
BONE_HU = 180
SPINE_MM = 36.0  # width of a vertebra
MIN_SPINE = 1.6  # bone in its columns, relative to the mean of all columns; real ones have 2.3
SAMPLE_MM = 4.0
MIN_IN_HULL = 0.3  # share in the hull: a lung cut by the image has more, foam of the table less


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Air inside the body's outline without room air: (Z, Y, X) bool.

    Room air is nearly pure air connected to the border of its slice. Lung that touches the border,
    as in a small field of view, is denser and is kept, even if noise breaks through a thin chest
    wall. Air outside the outline, as in the foam of the table or in blankets, is left out.

    Args:
        hu: (Z, Y, X) int16, at a voxel size of about 4 mm.
    """
    air = (hu < LUNG_HU) & ~np.stack([_room(plane) for plane in hu])
    inside = air & _outline(hu, air)
    # `_room` also takes a rim for the skin's partial volume; lung next to room air has no skin, so
    # the rim is given back.
    at_room = (hu < LUNG_HU) & (hu > OUTER_HU) & ~air
    return inside | (morphology(inside, cv2.MORPH_DILATE, 4.0, (4.0, 4.0, 4.0)) & at_room)


def _room(plane: np.ndarray) -> np.ndarray:
    """Room air on a slice (Y, X), with the partial volume at the skin."""
    # Averaged, since single noisy voxels would break it up.
    dark = (cv2.blur(plane, (3, 3)) < OUTER_HU).astype(np.uint8)
    dark = cv2.copyMakeBorder(dark, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(dark, None, (0, 0), 2)
    room = (dark[1:-1, 1:-1] == 2).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    # The average ends a voxel before the skin; partial volume adds one.
    room |= cv2.dilate(room, around) & (plane < OUTER_HU).view(np.uint8)
    return cv2.dilate(room, around).astype(bool)


def _outline(hu: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Convex hull of the body on each slice (Z, Y, X) bool.

    It goes around tissue, without thin things such as the table's shell, and around regions of
    `air` of which at least MIN_IN_HULL lies in the tissue's hull: the tissue's hull alone would cut
    through a lung that the image border cuts.
    """
    solid = np.zeros(hu.shape, bool)
    bulk = np.zeros(hu.shape, bool)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    for z, plane in enumerate(hu):
        tissue = (plane > LUNG_HU).astype(np.uint8)
        tissue = cv2.morphologyEx(tissue, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(tissue, connectivity=4)
        area = stats[:, cv2.CC_STAT_AREA]
        # The chest wall may be in several parts; small parts are not body.
        part = area > 0.1 * area[1:].max(initial=0)
        part[0] = False
        solid[z] = part[labels]
    hull = convex_hull(solid)
    for z, plane in enumerate(air.view(np.uint8)):
        count, labels = cv2.connectedComponents(plane, connectivity=4)
        within = np.bincount(labels[hull[z]], minlength=count)
        part = within > MIN_IN_HULL * np.bincount(labels.ravel(), minlength=count)
        part[0] = False
        # Opened, since a lung may be connected to the skin's partial volume through a thin wall.
        bulk[z] = cv2.morphologyEx(part[labels].astype(np.uint8), cv2.MORPH_OPEN, disk)
    return convex_hull(hull, bulk)


def midline(hu: np.ndarray, lung: np.ndarray, spacing_mm: tuple[float, float, float]) -> int:
    """The column x of the spine, between the right half of the body and the left.

    The spine is seen behind the lungs, wherever the image ends to the sides. Where it is not seen,
    it is the column with half of the body on each side; in each row the body extends from the first
    tissue to the last, so an aerated lung counts as much as an opaque one.

    Args:
        hu: (Z, Y, X) HU.
        lung: mask on its grid; `spacing_mm`: its voxel size (z, y, x).
    """
    steps = tuple(max(1, round(SAMPLE_MM / mm)) for mm in spacing_mm[:2])
    if lung.any():
        (z0, z1), (_, back), _ = crop_box(lung)
        behind = slice(max(0, back - round(20 / spacing_mm[1])), back + round(50 / spacing_mm[1]))
        bone = hu[z0:z1, behind][:: steps[0], :: steps[1]] > BONE_HU
        columns = bone.mean((0, 1))
        width = max(1, round(SPINE_MM / spacing_mm[2]))
        spine = np.convolve(columns, np.ones(width) / width, "same")
        if spine.max() > MIN_SPINE * max(columns.mean(), 0.005):
            return int(spine.argmax())
    tissue = hu[:: steps[0], :: steps[1]] > LUNG_HU
    body = np.logical_or.accumulate(tissue, 2)
    body &= np.logical_or.accumulate(tissue[:, :, ::-1], 2)[:, :, ::-1]
    columns = body.sum((0, 1)).cumsum()
    return int(np.searchsorted(columns, columns[-1] / 2)) + 1
