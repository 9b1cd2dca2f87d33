"""What lies inside the body on a coarse CT: its air, its midline.

Volumes are (Z, Y, X) int16 HU in LPS axes.
"""

import cv2
import numpy as np

LUNG_HU = -400  # half-way between lung (about -850) and soft tissue (about 40)
OUTER_HU = -950  # the air of the room is darker; lung that touches the image's border is not


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Air in the body's outline that is not the room's: (Z, Y, X) bool.

    The room's air is what is nearly pure and reaches the border of its slice. Lung that touches
    the border, as in a small field of view, is denser and stays, and no gap of noise in a thin
    chest wall lets the room into it. The outline is the convex hull of the tissue, so that the
    foam of the table and blankets lie outside.

    Args:
        hu: (Z, Y, X) int16, at a voxel size of about 4 mm.
    """
    inside = (hu < LUNG_HU) & body_outline(hu)
    around = np.ones((3, 3), np.uint8)
    for z, plane in enumerate(hu):
        # Averaged, since single voxels of noise would break the room's air up.
        dark = (cv2.blur(plane, (3, 3)) < OUTER_HU).astype(np.uint8)
        dark = cv2.copyMakeBorder(dark, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
        cv2.floodFill(dark, None, (0, 0), 2)
        room = (dark[1:-1, 1:-1] == 2).astype(np.uint8)
        # The average ends a voxel before the skin, and partial volume adds one.
        inside[z] &= cv2.dilate(room, around, iterations=2) == 0
    return inside


def body_outline(hu: np.ndarray) -> np.ndarray:
    """Convex hull of the tissue on each slice: (Z, Y, X) bool, of a coarse volume.

    Thin things, as the table's shell, are no tissue. Parts of a tenth of the largest count, e.g.
    the chest wall on both sides of a lung that the image cuts.
    """
    hull = np.zeros(hu.shape, np.uint8)
    for z, plane in enumerate(hu):
        solid = (plane > LUNG_HU).astype(np.uint8)
        solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
        area = stats[1:, cv2.CC_STAT_AREA]
        if len(area):
            parts = np.isin(labels, 1 + np.flatnonzero(area > 0.1 * area.max()))
            points = cv2.findNonZero(parts.astype(np.uint8))
            cv2.fillConvexPoly(hull[z], cv2.convexHull(points), 1)
    return hull.astype(bool)


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
