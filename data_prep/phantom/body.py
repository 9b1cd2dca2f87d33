"""Paint the healthy anatomy of a phantom: body, lungs, heart, bones, airways and vessels in HU.

Shapes are given in template mm (see `vessels.Grid`): z to the head, y to the back, x to the
patient's left, the carina's midline at x = 0.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.phantom.vessels import Grid, Painter, Point, Tube, arterial_tree, chain, venous_tree

# The 20 landmarks of the paper (section IV) in template mm (z, y, x). The lung and liver tops agree
# with the shapes below.
LANDMARKS_MM: dict[str, Point] = {
    "Heart": (-56, -28, 12),
    "Carina Bifurcation": (0, 8, 0),
    "T4": (12, 48, 0),
    "Right Primary Bronchus": (-13, 9, -22),
    "Aortic Arch Center": (36, -4, 20),
    "Aortic Root": (-56, -32, 6),
    "Left Subclavian Artery": (42, 12, 23),
    "Left Primary Bronchus": (-18, 10, 23),
    "Left Common Carotid Artery": (42, -8, 16),
    "Liver Top": (-93, -8, -62),
    "Right Medial Clavicle": (52, -84, -22),
    "Suprasternal Notch": (50, -97, 0),
    "Brachiocephalic Artery Bifurcation": (64, -20, -22),
    "Left Medial Clavicle": (52, -84, 22),
    "Right Subclavian and Vertebralis Branch": (103, -14, -40),
    "Left Subclavian and Vertebralis Branch": (103, 4, 42),
    "Right Lung Top": (96, -10, -52),
    "Sternum Tip": (-112, -97, 0),
    "Left Lung Top": (96, -10, 52),
    "Celiac Trunk": (-172, 15, 12),
}

_ARCH = ((-56, -32, 6), (-20, -48, -18), (8, -46, -16), (30, -28, 2), (36, -4, 20), (26, 22, 25))
_DESCENDING = ((26, 22, 25), (0, 33, 25), (-100, 33, 22), (-260, 26, 10))
_ARCH_BRANCHES = (
    ((38, -24, 4), (64, -20, -22), 6.5),  # brachiocephalic artery
    ((64, -20, -22), (130, -14, -26), 4.5),  # right common carotid
    ((64, -20, -22), (103, -14, -40), 5.5),  # right subclavian
    ((103, -14, -40), (108, -18, -150), 5.0),
    ((103, -14, -40), (130, 10, -32), 3.0),  # right vertebral
    ((42, -8, 16), (130, -8, 26), 4.5),  # left common carotid
    ((42, 12, 23), (70, 8, 28), 5.5),  # left subclavian
    ((70, 8, 28), (103, 4, 42), 5.5),
    ((103, 4, 42), (108, -4, 150), 5.0),
    ((103, 4, 42), (130, 14, 34), 3.0),  # left vertebral
    ((-172, 20, 12), (-176, -14, 12), 5.0),  # celiac trunk
)
_VENA_CAVA = ((48, -34, -26), (-40, -30, -30))
_LEFT_INNOMINATE = ((56, -44, 46), (40, -42, -22))
_AIRWAYS = (
    ((130, -2, 0), (0, 8, 0), 8.5, 8.5),
    ((0, 8, 0), (-26, 10, -44), 7.0, 6.0),
    ((0, 8, 0), (-36, 12, 46), 6.5, 5.5),
    ((-26, 10, -44), (-66, 22, -54), 5.0, 3.5),
    ((-36, 12, 46), (-70, 26, 56), 4.5, 3.5),
)
_HEART = ((-45, -20, -2), (-80, -46, 40), 44.0, 33.0)
_CLAVICLES = (((52, -84, 22), (74, -66, 140), 6.5), ((52, -84, -22), (74, -66, -140), 6.5))

LUNG_TOP_MM = 98.0  # top of the lungs, above the carina
_MID_Y = -10.0  # centre of the thorax, front to back


@dataclass(frozen=True)
class Contrast:
    """Mean HU of the blood in each kind of vessel."""

    artery: float
    vein: float
    aorta: float
    cava: float


@dataclass(frozen=True)
class Body:
    """A healthy body on a grid.

    Attributes:
        hu: (Z, Y, X) float32 HU, without blur and noise.
        lung: (Z, Y, X) bool, both lungs with the vessels inside them.
        heart: (Z, Y, X) bool, muscle and chambers.
        artery: (Z, Y, X) bool, pulmonary arteries.
        cava: (Z, Y, X) bool, superior vena cava.
        arteries: the arterial tree.
        painter: for more tubes on the same grid.
    """

    hu: np.ndarray
    lung: np.ndarray
    heart: np.ndarray
    artery: np.ndarray
    cava: np.ndarray
    arteries: list[Tube]
    painter: Painter


def paint_body(grid: Grid, rng: np.random.Generator, blood: Contrast, rv_lv: float) -> Body:
    """Paint a healthy body.

    Args:
        grid: size and place of the patient in the volume.
        rng: draws the courses of the vessels.
        blood: HU of the blood.
        rv_lv: ratio of the diameters of the right and the left ventricle.
    """
    painter = Painter(grid)
    hu, thorax, dome = _wall(painter)
    lobes, mediastinum = _lungs(painter, thorax, dome)
    # The lung is denser at the back, where blood gathers.
    np.copyto(hu, -860 + 0.4 * (painter.y - _MID_Y), where=lobes)
    _bones(painter, hu)
    heart = _heart(painter, hu, blood, rv_lv)
    lung = lobes & ~heart
    veins = np.zeros(grid.shape, bool)
    for tube in venous_tree(rng):
        painter.paint(veins, tube, True)
    hu[veins & (lobes | mediastinum)] = blood.vein
    for tube in (*chain(_ARCH, 13.0), *chain(_DESCENDING, 11.5), *map(_tube, _ARCH_BRANCHES)):
        painter.paint(hu, tube, blood.aorta)
    cava = np.zeros(grid.shape, bool)
    for tube in (*chain(_VENA_CAVA, 8.0), *chain(_LEFT_INNOMINATE, 6.0)):
        painter.paint(cava, tube, True)
    hu[cava] = blood.cava
    arteries = arterial_tree(rng)
    artery = np.zeros(grid.shape, bool)
    within = (lung | mediastinum) & ~heart
    for tube in arteries:
        painter.paint(artery, tube, True, None if tube.level in ("trunk", "main") else within)
    hu[artery] = blood.artery
    for tube in _AIRWAYS:
        painter.paint(hu, _tube(tube), -1000, ~artery)
    return Body(hu, lung, heart, artery, cava, arteries, painter)


def _tube(ends: tuple) -> Tube:
    a, b, ra, *rb = ends
    return Tube(np.array(a, float), np.array(b, float), ra, rb[0] if rb else ra)


def _ellipse(u: np.ndarray, v: np.ndarray, a, b, power: float = 2.0) -> np.ndarray:
    """Level of a superellipse: below 1 inside; `u` and `v` broadcast."""
    return np.abs(u / a) ** power + np.abs(v / b) ** power


def _wall(p: Painter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint air, table, skin fat, muscle, ribs and abdomen.

    Returns:
        hu (Z, Y, X) float32; thorax (Z, Y, X) float32, below 1 inside the ribs; height of the
        diaphragm (1, Y, X) float32, mm.
    """
    hu = np.full(p.shape, -1000, np.float32)
    table = _ellipse(p.x, p.y + 190, 330, 320)
    hu += np.where((table > 0.97) & (table < 1.0), np.float32(800), np.float32(0))
    shoulders = 1 + 0.12 * np.clip((p.z - 60) / 60, 0, 1)
    outer = _ellipse(p.x, p.y + 8, 158 * shoulders, 116, 2.3)
    muscle = _ellipse(p.x, p.y + 8, 141 * shoulders, 102, 2.3)
    narrow = 0.55 + 0.45 * _taper(p.z)
    thorax = _ellipse(p.x, p.y - _MID_Y, 128 * narrow, 90 * narrow**0.5, 2.3)
    hu[outer < 1] = -95
    hu[muscle < 1] = 50
    # Ribs slope down from the spine to the sternum.
    between = np.mod(p.z - 0.45 * p.y, 25.0) > 10
    hu[(thorax > 1.02) & (thorax < 1.3) & ~between & (muscle < 0.93)] = 330
    dome = -92 - 50 * _ellipse(np.abs(p.x) - 62, p.y + 8, 62, 84) - np.where(p.x > 0, 13, 0)
    inside = thorax < 1
    hu[inside] = -55
    below = inside & (p.z < np.maximum(dome, -112))
    hu[below] = 40
    hu[below & (p.x < 30)] = 105  # liver
    hu[below & (p.x > 62) & (p.y > -10)] = 115  # spleen
    return hu, thorax, dome


