"""Vessels of the phantom as tubes in mm, and painting of tubes on a voxel grid.

The template's origin is the carina; axes are (z, y, x) with z to the head, y to the back and x to
the patient's left (LPS), in mm of an average adult. A `Grid` places it in a volume: `scale` makes
a larger or smaller patient. Vessels are rounded cones (`Tube`). Distal to the main arteries,
pulmonary vessels are about twice as wide as real ones, so that subsegmental branches are visible
at 128 pixels.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data_prep.phantom.habitus import TEMPLATE, Habitus

Point = tuple[float, float, float]

LEVELS = ("trunk", "main", "lobar", "segmental", "subsegmental")

# Ends of the lobar arteries from the hilum, (z, y, distance from the midline).
_HILUM = {"right": np.array((-30.0, -10.0, -50.0)), "left": np.array((-16.0, 4.0, 48.0))}
_LOBAR = {
    "right": ((46, -8, 20), (14, 32, 28), (-40, -38, 28), (-60, 26, 24)),
    "left": ((38, -22, 22), (10, 30, 28), (-44, -38, 32), (-70, 22, 26)),
}


@dataclass(frozen=True)
class Tube:
    """A piece of vessel: a rounded cone from `a` to `b` (template mm), radii `ra` to `rb` mm."""

    a: np.ndarray
    b: np.ndarray
    ra: float
    rb: float
    level: str = ""
    side: str = ""

    def stretch(self, start: float, stop: float, share: float, offset: float = 0.0) -> "Tube":
        """The part between fractions `start` and `stop` of the length, thinner and off-centre.

        Args:
            start, stop: fractions of the length.
            share: radius as a fraction of the tube's.
            offset: distance from the axis as a fraction of the tube's radius.
        """
        axis = self.b - self.a
        aside = np.cross(axis, (1.0, 0.3, 0.2))
        aside = aside / np.linalg.norm(aside) * offset
        radii = [self.ra + (self.rb - self.ra) * t for t in (start, stop)]
        ends = [self.a + axis * t + aside * r for t, r in zip((start, stop), radii, strict=True)]
        return Tube(*ends, radii[0] * share, radii[1] * share, self.level, self.side)


@dataclass(frozen=True)
class Grid:
    """Place of the template in a volume: world mm = shift_mm + scale * patient mm, where the
    habitus maps template mm to patient mm.

    Attributes:
        shape: (Z, Y, X) voxels.
        spacing_mm, origin_mm: of the volume, (z, y, x), LPS.
        shift_mm: world position of the template's origin, (z, y, x).
        scale: size of the patient, 1 for the average adult.
        habitus: position of the patient's organs; default: as in the template.
    """

    shape: tuple[int, int, int]
    spacing_mm: np.ndarray
    origin_mm: np.ndarray
    shift_mm: np.ndarray
    scale: float
    habitus: Habitus = TEMPLATE

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Template mm of the voxel centres, as three broadcastable float32 arrays."""
        lines = []
        for k, n in enumerate(self.shape):
            world = self.origin_mm[k] + np.arange(n) * self.spacing_mm[k]
            line = self.habitus.to_template((world - self.shift_mm[k]) / self.scale, k)
            lines.append(line.astype(np.float32).reshape([-1 if j == k else 1 for j in range(3)]))
        return tuple(lines)

    def to_world(self, point: Point) -> tuple[float, float, float] | None:
        """A template point in world mm (z, y, x), or None if it is outside the volume."""
        patient = [float(self.habitus.to_patient(mm, k)) for k, mm in enumerate(point)]
        world = self.shift_mm + self.scale * np.array(patient)
        voxel = (world - self.origin_mm) / self.spacing_mm
        inside = np.all(voxel >= -0.5) and np.all(voxel <= np.array(self.shape) - 0.5)
        return tuple(float(v) for v in world) if inside else None


