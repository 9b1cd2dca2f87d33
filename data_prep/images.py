"""Read and write 3D image files (NIfTI, NRRD, MetaImage) in LPS axes.

Axes are (z, y, x): z grows to the head, y to the back, x to the patient's left, as in a Volume.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import StudyError
from data_prep.volume import Volume
from pekit.dataset.schema import AIR_HU

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
AXIS_TOLERANCE = 0.01  # off-axis part of a direction cosine: 0.6 degrees


@dataclass(frozen=True)
class Image:
    """A 3D image whose grid is parallel to the patient's axes.

    Attributes:
        array: (Z, Y, X), in the file's data type.
        spacing_mm: (z, y, x).
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]


def is_image(path: Path) -> bool:
    """Whether the file name has a suffix that `read_image` can read."""
    return path.name.lower().endswith(SUFFIXES)


def read_image(path: Path) -> Image:
    """Read a 3D image file with any axis order.

    Raises:
        StudyError: the file is missing, unreadable, not one 3D image, or oblique to the patient's
            axes.
    """
    import SimpleITK as sitk  # 0.3 s, and only for these files

    path = Path(path)
    if not path.is_file():
        raise StudyError("no such file", path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("ITK ERROR: ")[-1]
        reason = "" if "/" in reason else f" ({reason})"  # it may contain the path
        raise StudyError(f"not a readable image{reason}", path) from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise StudyError(
            f"not a single 3D image: it has {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel",
            path,
        )
    direction = np.array(image.GetDirection()).reshape(3, 3)
    signs = np.rint(direction)
    if np.abs(direction - signs).max() > AXIS_TOLERANCE or np.abs(signs).sum() != 3:
        raise StudyError("oblique to the patient's axes", path, "resample it along them")
    image = sitk.DICOMOrient(image, "LPS")
    return Image(
        sitk.GetArrayFromImage(image),
        image.GetSpacing()[::-1],
        image.GetOrigin()[::-1],
    )


def write_image(
    path: Path,
    array: np.ndarray,
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
) -> None:
    """Write an array (Z, Y, X) in LPS axes, so that a viewer shows it in place on its CT.

    The file is written atomically (beside, then renamed).

    Args:
        path: its suffix determines the format, e.g. `.nii.gz`.
        array: bool is written as uint8.
        spacing_mm: (z, y, x).
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    image.SetSpacing([float(mm) for mm in spacing_mm[::-1]])
    image.SetOrigin([float(mm) for mm in origin_mm[::-1]])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".writing-{path.name}")
    sitk.WriteImage(image, str(beside), useCompression=True)
    beside.replace(path)


def read_image_volume(path: Path) -> Volume:
    """Read one CT study from an image file in Hounsfield units.

    Such a file has no UIDs: the study's UID is a hash of the file, slice UIDs end in `.<z>`.
    (ITK itself reads NaN in a NIfTI file as 0.)

    Raises:
        StudyError: as for `read_image`; values that are not finite; fewer than two slices.
    """
    path = Path(path)
    image = read_image(path)
    if not np.isfinite(image.array).all():
        raise StudyError("some values are not finite numbers", path)
    if len(image.array) < 2:
        raise StudyError("a single slice is not a volume", path)
    with path.open("rb") as file:
        study = hashlib.file_digest(file, "sha256").hexdigest()
    return Volume(
        hu=np.rint(image.array).clip(AIR_HU, np.iinfo(np.int16).max).astype(np.int16),
        spacing_mm=tuple(map(float, image.spacing_mm)),
        origin_mm=tuple(map(float, image.origin_mm)),
        study_uid=study,
        series_uid=study,
        sop_uids=tuple(f"{study}.{z}" for z in range(len(image.array))),
    )