def _taper(z: np.ndarray) -> np.ndarray:
    """Share of the lungs' full width at height `z` mm: 1 below the hilum, 0 at the top."""
    return np.sqrt(np.clip(1 - (np.clip(z + 20, 0, None) / (LUNG_TOP_MM + 20)) ** 2.4, 0, 1))


def _lungs(p: Painter, thorax: np.ndarray, dome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (Z, Y, X) bool of both lungs (heart not yet taken out) and of the mediastinum."""
    size = np.maximum(_taper(p.z), 1e-3)
    lobes = _ellipse(np.abs(p.x) - (52 + 18 * size), p.y - _MID_Y, 54 * size, 86 * size, 2.5) < 1
    lobes &= (p.z > dome) & (thorax < 0.97)
    width = np.where(p.z < 20, 34, np.maximum(34 - 0.2 * (p.z - 20), 20))
    mediastinum = (_ellipse(p.x, p.y + 14, width, 62) < 1) & (p.z > dome)
    lobes &= ~mediastinum
    return lobes, mediastinum


def _bones(p: Painter, hu: np.ndarray) -> None:
    """Spine with discs and canal, sternum, clavicles."""
    body = _ellipse(p.x, p.y - 48, 19, 16)[0]
    arch = _ellipse(p.x, p.y - 76, 15, 15)[0] < 1
    processes = _ellipse(p.x, p.y - 76, 36, 5)[0] < 1
    canal = _ellipse(p.x, p.y - 72, 8, 8)[0] < 1
    # Vertebrae are 24 mm high; T4's body is centred at z = 12.
    disc = np.mod(p.z.ravel() + 2.5, 24.0) < 5
    for rows, bone, marrow in ((~disc, 420, 210), (disc, 90, 90)):
        plane = hu[rows]
        if marrow != bone:
            plane[:, arch] = 380
            plane[:, processes] = 350
        plane[:, body < 1] = bone
        plane[:, body < 0.72] = marrow
        plane[:, canal] = 35
        hu[rows] = plane
    sternum = (_ellipse(p.x, p.y + 97, 17, 6) < 1) & (p.z < 50) & (p.z > -112)
    hu[sternum] = 260
    for ends in _CLAVICLES:
        p.paint(hu, _tube(ends), 420)


def _heart(p: Painter, hu: np.ndarray, blood: Contrast, rv_lv: float) -> np.ndarray:
    """Paint heart muscle and chambers, with the ventricle ratio `rv_lv`; returns the heart mask."""
    heart = np.zeros(p.shape, bool)
    right, left = 17.0 * rv_lv**0.5, 17.0 / rv_lv**0.5
    parts = (
        (*_HEART, 95),
        ((-54, -26, -30), (-64, -32, -26), 16, 16, blood.artery * 0.95),  # right atrium
        ((-45, 4, -16), (-45, 6, 22), 15, 15, blood.vein),  # left atrium
        ((-60, -58, 4), (-84, -62, 40), right, right, blood.artery * 0.97),
        ((-62, -18, 34), (-84, -36, 56), left, left, blood.aorta),
    )
    for *ends, value in parts:
        p.paint(hu, _tube(tuple(ends)), value)
        p.paint(heart, _tube(tuple(ends)), True)
    return heart
