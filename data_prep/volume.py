"""One CT study as an array in Hounsfield units, on the patient's axes."""

from dataclasses import dataclass

import numpy as np


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
