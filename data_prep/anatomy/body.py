"""What lies inside the body on a coarse CT: its air, its midline.

Volumes are (Z, Y, X) int16 HU in LPS axes.
"""

import cv2
import numpy as np

from data_prep.anatomy.coarse import morphology
from data_prep.anatomy.hull import convex_hull

LUNG_HU = -400  # half-way between lung (about -850) and soft tissue (about 40)
OUTER_HU = -950  # the air of the room is darker; lung that touches the image's border is not
MIN_IN_HULL = 0.3  # of a lung that the image cuts; hardly any of the table's foam


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Air in the body's outline that is not the room's: (Z, Y, X) bool.

    The room's air is what is nearly pure and reaches the border of its slice. Lung that touches
    the border, as in a small field of view, is denser and stays, and no gap of noise in a thin
    chest wall lets the room into it. What lies outside the outline, as the foam of the table or
    blankets, is left out.

    Args:
        hu: (Z, Y, X) int16, at a voxel size of about 4 mm.
    """
    air = (hu < LUNG_HU) & ~np.stack([_room(plane) for plane in hu])
    inside = air & _outline(hu, air)
    # Lung next to the room's air has no skin, whose partial volume was taken for the room's.
    at_room = (hu < LUNG_HU) & (hu > OUTER_HU) & ~air
    return inside | (morphology(inside, cv2.MORPH_DILATE, 4.0, (4.0, 4.0, 4.0)) & at_room)


def _room(plane: np.ndarray) -> np.ndarray:
    """The room's air on a slice (Y, X), with the partial volume at the skin."""
    # Averaged, since single voxels of noise would break it up.
    dark = (cv2.blur(plane, (3, 3)) < OUTER_HU).astype(np.uint8)
    dark = cv2.copyMakeBorder(dark, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(dark, None, (0, 0), 2)
    room = (dark[1:-1, 1:-1] == 2).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    # The average ends a voxel before the skin; partial volume adds one.
    room |= cv2.dilate(room, around) & (plane < OUTER_HU).view(np.uint8)
    return cv2.dilate(room, around).astype(bool)


def _outline(hu: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Convex hull of the body on each slice (Z, Y, X) bool, given its air and perhaps more air.

    It goes around the tissue, of which thin things, as the table's shell, are no part, and around
    air that lies in its hull by MIN_IN_HULL, as a lung does that the image cuts: there the
    tissue's own hull would cut the lung off by a chord.
    """
    solid = np.zeros(hu.shape, bool)
    bulk = np.zeros(hu.shape, bool)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    for z, plane in enumerate(hu):
        tissue = (plane > LUNG_HU).astype(np.uint8)
        tissue = cv2.morphologyEx(tissue, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(tissue, connectivity=4)
        area = stats[:, cv2.CC_STAT_AREA]
        # The chest wall may be in several parts; what is small is no body.
        part = area > 0.1 * area[1:].max(initial=0)
        part[0] = False
        solid[z] = part[labels]
    hull = convex_hull(solid)
    for z, plane in enumerate(air.view(np.uint8)):
        count, labels = cv2.connectedComponents(plane, connectivity=4)
        within = np.bincount(labels[hull[z]], minlength=count)
        part = within > MIN_IN_HULL * np.bincount(labels.ravel(), minlength=count)
        part[0] = False
        # Opened, since a lung may be joined to the skin's partial volume through a thin wall.
        bulk[z] = cv2.morphologyEx(part[labels].astype(np.uint8), cv2.MORPH_OPEN, disk)
    return convex_hull(hull, bulk)


def midline(hu: np.ndarray) -> int:
    """The column x before which half of the body lies (to its right), of a volume (Z, Y, X) HU.

    In each row the body reaches from the first tissue to the last: a lung counts as its opaque
    fellow does.
    """
    tissue = hu[:: max(1, len(hu) // 40), :: max(1, hu.shape[1] // 64)] > LUNG_HU
    body = np.logical_or.accumulate(tissue, 2)
    body &= np.logical_or.accumulate(tissue[:, :, ::-1], 2)[:, :, ::-1]
    columns = body.sum((0, 1)).cumsum()
    return int(np.searchsorted(columns, columns[-1] / 2)) + 1
