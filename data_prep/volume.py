"""One CT study as an array in Hounsfield units, on the patient's axes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Orientation:
    """How the slices of a file lie against the patient's axes: exchanged and turned, or not.

    Attributes:
        transposed: rows run along x instead of y.
        flip_y: after that, y runs to the front instead of to the back.
        flip_x: after that, x runs to the patient's right instead of to the left.
    """

    transposed: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def to_lps(self, stored: np.ndarray) -> np.ndarray:
        """Slices (..., rows, columns) as stored, on the patient's axes (..., Y, X); a view."""
        lps = stored.swapaxes(-1, -2) if self.transposed else stored
        return lps[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def to_stored(self, lps: np.ndarray) -> np.ndarray:
        """The way back: (..., Y, X) as the slices lie in the files (..., rows, columns)."""
        stored = lps[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return stored.swapaxes(-1, -2) if self.transposed else stored


@dataclass(frozen=True)
class Volume:
    """One CT series in LPS axes: z grows to the head, y to the back, x to the patient's left.

    Attributes:
        hu: (Z, Y, X) int16 HU, nothing below AIR_HU.
        spacing_mm: (z, y, x), from slice positions, not thickness; gaps left out of account.
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
        study_uid: as in the files; `public_uid` gives the form that may be shared.
        series_uid: likewise.
        sop_uids: one a slice, in z order.
        notes: what a reader of the result should know, without file names.
        repairs: what had to be changed to read it, likewise.
        missing_slices: how many slices the gaps between positions leave out.
        syntaxes: keywords of the transfer syntaxes of the files.
        orientation: how the slices lie in the files; `orientation.to_stored(mask)` lays a mask
            made here on them.
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
