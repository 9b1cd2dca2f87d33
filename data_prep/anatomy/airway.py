"""Trace the airway of a CT from the trachea down to the carina and the main bronchi."""

import cv2
import numpy as np

from data_prep.anatomy.hull import crop_box

AIRWAY_HU = -700  # separates the trachea from lung that touches it
WIDENING = 1.55  # width of the airway at the carina, relative to the trachea


def trace_airway(
    inside: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float] | None]:
    """Trace the trachea down from the top slice, and the main bronchi to the hila.

    Args:
        inside: air inside the body (Z, Y, X) bool, at a voxel size of about 4 mm.
        spacing_mm: its voxel size (z, y, x).

    Returns:
        The airway (Z, Y, X) bool, and the carina (z, y, x) in voxels, or None if it is not seen.
    """
    airway, carina = np.zeros(inside.shape, bool), None
    if not inside.any():
        return airway, carina
    pixel, (_, x_columns) = spacing_mm[1] * spacing_mm[2], crop_box(inside)[1:]
    middle = x_columns.mean()
    started, contact, widths = None, 0, []
    for z in range(len(inside) - 1, -1, -1):
        _, labels, stats, centre = cv2.connectedComponentsWithStats(
            inside[z].astype(np.uint8), connectivity=4
        )
        area = stats[:, cv2.CC_STAT_AREA] * pixel
        if started is None:
            # A trachea has 1 to 4 cm2, is round and near the midline; the lung tops are lateral.
            off = np.abs(centre[:, 0] - middle) * spacing_mm[2]
            box = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT] * pixel
            fits = (area > 50) & (area < 600) & (off < 35) & (area > 0.45 * box)
            fits[0] = False
            if fits.any():
                started = z
                airway[z] = labels == np.where(fits, off, np.inf).argmin()
            continue
        touched = [i for i in np.unique(labels[airway[z + 1]]) if i]
        found = [i for i in touched if area[i] < 700]
        if found:
            airway[z] = np.isin(labels, found)
            contact = 0
            # At the carina the airway widens to both sides, then divides.
            columns = np.flatnonzero(airway[z].any(0))
            widths.append((columns[-1] - columns[0] + 1) * spacing_mm[2])
            if carina is None and widths[-1] > WIDENING * np.median(widths):
                carina = (z, *np.argwhere(airway[z]).mean(0))
        elif touched and carina is None and contact < 30:
            # It touches a lung here: keep it within its outline on the slice above.
            airway[z] = inside[z] & airway[z + 1]
            contact += spacing_mm[0]
        elif (started - z) * spacing_mm[0] > 30:
            break
        else:  # too short for a trachea: a bubble or the top of a lung
            airway[:] = False
            started, widths = None, []
    return airway, carina
