"""Read and write 3D image files (NIfTI, NRRD, MetaImage) in LPS axes.

Axes are (z, y, x): z grows to the head, y to the back, x to the patient's left, as in a Volume.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_prep.containers import REFETCH, DamagedContainer, container, read_voxels
from data_prep.errors import StudyError
from data_prep.volume import PADDING, Volume, to_hu

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
AXIS_TOLERANCE = 0.01  # off-axis part of a direction cosine: 0.6 degrees
SPACING_MM = (0.01, 100.0)  # between these; a header in metres or micrometres is beyond
UNORIENTED = "the file does not say how its axes lie in the patient: taken as left, back, head"


@dataclass(frozen=True)
class Image:
    """A 3D image whose grid is parallel to the patient's axes.

    Attributes:
        array: (Z, Y, X), in the file's data type.
        spacing_mm: (z, y, x).
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
        notes: remarks for a reader of the result.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    notes: tuple[str, ...] = ()


def is_image(path: Path) -> bool:
    """Whether the file name has a suffix that `read_image` can read."""
    return path.name.lower().endswith(SUFFIXES)


def read_image(path: Path) -> Image:
    """Read a 3D image file with any axis order.

    Raises:
        StudyError: the file is missing, damaged, unreadable, not one 3D image, or oblique to the
            patient's axes.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError("no such file", path)
    try:
        voxels = read_voxels(path)
        header, dtype = _read_header(voxels.header, path)
        array = voxels.array(header.GetSize()[::-1], dtype)
    except DamagedContainer as error:
        raise StudyError(f"not a readable image: {error}", path, REFETCH) from None
    direction = np.array(header.GetDirection()).reshape(3, 3)
    signs = np.rint(direction)
    one = [(np.abs(signs).sum(axis) == 1).all() for axis in (0, 1)]  # of each patient's axis
    if not (np.abs(direction - signs).max() <= AXIS_TOLERANCE and all(one)):
        raise StudyError("oblique to the patient's axes", path, "resample it along them")
    axes = np.abs(signs).argmax(1)  # of the file, for x, y and z
    flipped = signs.sum(0) < 0
    spacing = np.array(header.GetSpacing())
    last = np.where(flipped, (np.array(header.GetSize()) - 1) * spacing, 0)
    origin = np.array(header.GetOrigin()) + direction @ last
    # numpy's axes run against the file's.
    array = np.flip(array, [2 - axis for axis in np.flatnonzero(flipped)])
    return Image(
        np.ascontiguousarray(array.transpose([2 - axis for axis in axes[::-1]])),
        tuple(spacing[axes][::-1].tolist()),
        tuple(origin[::-1].tolist()),
        () if voxels.oriented else (UNORIENTED,),
    )


def _read_header(header: bytes, path: Path):
    """The header of the file `path` as ITK reads it, checked, and the type of the voxels."""
    import SimpleITK as sitk  # 0.3 s, and only for these files

    reader = sitk.ImageFileReader()
    with TemporaryDirectory() as folder:
        suffix = {"nifti": "nii", "meta": "mha", "nrrd": "nrrd"}[container(path)]
        alone = Path(folder) / f"header.{suffix}"
        alone.write_bytes(header)
        reader.SetFileName(str(alone))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].split("ITK ERROR: ")[-1]
            reason = "its header cannot be read" if folder in reason else reason
            raise DamagedContainer(reason) from None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise StudyError(
            f"not a single 3D image: it has {reader.GetDimension()} dimensions and "
            f"{reader.GetNumberOfComponents()} values per voxel",
            path,
        )
    spacing = np.array(reader.GetSpacing())
    if not (spacing.min() > SPACING_MM[0] and spacing.max() < SPACING_MM[1]):
        sizes = " x ".join(f"{mm:.3g}" for mm in spacing)
        raise StudyError(f"voxels of {sizes} mm are no CT's", path, "mend its header")
    return reader, sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID())).dtype


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

    Such a file has no UIDs: the study's UID is a hash of its voxels, slice UIDs end in `.<z>`.

    Raises:
        StudyError: as for `read_image`; values that are no HU inside the field of view; fewer than
            two slices.
    """
    path = Path(path)
    image = read_image(path)
    if len(image.array) < 2:
        raise StudyError("a single slice is not a volume", path)
    hu, padded = np.empty(image.array.shape, np.int16), False
    for z, plane in enumerate(image.array):
        try:
            hu[z], found = to_hu(plane)
        except ValueError as error:
            raise StudyError(f"{error}, on slice z={z}", path) from None
        padded |= found
    others = (tuple({0, 1, 2} - {axis}) for axis in range(3))
    if blank := sum(np.count_nonzero(~hu.any(axes)) for axes in others):
        reason = f"{blank} planes hold nothing but 0: part of the file is lost"
        raise StudyError(reason, path, REFETCH)
    grid = np.array([*image.spacing_mm, *image.origin_mm]).round(3)
    study = hashlib.sha256(hu.tobytes() + grid.tobytes()).hexdigest()
    return Volume(
        hu=hu,
        spacing_mm=image.spacing_mm,
        origin_mm=image.origin_mm,
        study_uid=study,
        series_uid=study,
        sop_uids=tuple(f"{study}.{z}" for z in range(len(image.array))),
        notes=(*image.notes, *([PADDING] if padded else [])),
    )
