"""One CT study as an array in Hounsfield units, on the patient's axes.

Slices lie where their files say (`Volume.z_mm`), which after a gap is not origin plus spacing:
`Volume.voxel` converts mm to voxels, and `Volume.on_even_grid` is for formats that know no gaps.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.positions import slice_spacing
from pekit.dataset.schema import AIR_HU

# The extended CT scale, 12 bits with slope 10 and intercept -10240; what is beyond is no HU.
HU_RANGE = (-10240, 30710)
MAX_12_BITS = 3071  # the brightest HU of the usual scale; at an image's corner it is padding
PADDING = "values that are no HU outside the field of view: read as air"


@dataclass(frozen=True)
class Orientation:
    """Orientation of the stored slices relative to the patient's axes (LPS).

    Attributes:
        transposed: the row index runs along x instead of y.
        flip_y: after transposing, y runs to the front instead of to the back.
        flip_x: after transposing, x runs to the patient's right instead of to the left.
    """

    transposed: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def to_lps(self, stored: np.ndarray) -> np.ndarray:
        """Turn stored slices (..., rows, columns) into LPS axes (..., Y, X); returns a view."""
        lps = stored.swapaxes(-1, -2) if self.transposed else stored
        return lps[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def to_stored(self, lps: np.ndarray) -> np.ndarray:
        """Turn LPS slices (..., Y, X) back into the order of the files (..., rows, columns)."""
        stored = lps[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return stored.swapaxes(-1, -2) if self.transposed else stored


@dataclass(frozen=True)
class Volume:
    """One CT series in LPS axes: z grows to the head, y to the back, x to the patient's left.

    Attributes:
        hu: (Z, Y, X) int16 HU, nothing below AIR_HU.
        spacing_mm: (z, y, x); z from slice positions, not slice thickness, gaps ignored.
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
        study_uid: as in the files; `public_uid` gives the form that may be shared.
        series_uid: likewise.
        sop_uids: one per slice, in z order.
        notes: remarks for a reader of the result, without file names.
        repairs: changes that were needed to read the series, without file names.
        missing_slices: number of slices missing in gaps between positions.
        syntaxes: keywords of the transfer syntaxes of the files.
        orientation: of the slices in the files; `orientation.to_stored(mask)` turns a mask of this
            volume into the order of the files.
        z_mm: (Z,) ascending LPS position of each slice; by default evenly spaced from the origin.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    missing_slices: int = 0
    syntaxes: tuple[str, ...] = ()
    orientation: Orientation = Orientation()
    z_mm: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.z_mm is None:
            even = self.origin_mm[0] + self.spacing_mm[0] * np.arange(len(self.hu))
            object.__setattr__(self, "z_mm", even)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.hu.shape

    def voxel(self, point_mm: tuple[float, float, float]) -> tuple[float, float, float] | None:
        """Voxel (z, y, x) of an LPS position (z, y, x) in mm; None outside the volume or in a gap.

        Between two slices z is a fraction. A position belongs to the volume up to half a voxel
        beyond its outer voxels, and up to half a slice distance into a gap.
        """
        before = np.clip(np.searchsorted(self.z_mm, point_mm[0]) - 1, 0, len(self.z_mm) - 2)
        step = self.z_mm[before + 1] - self.z_mm[before]
        beyond = point_mm[0] - self.z_mm[before]
        y_x = ((point_mm[k] - self.origin_mm[k]) / self.spacing_mm[k] for k in (1, 2))
        voxel = tuple(float(v) for v in (before + beyond / step, *y_x))
        in_gap = (
            slice_spacing(self.z_mm).missing[before]
            and self.spacing_mm[0] / 2 < beyond < step - self.spacing_mm[0] / 2
        )
        inside = all(-0.5 <= v <= n - 0.5 for v, n in zip(voxel, self.hu.shape, strict=True))
        return voxel if inside and not in_gap else None

    def on_even_grid(self, array: np.ndarray) -> tuple[np.ndarray, tuple, tuple]:
        """An array of this volume on evenly spaced slices, its spacing and origin (z, y, x) in mm.

        A slice that is missing in a gap repeats the nearest one.
        """
        count = round((self.z_mm[-1] - self.z_mm[0]) / self.spacing_mm[0]) + 1
        grid = self.z_mm[0] + self.spacing_mm[0] * np.arange(count)
        nearest = np.abs(grid[:, None] - self.z_mm).argmin(1)
        return array[nearest], self.spacing_mm, self.origin_mm


def to_hu(plane: np.ndarray) -> tuple[np.ndarray, bool]:
    """One slice as int16 HU, with air where there is nothing below AIR_HU or outside the view.

    Values that are no HU (not finite, or outside HU_RANGE) are padding where they reach the border
    of the image, and so are values of 12 bits' maximum and more that its corners have.

    Args:
        plane: (Y, X) HU in any type, float for values that are not finite.

    Returns:
        The slice (Y, X) int16, and whether it had such padding.

    Raises:
        ValueError: there are values that are no HU inside the image, or nothing else.
    """
    low, high = plane.min(), plane.max()
    padded = not (low >= HU_RANGE[0] and high < MAX_12_BITS) and (wrong := _no_hu(plane)).any()
    if padded:
        labels = cv2.connectedComponents(wrong.astype(np.uint8))[1]
        border = np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]]
        inside = wrong & ~np.isin(labels, border)
        if inside.any() or wrong.all():
            value = plane[inside if inside.any() else wrong][0]
            count = np.count_nonzero(inside) or wrong.size
            raise ValueError(f"{count} voxels inside the image are no HU, but such as {value:g}")
        plane = np.where(wrong, AIR_HU, plane)
    if plane.dtype.kind == "f":
        plane = np.rint(plane)
    return plane.clip(AIR_HU, HU_RANGE[1]).astype(np.int16), bool(padded)


def _no_hu(plane: np.ndarray) -> np.ndarray:
    """Which values of a slice cannot be HU (Y, X) bool."""
    wrong = ~((plane >= HU_RANGE[0]) & (plane <= HU_RANGE[1]))  # NaN is in no range
    corners = plane[[0, 0, -1, -1], [0, -1, 0, -1]]
    bright = corners[corners >= MAX_12_BITS]
    return wrong | np.isin(plane, bright) if len(bright) else wrong
