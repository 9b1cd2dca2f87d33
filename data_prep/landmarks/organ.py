"""An organ's mask, cut to its box, with its ends, sections and contacts, which landmarks use.

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

ISLAND = 0.1  # of the largest piece; smaller pieces are errors of the segmenter


@dataclass(frozen=True, eq=False)
class Organ:
    """A non-empty mask of an organ or of a part of it.

    Attributes:
        mask: (Z, Y, X) bool, the organ's box only.
        start: (3,) voxel of the volume at `mask[0, 0, 0]`.
        shape: (Z, Y, X) of the volume.
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
        """The organ from a mask without its small islands, or None.

        Args:
            mask: (Z, Y, X) bool of the whole volume; it is copied and need not stay in memory.
            spacing_mm: voxel size (z, y, x).
            min_ml: smallest plausible volume; a smaller mask gives None, as does an empty one.
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
        """The part given by a mask that begins at the voxel `first` of this organ's box."""
        box = crop_box(mask)
        cut = mask[tuple(slice(a, b) for a, b in box)].copy()
        return Organ(cut, self.start + first + box[:, 0], self.shape, self.spacing_mm)

    @property
    def points(self) -> np.ndarray:
        """(N, 3) int, the organ's voxels in the volume."""
        return np.argwhere(self.mask) + self.start

    def centre(self) -> Point | None:
        """Centre of mass; None if the volume's edge cuts this part."""
        return self.centre_of(self.points)

    def centre_of(self, points: np.ndarray) -> Point | None:
        """Centre of voxels (N, 3); None if there are none or one is on the volume's edge."""
        if not len(points) or (points == 0).any() or (points == np.array(self.shape) - 1).any():
            return None
        return tuple(map(float, points.mean(0)))

    def end(self, axis: int, sign: int, mm: float = 0.0) -> "Organ":
        """The organ's last `mm` along an axis, at least one slice.

        Args:
            axis: 0 (z), 1 (y) or 2 (x).
            sign: 1 for the end at high coordinates, -1 for the other.
            mm: depth.
        """
        deep = max(1, round(mm / self.spacing_mm[axis]))
        n = self.mask.shape[axis]
        return self.between(axis, *((n - deep, n) if sign > 0 else (0, deep)))

    def between(self, axis: int, first: int, stop: int) -> "Organ":
        """Slices `first` to `stop` (exclusive) along an axis, counted in the organ's box."""
        at = [0, 0, 0]
        at[axis] = max(0, first)
        where = tuple(slice(a, stop if i == axis else None) for i, a in enumerate(at))
        return self.part(self.mask[where], tuple(at))

    def core(self, share: float) -> Point | None:
        """Centre of the thickest part: voxels deeper than `share` of the largest depth.

        None if the volume's edge cuts that part; space outside the volume counts as organ.
        """
        stop = self.start + self.mask.shape
        before, after = (self.start > 0).astype(int), (stop < self.shape).astype(int)
        padded = np.pad(self.mask, np.stack([before, after], 1))
        depth = ndimage.distance_transform_edt(padded, self.spacing_mm)
        labels, _ = ndimage.label(depth > share * depth.max())
        deepest = np.argwhere(labels == labels[np.unravel_index(depth.argmax(), depth.shape)])
        return self.centre_of(deepest - before + self.start)

    def sections(self, z: int, min_mm2: float) -> list[np.ndarray]:
        """Pieces of at least `min_mm2` on slice z of the box: (Y, X) bool each, largest first."""
        count, labels, stats, _ = cv2.connectedComponentsWithStats(self.mask[z].astype(np.uint8))
        area = stats[:, cv2.CC_STAT_AREA] * self.spacing_mm[1] * self.spacing_mm[2]
        order = sorted(range(1, count), key=lambda i: -area[i])
        return [labels == i for i in order if area[i] >= min_mm2]

    def parting(self, min_mm2: float, run_mm: float) -> int | None:
        """The highest slice of the box where the organ is in two pieces, there and below.

        Args:
            min_mm2: smaller pieces (a rough surface, a side branch) do not count.
            run_mm: how far down the pieces must stay separate.
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
        """(N,) distance in mm from each of `points` to the nearest voxel of another organ."""
        return other._tree.query(self.points * self.spacing_mm)[0]
