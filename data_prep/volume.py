"""One CT study as an array in Hounsfield units, on the patient's axes."""

from dataclasses import dataclass

import cv2
import numpy as np

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.hu.shape


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
