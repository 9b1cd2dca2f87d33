"""Find the heart between the lungs, and the dome of the diaphragm, on a coarse CT.

Volumes are (Z, Y, X) int16 HU in LPS axes, masks (Z, Y, X) bool, spacing is (z, y, x) mm.
"""

import cv2
import numpy as np
from scipy import ndimage

from data_prep.anatomy.coarse import largest, morphology
from data_prep.anatomy.hull import convex_hull, crop_box
from data_prep.anatomy.thorax import Thorax
from data_prep.errors import SegmentationError

SOFT_HU = (-20, 700)  # fat below, cortical bone above
CONTRAST_HU = 120  # opacified blood above; myocardium, liver and clotted blood below
DOME_TOP_MM2 = 400.0  # area of the dome's highest section, larger than that of a hilum
MAX_DOME = 0.6  # of the lung's height; a dome above is chest wall within a wrong lung mask
ABOVE_DOME_MM = 12.0  # the left lobe of the liver may rise so far above the right dome's top
BELOW_DOME_MM = 15.0  # how far below the right dome's top the heart may reach
SMOOTH_MM = 3.0  # standard deviation of the Gaussian filter
MIN_HEART_ML = 30.0


def find_heart(
    hu: np.ndarray, lung: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Heart mask (Z, Y, X) bool: soft tissue in the hull of the lungs, from opacified blood if any.

    Args:
        hu: (Z, Y, X) int16 at about 4 mm.
        lung: mask on its grid; `spacing_mm`: its voxel size (z, y, x).

    Raises:
        SegmentationError: there is less than MIN_HEART_ML of such tissue.
    """
    thorax = Thorax(hu, lung, spacing_mm)
    lung, middle, width = thorax.lung, thorax.middle, thorax.width
    (z0, y0, _), (z1, y1, _) = crop_box(lung).T
    dome = diaphragm_dome(thorax)
    bottom = max(z0, dome[0] - round(BELOW_DOME_MM / spacing_mm[0])) if dome else z0
    # The lower two thirds of the lungs down to the diaphragm, in front of the spine, more to the
    # left than to the right.
    where = (
        slice(bottom, max(bottom + 1, z0 + round((z1 - z0) * 2 / 3))),
        slice(y0, y0 + max(1, round((y1 - y0) * 0.68))),
        slice(max(0, round(middle - 0.2 * width)), round(middle + 0.35 * width)),
    )
    # Smoothed, since noise would break up the blood; the edge moves by less than the wall.
    part = ndimage.gaussian_filter(hu[where].astype(np.float32), SMOOTH_MM / np.array(spacing_mm))
    soft = (part > SOFT_HU[0]) & (part < SOFT_HU[1]) & convex_hull(lung[where[0]])[:, *where[1:]]
    ml = np.prod(spacing_mm) / 1000
    blood = largest(morphology(soft & (part > CONTRAST_HU), cv2.MORPH_OPEN, 7.0, spacing_mm))
    if blood.sum() * ml > MIN_HEART_ML:
        # Its wall is about 10 mm thick, at the apex too.
        wall = max(1, round(10 / spacing_mm[0]))
        line = np.ones((2 * wall + 1, 1, 1), bool)
        found = morphology(blood, cv2.MORPH_DILATE, 10.0, spacing_mm)
        found = ndimage.binary_dilation(found, line) & soft
    else:
        found = largest(morphology(soft, cv2.MORPH_OPEN, 12.0, spacing_mm))
    if dome:
        _taper(found, dome[0] - bottom, round(ABOVE_DOME_MM / spacing_mm[0]))
    if found.sum() * ml < MIN_HEART_ML:
        raise SegmentationError(
            f"no heart: only {found.sum() * ml:.0f} mL of soft tissue between the lungs"
        )
    heart = np.zeros(hu.shape, bool)
    heart[where] = found
    return heart


def _taper(heart: np.ndarray, dome_z: int, above: int) -> None:
    """Limit each section near the dome to the one above it, since the rest is liver or spleen.

    Without contrast these look like the heart that lies on them. From `above` slices over the dome
    down to it a section may still grow by one voxel, as the apex does. Changes `heart` in place.
    """
    cross = ndimage.generate_binary_structure(2, 1)
    for z in range(min(dome_z + above, len(heart) - 1) - 1, -1, -1):
        limit = heart[z + 1]
        heart[z] &= ndimage.binary_dilation(limit, cross) if z >= dome_z else limit


def diaphragm_dome(thorax: Thorax) -> tuple[int, int, int] | None:
    """Top (z, y, x) of the right diaphragm: soft tissue in the hull of the right lung.

    Returns:
        Voxel (z, y, x), or None if no dome is seen, e.g. because the volume's lower edge cuts it or
        the lung above it is as opaque as the liver.
    """
    seen, right = (lung[:, :, : thorax.middle] for lung in (thorax.seen, thorax.lung))
    spacing_mm = thorax.spacing_mm
    if not right.any() or (thorax.opaque and thorax.opaque.side == "right"):
        return None
    outer = max(1, round(thorax.middle - 0.2 * thorax.width))  # to the right of the heart
    bulge = (convex_hull(right) & ~seen)[:, :, :outer]
    bulge = largest(morphology(bulge, cv2.MORPH_OPEN, 8.0, spacing_mm))
    area = bulge.sum((1, 2)) * spacing_mm[1] * spacing_mm[2]
    z = int(area.argmax())
    if area[z] < 5 * DOME_TOP_MM2:
        return None
    while z + 1 < len(area) and area[z + 1] > DOME_TOP_MM2:
        if area[z] < 4 * DOME_TOP_MM2 and area[z + 1] > 0.85 * area[z]:
            break  # vessels above the dome: the dome itself narrows fast towards its top
        z += 1
    slices = np.flatnonzero(right.any((1, 2)))
    if z > slices[0] + MAX_DOME * (slices[-1] - slices[0]):
        return None
    y, x = np.argwhere(bulge[z]).mean(0)
    return z, round(y), round(x)
