"""What an image shows of the thorax, and where lung must be that it does not show as lung.

A lung may be opaque (opaque.py), and the field of view may cut the chest: the lungs then end at the
edge of the image, without a chest wall. Everything here works on a coarse CT, of about 4 mm.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_prep.anatomy.body import LUNG_HU, midline
from data_prep.anatomy.opaque import Opaque, opaque_lung

WALL_MM = 8.0  # no tissue so near the lung: the chest wall is outside the image
MIN_CUT_MM = 20.0  # of the lungs' outline on a slice without a wall
MIN_CUT_SLICES = 0.1  # of the slices with lung
END_SHARE = 0.3  # of the lungs' largest section, on the first or last slice: they go on
DEPTH_TO_WIDTH = 1.35  # of both lungs; 1.32 and 1.43 in real chests
_AXES = {"right": (2, 1), "left": (2, -1), "front": (1, 1), "back": (1, -1)}


@dataclass(frozen=True)
class Thorax:
    """The thorax around a lung mask.

    Attributes:
        hu: (Z, Y, X) HU.
        seen: lung mask on its grid, (Z, Y, X) bool, with at least one voxel.
        spacing_mm: voxel size (z, y, x).
    """

    hu: np.ndarray
    seen: np.ndarray
    spacing_mm: tuple[float, float, float]

    @cached_property
    def middle(self) -> int:
        """The column of the spine, between right and left."""
        return midline(self.hu, self.seen, self.spacing_mm)

    @cached_property
    def opaque(self) -> Opaque | None:
        """The lung that is opaque, whole or in part."""
        return opaque_lung(self.seen, self.middle, self.spacing_mm)

    @cached_property
    def cut(self) -> dict[str, np.ndarray]:
        """Sides (right, left, front, back) that the image cuts: the lung voxels (Z, Y, X) bool
        there, which have no chest wall beside them."""
        found = {}
        for side, (axis, step) in _AXES.items():
            edge = self._without_wall(axis, step)
            open_mm = edge.sum((1, 2)) * self.spacing_mm[3 - axis]
            slices = np.count_nonzero(self.seen.any((1, 2)))
            if np.count_nonzero(open_mm > MIN_CUT_MM) > MIN_CUT_SLICES * slices:
                found[side] = edge
        return found

    def _without_wall(self, axis: int, step: int) -> np.ndarray:
        """The first lung voxel of each line along an axis, if the image ends before it: by its
        edge, or by padding, which has a single value."""
        hu, lung, edge = (
            np.moveaxis(array, axis, 2)[:, :, ::step]
            for array in (self.hu, self.seen, np.zeros_like(self.seen))
        )
        reach = max(2, round(WALL_MM / self.spacing_mm[axis]))
        first = lung.argmax(2)
        before = (first[..., None] - 1 - np.arange(reach + 1)).clip(0)
        outside = np.take_along_axis(hu, before, 2)
        ends = (outside < LUNG_HU).all(2) & (np.ptp(outside[:, :, 1:], 2) == 0)
        z, line = np.nonzero(lung.any(2) & ends)
        edge[z, line, first[z, line]] = True
        return np.moveaxis(edge[:, :, ::step], 2, axis)

    @cached_property
    def place(self) -> np.ndarray | None:
        """Where lung must be beside the mask: opaque, or cut off; (Z, Y, X) bool, or None.

        Where the image cuts a lung, it may end higher than the part that is not in the image. The
        thorax does not narrow downwards: what is lung at the edge is thorax further down too.
        """
        parts = [self.opaque.place] if self.opaque else []
        slices = np.flatnonzero(self.seen.any((1, 2)))
        for edge in self.cut.values():
            below = np.logical_or.accumulate(edge[::-1])[::-1]
            below[: slices[0]] = False
            parts.append(below)
        return np.logical_or.reduce(parts) if parts else None

    @cached_property
    def lung(self) -> np.ndarray:
        """The lungs with the place of what is not seen of them."""
        return self.seen if self.place is None else self.seen | self.place

    @cached_property
    def width(self) -> float:
        """Width of both lungs in columns; where the image cuts them, as it was before the cut."""
        rows, columns = (np.flatnonzero(self.lung.any((0, axis))) for axis in (2, 1))
        width = float(columns[-1] + 1 - columns[0])
        if not {"right", "left"} & set(self.cut):
            return width
        depth = (rows[-1] + 1 - rows[0]) * self.spacing_mm[1] / self.spacing_mm[2]
        half = max(self.middle - columns[0], columns[-1] + 1 - self.middle)
        return max(width, 2.0 * half, DEPTH_TO_WIDTH * depth)

    @cached_property
    def goes_on(self) -> list[str]:
        """Where the lungs go on beyond the first and the last slice: below, above."""
        area = np.count_nonzero(self.seen, axis=(1, 2))
        ends = {"below": area[0], "above": area[-1]}
        return [end for end, voxels in ends.items() if voxels > END_SHARE * area.max()]

    def remarks(self) -> list[str]:
        """What a reader of the result should know of the image."""
        remarks = []
        if self.goes_on:
            height = np.count_nonzero(self.seen.any((1, 2))) * self.spacing_mm[0]
            ends = " and ".join(self.goes_on)
            remarks.append(f"a part of the chest: {height:.0f} mm of the lungs, which go on {ends}")
        if self.cut:
            remarks.append(f"the image cuts the lungs ({', '.join(self.cut)}): the hull ends there")
        if self.opaque:
            part = "" if self.opaque.whole else "part of the "
            lung = f"{part}{self.opaque.side} lung"
            remarks.append(f"{lung} is opaque, or missing in its mask: the hull covers its place")
        return remarks
