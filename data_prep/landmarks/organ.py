"""One organ's mask, cut to its box: the ends, sections and contacts that landmarks are made of.

Positions are voxels (z, y, x) of the whole volume, in LPS: z to the head, y to the back, x to the
patient's left. Lengths are in mm.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from data_prep.anatomy.hull import crop_box

Point = tuple[float, float, float]

ISLAND = 0.1  # of the largest piece; what is smaller is a segmenter's stray


@dataclass(frozen=True, eq=False)
class Organ:
    """A mask that is not empty, or a part of one.

    Attributes:
        mask: (Z, Y, X) bool, the organ's box only.
        start: (3,) the volume's voxel at `mask[0, 0, 0]`.
        shape: the volume's (Z, Y, X).
        spacing_mm: (z, y, x).
    """

    mask: np.ndarray
    start: np.ndarray
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(
        cls, mask: np.ndarray, spacing_mm: tuple[float, float, float], min_ml: float = 0.0
    ) -> "Organ | None":
        """The organ of a volume's mask (Z, Y, X) bool without its islands, or None.

        Args:
            mask: of the whole volume; it is copied, so that it need not stay in memory.
            spacing_mm: voxel size (z, y, x).
            min_ml: a smaller mask is not believed: None, as for an empty one.
        """
        if not mask.any():
            return None
        organ = cls(mask, np.zeros(3, int), mask.shape, spacing_mm).part(mask)
        labels, _ = ndimage.label(organ.mask)
        voxels = np.bincount(labels.ravel())
        voxels[0] = 0
        kept = (voxels >= ISLAND * voxels.max())[labels] & organ.mask
        if kept.sum() * np.prod(spacing_mm) / 1000 < min_ml:
            return None
        return organ.part(kept)

    def part(self, mask: np.ndarray, first: tuple[int, int, int] = (0, 0, 0)) -> "Organ":
        """The part of it that a mask marks, which lies at the voxel `first` of its box."""
        box = crop_box(mask)
        cut = mask[tuple(slice(a, b) for a, b in box)].copy()
        return Organ(cut, self.start + first + box[:, 0], self.shape, self.spacing_mm)

    @property
    def points(self) -> np.ndarray:
        """(N, 3) int, its voxels in the volume."""
        return np.argwhere(self.mask) + self.start

    def centre(self) -> Point | None:
        """Centre of mass; None when the volume's edge cuts this part."""
        return self.centre_of(self.points)

    def centre_of(self, points: np.ndarray) -> Point | None:
        """Centre of some of its voxels (N, 3); None without any, or with one on the edge."""
        if not len(points) or (points == 0).any() or (points == np.array(self.shape) - 1).any():
            return None
        return tuple(map(float, points.mean(0)))

    def end(self, axis: int, sign: int, mm: float = 0.0) -> "Organ":
        """Its last slices along an axis (0 z, 1 y, 2 x), so many mm deep but at least one.

        Args:
            axis: 0, 1 or 2.
            sign: 1 for the end where the axis grows, -1 for the other.
            mm: how deep.
        """
        deep = max(1, round(mm / self.spacing_mm[axis]))
        n = self.mask.shape[axis]
        return self.between(axis, *((n - deep, n) if sign > 0 else (0, deep)))

    def between(self, axis: int, first: int, stop: int) -> "Organ":
        """Its slices `first` up to, not including, `stop` along an axis, counted in its box."""
        at = [0, 0, 0]
        at[axis] = max(0, first)
        where = tuple(slice(a, stop if i == axis else None) for i, a in enumerate(at))
        return self.part(self.mask[where], tuple(at))

    def core(self, share: float) -> Point | None:
        """Centre of its thickest part: the voxels as deep as this share of the deepest one.

        None when the volume's edge cuts that part: what lies outside counts as organ.
        """
        stop = self.start + self.mask.shape
        before, after = (self.start > 0).astype(int), (stop < self.shape).astype(int)
        padded = np.pad(self.mask, np.stack([before, after], 1))
        depth = ndimage.distance_transform_edt(padded, self.spacing_mm)
        labels, _ = ndimage.label(depth > share * depth.max())
        deepest = np.argwhere(labels == labels[np.unravel_index(depth.argmax(), depth.shape)])
        return self.centre_of(deepest - before + self.start)

    def sections(self, z: int, min_mm2: float) -> list[np.ndarray]:
        """The pieces of slice z of its box that are large enough: (Y, X) bool, largest first."""
        count, labels, stats, _ = cv2.connectedComponentsWithStats(self.mask[z].astype(np.uint8))
        area = stats[:, cv2.CC_STAT_AREA] * self.spacing_mm[1] * self.spacing_mm[2]
        order = sorted(range(1, count), key=lambda i: -area[i])
        return [labels == i for i in order if area[i] >= min_mm2]

    def parting(self, min_mm2: float, run_mm: float) -> int | None:
        """The highest slice of its box that is in two, as are those below it for `run_mm`.

        Args:
            min_mm2: smaller pieces do not count: a rough surface, a side branch.
            run_mm: how far down the pieces must stay apart.
        """
        run = max(1, round(run_mm / self.spacing_mm[0]))
        apart, highest = 0, None
        for z in range(len(self.mask)):
            apart = apart + 1 if len(self.sections(z, min_mm2)) > 1 else 0
            if apart >= run:
                highest = z
        return highest

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.points * self.spacing_mm)

    def gap_to(self, other: "Organ") -> np.ndarray:
        """(N,) mm from each of `points` to the nearest voxel of another organ."""
        return other._tree.query(self.points * self.spacing_mm)[0]
