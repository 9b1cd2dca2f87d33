"""Read masks written by another program: a folder with one file per organ.

    lung.nii.gz heart.nii.gz aorta.nii.gz ...     or .nii, .nrrd, .mha, ...

An output folder of TotalSegmentator can be read as it is: its lung_*_lobe_* files make the lung.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path

import numpy as np

from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError
from data_prep.images import SUFFIXES, is_image, read_image
from pekit.common.errors import UserError

LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
GRID_TOLERANCE = 0.1  # voxels, over the whole extent; writers round spacing and origin


def segment_precomputed(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    folder: Path,
    origin_mm: tuple[float, float, float] | None = None,
) -> Masks:
    """Masks from the files in `folder`; `organs` reads each further file on access.

    Args:
        hu: (Z, Y, X), the volume that the masks must fit.
        spacing_mm: (z, y, x).
        folder: files named lung (or lobes), heart, and any other organ.
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0); without it the masks' position is
            not checked.

    Raises:
        UserError: a file is missing, unreadable, on another grid, or two have the same name.
        SegmentationError: lung or heart is empty.
    """
    files = MaskFolder(Path(folder), hu.shape, spacing_mm, origin_mm)
    lobes = [name for name in LOBES if name in files]
    if "lung" in files:
        lung = files["lung"]
    elif lobes:
        lung = reduce(np.logical_or, (files[name] for name in lobes))
    else:
        raise UserError(
            f"{folder} has neither lung.nii.gz (or .nrrd) nor lobes (lung_*_lobe_*.nii.gz): "
            "put the masks there or choose another method"
        )
    if "heart" not in files:
        raise UserError(
            f"{folder} has no heart.nii.gz (or .nrrd): put the mask there or choose another method"
        )
    heart = files["heart"]
    for name, mask in (("lung", lung), ("heart", heart)):
        if not mask.any():
            raise SegmentationError(f"the {name} mask is empty")
    return Masks(lung, heart, files)


class MaskFolder(Mapping):
    """The mask files of a folder by name, each read on access: (Z, Y, X) bool.

    Raises:
        UserError: no such folder, or two files with one name; on access, an unreadable file or one
            on another grid than `shape`, `spacing_mm` and, if given, `origin_mm`.
    """

    def __init__(self, folder: Path, shape: tuple, spacing_mm: tuple, origin_mm: tuple | None):
        if not folder.is_dir():
            raise UserError(f"the masks' folder {folder} does not exist")
        self.grid = (tuple(shape), spacing_mm, origin_mm)
        self.files: dict[str, Path] = {}
        for path in sorted(p for p in folder.iterdir() if p.is_file() and is_image(p)):
            name = _stem(path)
            if name in self.files:
                raise UserError(
                    f"{folder} has both {self.files[name].name} and {path.name}: keep one of them"
                )
            self.files[name] = path

    def __getitem__(self, name: str) -> np.ndarray:
        return read_mask(self.files[name], *self.grid)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __contains__(self, name: object) -> bool:
        return name in self.files  # Mapping's own method would read the file


def read_mask(
    path: Path,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """Read a mask file (any axis order and direction) as (Z, Y, X) bool in LPS axes.

    Raises:
        UserError: the file is unreadable or on another grid; the message gives both values.
    """
    image = read_image(path)
    if image.array.shape != tuple(shape):
        raise UserError(
            f"{path} has the shape {image.array.shape}, the volume {tuple(shape)} (z, y, x)"
        )
    extent = np.array(shape)
    spacing = np.array(spacing_mm)
    far = [np.abs(np.array(image.spacing_mm) - spacing) * extent]
    values = [("spacing", image.spacing_mm, spacing_mm)]
    if origin_mm is not None:
        far.append(np.abs(np.array(image.origin_mm) - origin_mm))
        values.append(("origin", image.origin_mm, origin_mm))
    for (what, found, wanted), mm in zip(values, far, strict=True):
        if (mm > GRID_TOLERANCE * spacing).any():
            raise UserError(f"{path} has the {what} {_mm(found)}, the volume {_mm(wanted)}")
    return image.array > 0.5


def _mm(values: tuple) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)}) mm (z, y, x)"


def _stem(path: Path) -> str:
    suffix = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len)
    return path.name[: -len(suffix)]
