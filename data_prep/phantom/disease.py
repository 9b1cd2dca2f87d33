"""Add clots, mimics of clots and motion to the healthy body of a phantom."""

import numpy as np

from data_prep.phantom.body import Body
from data_prep.phantom.vessels import Tube

# A slice is labelled positive if at least this many of its voxels, at 128 x 128, are clot.
SLICE_CLOT_VOXELS = 8
# Probability that a clot is in an artery of each level.
CLOT_LEVELS = {"trunk": 0.02, "main": 0.1, "lobar": 0.36, "segmental": 0.4, "subsegmental": 0.12}
# Clots in these levels make an exam `central_pe`.
CENTRAL = ("trunk", "main")


def label_slices(clot: np.ndarray) -> np.ndarray:
    """Label pe_present_on_image of each slice, (Z,) uint8, from the clot mask (Z, Y, X) bool."""
    enough = SLICE_CLOT_VOXELS * clot.shape[1] * clot.shape[2] / 128**2
    return (np.count_nonzero(clot, axis=(1, 2)) >= enough).astype(np.uint8)


def add_clots(
    body: Body, clot: np.ndarray, rng: np.random.Generator, difficulty: float, chronic: str
) -> list[Tube]:
    """Paint 2 to 5 clots (fewer and smaller with `difficulty`) into `clot` and `body.hu`.

    More are painted until at least one slice is labelled positive.

    Args:
        body: changed in place.
        clot: (Z, Y, X) bool, changed in place.
        rng: draws the clots.
        difficulty: see `PhantomConfig`.
        chronic: "" for fresh clots, "chronic" for old ones, "mixed" for both.

    Returns:
        The arteries with clots; each has its level and side.
    """
    wanted = max(1, round(rng.integers(2, 6) / difficulty))
    levels, odds = list(CLOT_LEVELS), list(CLOT_LEVELS.values())
    hu = rng.normal(60, 10)
    held: list[Tube] = []
    for _ in range(200):
        if len(held) >= wanted and label_slices(clot).any():
            return held
        level = levels[rng.choice(len(levels), p=odds)]
        candidates = [tube for tube in body.arteries if tube.level == level]
        artery = candidates[rng.integers(len(candidates))]
        start = rng.uniform(0, 0.5)
        stop = min(start + rng.uniform(0.45, 0.8) / difficulty**0.5, 1.0)
        share = min(rng.uniform(0.6, 0.85) / difficulty**0.5, 0.95)
        # An old clot lies against the wall, a fresh one in the middle of the stream.
        old = chronic == "chronic" or (chronic == "mixed" and len(held) % 2 == 0)
        piece = artery.stretch(start, stop, share, 1 - share if old else 0.0)
        if body.painter.paint(clot, piece, True, body.artery):
            body.painter.paint(body.hu, piece, hu + 20 * old, body.artery)
            held.append(artery)
    raise RuntimeError("no slice is labelled positive after 200 clots")


def add_mimics(
    body: Body, clot: np.ndarray, rng: np.random.Generator, nodules: bool, flow: bool, defect: bool
) -> None:
    """Paint mimics into `body.hu`: nodules in the lung, mixing of contrast in large arteries and
    the vena cava, and a filling defect in the vena cava (which is not PE)."""
    painter = body.painter
    if nodules:
        for _ in range(rng.integers(1, 4)):
            side, radius = rng.choice((-1.0, 1.0)), rng.uniform(4.5, 9)
            centre = np.array(
                (rng.uniform(-90, 70), rng.uniform(-60, 45), side * rng.uniform(60, 105))
            )
            nodule = Tube(centre, centre, radius, radius)
            painter.paint(body.hu, nodule, 60, body.lung & ~body.artery)
    if flow:
        large = [tube for tube in body.arteries if tube.level in (*CENTRAL, "lobar")]
        chosen = rng.choice(len(large), 2, replace=False)
        mixed = [(large[i].stretch(0.1, 0.9, 0.75), body.artery & ~clot) for i in chosen]
        cava = Tube(np.array((-20.0, -31, -29)), np.array((40.0, -34, -26)), 5.0, 5.0)
        for tube, where in (*mixed, (cava, body.cava)):
            box, inside = painter.tube(tube)
            body.hu[box][inside & where[box]] -= rng.uniform(60, 110)
    if defect:
        z = rng.uniform(-20, 20)
        ends = np.array((z, -31, -28.0)), np.array((z + rng.uniform(12, 25), -33, -27.0))
        painter.paint(body.hu, Tube(*ends, 5.0, 5.0), 60, body.cava)


def add_motion(hu: np.ndarray, rng: np.random.Generator, shift: float) -> None:
    """Double the contours of most slices of `hu` (Z, Y, X), `shift` voxels apart in y, in place."""
    first = int(rng.integers(0, max(1, len(hu) // 4)))
    rows = max(1, round(shift))
    moved = hu[first:]
    moved += 0.9 * np.roll(moved, rows, axis=1)
    moved /= 1.9