class Painter:
    """Paints tubes on a grid, each inside its own bounding box."""

    def __init__(self, grid: Grid):
        self.shape = grid.shape
        self.z, self.y, self.x = self.axes = grid.axes()
        self._lines = [axis.ravel() for axis in self.axes]

    def tube(self, tube: Tube) -> tuple[tuple[slice, slice, slice], np.ndarray]:
        """Bounding box of a tube in voxels, and the mask (bool) of the tube in this box."""
        low = np.minimum(tube.a - tube.ra, tube.b - tube.rb)
        high = np.maximum(tube.a + tube.ra, tube.b + tube.rb)
        box = tuple(
            slice(int(line.searchsorted(first)), int(line.searchsorted(last, "right")))
            for line, first, last in zip(self._lines, low, high, strict=True)
        )
        z, y, x = (
            np.take(axis, range(s.start, s.stop), k) - np.float32(c)
            for k, (axis, s, c) in enumerate(zip(self.axes, box, tube.a, strict=True))
        )
        dz, dy, dx = (tube.b - tube.a).astype(np.float32)
        length2 = dz * dz + dy * dy + dx * dx + np.float32(1e-6)
        along = (z * dz + y * dy) + x * dx
        t = np.clip(along / length2, 0, 1)
        distance2 = (z * z + y * y) + x * x - t * (2 * along - t * length2)
        return box, distance2 <= (np.float32(tube.ra) + np.float32(tube.rb - tube.ra) * t) ** 2

    def paint(self, values: np.ndarray, tube: Tube, value, where: np.ndarray | None = None) -> int:
        """Set `values` to `value` inside the tube (and `where`); returns the number of voxels."""
        box, inside = self.tube(tube)
        if where is not None:
            inside &= where[box]
        values[box][inside] = value
        return int(np.count_nonzero(inside))


def chain(points: tuple[Point, ...], radius: float) -> list[Tube]:
    """Tubes of one radius (mm) along a polyline."""
    ends = [np.array(p, float) for p in points]
    return [Tube(a, b, radius, radius) for a, b in pairwise(ends)]


def arterial_tree(rng: np.random.Generator) -> list[Tube]:
    """Pulmonary arteries from trunk to subsegmental branches, with `level` and `side`."""
    fork = np.array((-24.0, -24.0, 16.0))
    tubes = [Tube(np.array((-58.0, -62.0, 16.0)), fork, 14.5, 14.0, "trunk", "")]
    for side, sign in (("right", -1.0), ("left", 1.0)):
        hilum = _HILUM[side]
        tubes.append(Tube(fork, hilum, 13.0, 11.5, "main", side))
        for dz, dy, dx in _LOBAR[side]:
            lobar = np.array((dz, dy, sign * dx)) + rng.normal(0, 5, 3)
            tubes.append(Tube(hilum, hilum + lobar, 11.5, 8.8, "lobar", side))
            for _ in range(rng.integers(2, 4)):
                tubes += _branches(rng, hilum + lobar, lobar, side)
    return tubes


def _branches(rng: np.random.Generator, start: np.ndarray, along: np.ndarray, side: str):
    """A segmental artery that starts at `start`, roughly along `along`, and its two branches."""

    def beyond(direction: np.ndarray, low: float, high: float) -> np.ndarray:
        turned = direction / np.linalg.norm(direction) + rng.normal(0, 0.55, 3)
        return turned / np.linalg.norm(turned) * rng.uniform(low, high)

    segment = beyond(along, 30, 46)
    tubes = [Tube(start, start + segment, 8.2, 5.6, "segmental", side)]
    for _ in range(2):
        end = start + segment + beyond(segment, 20, 32)
        tubes.append(Tube(start + segment, end, 5.4, 4.3, "subsegmental", side))
    return tubes


def venous_tree(rng: np.random.Generator) -> list[Tube]:
    """Pulmonary veins from the left atrium into both lungs."""
    tubes = []
    for sign in (-1.0, 1.0):
        for _ in range(5):
            start = np.array((-45.0, 4.0, sign * 16.0))
            middle = np.array((-45.0 + rng.uniform(-20, 20), 6.0, sign * 46.0))
            end = middle + rng.uniform((-60, -45, 10), (70, 40, 45)) * (1, 1, sign)
            tubes += [Tube(start, middle, 7.5, 6.5), Tube(middle, end, 6.5, 3.2)]
    return tubes
