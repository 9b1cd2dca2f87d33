"""A folder of DICOM files -> one CT series as a Volume in Hounsfield units and one orientation.

Slices are sorted by their position along the slice normal, never by file name or InstanceNumber.
What cannot be read faithfully is refused with a StudyError that names the file; no slice is ever
replaced by zeros.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.uid import UID, MediaStorageDirectoryStorage

from data_prep.decode import REFETCH, decode, is_lossy
from data_prep.dicom_geometry import read_geometry, read_numbers, slice_steps
from data_prep.errors import StudyError, brief
from pekit.store import AIR_HU, UIDS

# Only files of these kinds are passed over; any other file that is not DICOM is an error.
NOT_DICOM = {
    ".csv", ".gif", ".gz", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json", ".log", ".md", ".mha",
    ".mhd", ".nhdr", ".nii", ".npy", ".npz", ".nrrd", ".parquet", ".pdf", ".png", ".raw", ".tif",
    ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip
# Tissue lies between these; a PixelPaddingValue that falls inside would erase it.
TISSUE_HU = (-900, 3000)
# What a slice must have to become part of a volume.
NEEDED = (
    *UIDS, "Modality", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
# And what it may have.
USED = (
    *NEEDED, "BitsAllocated", "BitsStored", "ImageType", "LossyImageCompression", "NumberOfFrames",
    "PixelPaddingValue", "PixelRepresentation", "SamplesPerPixel",
)  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """One CT series in LPS axes: z grows to the head, y to the back, x to the patient's left.

    Attributes:
        hu: (Z, Y, X) int16 HU, nothing below AIR_HU.
        spacing_mm: (z, y, x), from slice positions, not thickness; gaps left out of account.
        origin_mm: (z, y, x) LPS position of voxel (0, 0, 0).
        study_uid: as in the files; pekit.store.public_uid gives the form that may be shared.
        series_uid: likewise.
        sop_uids: one a slice, in z order.
        notes: what a reader of the result should know, without file names.
        missing_slices: how many slices the gaps between positions leave out.
        flipped: rows or columns ran the other way in the files.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    missing_slices: int = 0
    flipped: bool = False


def read_series(folder: Path, series: str | None = None) -> Volume:
    """Read the CT series in `folder` and its subfolders.

    Args:
        folder: DICOM files in any order and nesting.
        series: SeriesInstanceUID to read where the folder holds several.

    Raises:
        StudyError: no DICOM, several series, a file that cannot be decoded, duplicates, or a kind
            of image that is no axial single-frame CT. The message names the file.
    """
    folder = Path(folder)
    with disable_value_validation():  # the data set's 12-hex-digit UIDs are not valid UIDs
        datasets, notes = _read_datasets(folder)
        datasets = _one_series(folder, datasets, series)
        files, datasets = zip(*datasets, strict=True)
        for file, dataset in zip(files, datasets, strict=True):
            _check_kind(file, dataset)
        rows, columns, flips, position = read_geometry(files, datasets)
        order = np.argsort(position[:, 2], kind="stable")
        files, datasets = [files[i] for i in order], [datasets[i] for i in order]
        position = position[order]
        step, missing, gaps = slice_steps(files, datasets, position[:, 2])

        hu, padding_notes = None, set()
        for z, (file, dataset) in enumerate(zip(files, datasets, strict=True)):
            pixels, note = _decode(file, dataset)
            if hu is None:  # not before pixels have shown that the size is true
                hu = np.empty((len(files), rows, columns), np.int16)
            hu[z] = pixels[:: flips[0], :: flips[1]]
            padding_notes |= note
        lossy = any(is_lossy(dataset) for dataset in datasets)

    dy, dx = (float(value) for value in datasets[0].PixelSpacing)
    x, y, z = position[0]
    if flips != (1, 1):
        notes.append("rows or columns flipped to LPS")
    if lossy:
        notes.append("lossy compression")
    return Volume(
        hu=hu,
        spacing_mm=(step, dy, dx),
        origin_mm=(
            float(z),
            float(y) - (rows - 1) * dy * (flips[0] < 0),
            float(x) - (columns - 1) * dx * (flips[1] < 0),
        ),
        study_uid=str(datasets[0].StudyInstanceUID),
        series_uid=str(datasets[0].SeriesInstanceUID),
        sop_uids=tuple(str(dataset.SOPInstanceUID) for dataset in datasets),
        notes=(*notes, *gaps, *sorted(padding_notes)),
        missing_slices=missing,
        flipped=flips != (1, 1),
    )


def read_headers(folder: Path) -> pd.DataFrame:
    """Headers of the DICOM files in `folder`, no pixels read: a row a file, all values text.

    Columns: file, TransferSyntax (by name), NumberOfFrames, ImageType and those of NEEDED.

    Raises:
        StudyError: no DICOM there, or a file that is not DICOM.
    """
    with disable_value_validation():
        datasets, _ = _read_datasets(Path(folder), stop_before_pixels=True)
        return pd.DataFrame(
            {
                "file": str(file),
                "TransferSyntax": UID(dataset.file_meta.get("TransferSyntaxUID", "")).name,
                **{n: _text(dataset, n) for n in ("NumberOfFrames", "ImageType", *NEEDED)},
            }
            for file, dataset in datasets
        )


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name, "")).strip()


def _read_datasets(folder: Path, **options) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """The DICOM files with their headers (pixel data stay on disk until used), and notes."""

    def refuse(error: OSError):
        raise StudyError(f"the folder cannot be read ({error.strerror})", Path(error.filename))

    datasets, ignored = [], 0
    # os.walk does not follow links to folders, so a loop of links ends.
    tree = os.walk(folder, onerror=refuse)
    for file in sorted(Path(root) / name for root, _, names in tree for name in names):
        if file.suffix.lower() in NOT_DICOM or file.name.startswith("."):
            ignored += 1
            continue
        try:
            dataset = pydicom.dcmread(file, defer_size=4096, **options)
            is_directory = dataset.file_meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage
        except Exception as error:  # a damaged file raises nearly anything
            raise StudyError(
                f"not a DICOM file, or a damaged one ({brief(error)})",
                file,
                REFETCH,
            ) from error
        if is_directory:
            ignored += 1
        else:
            _check_tags(file, dataset)
            datasets.append((file, dataset))
    if not datasets:
        raise StudyError(f"no DICOM file in {folder}")
    return datasets, [f"ignored {ignored} files that are not DICOM images"] if ignored else []


def _check_tags(file: Path, dataset: Dataset) -> None:
    """Refuse a file with a tag that cannot be read; pydicom would say so only where it is used."""
    for name in USED:
        try:
            if isinstance(dataset.get(name), Sequence):
                raise TypeError("a sequence")
        except Exception as error:  # a damaged tag raises nearly anything
            raise StudyError(
                f"the tag {name} is damaged ({type(error).__name__})", file, REFETCH
            ) from error


def _one_series(folder: Path, datasets: list, series: str | None) -> list:
    """The files of the one series that is there, or that `series` chooses."""
    found: dict[str, list] = {}
    for file, dataset in datasets:
        uid = _text(dataset, "SeriesInstanceUID")
        if not uid:
            raise StudyError("no SeriesInstanceUID: cut short, or no image", file, REFETCH)
        found.setdefault(uid, []).append((file, dataset))
    listing = ", ".join(
        f"{uid} ({len(members)} files, {_text(members[0][1], 'Modality')})"
        for uid, members in found.items()
    )
    if series is None and len(found) > 1:
        raise StudyError(
            f"{len(found)} series in one folder", folder, f"choose one with series=<UID>: {listing}"
        )
    if series is not None and series not in found:
        raise StudyError("no such series", folder, f"{series!r} is none of {listing}")
    return found[series] if series is not None else datasets


def _check_kind(file: Path, dataset: Dataset) -> None:
    """Refuse, by name, what is not a single-frame CT image with Hounsfield units."""
    modality = _text(dataset, "Modality")
    photometric = _text(dataset, "PhotometricInterpretation")
    if modality not in ("", "CT"):
        raise StudyError(f"the modality is {modality}, not CT", file)
    if "LOCALIZER" in _text(dataset, "ImageType").upper():
        raise StudyError("a localizer, not a CT slice", file)
    if _text(dataset, "NumberOfFrames") not in ("", "1"):
        raise StudyError("a multi-frame file", file, "convert it to single-frame files")
    for name in NEEDED:
        if _text(dataset, name) in ("", "None"):
            raise StudyError(f"the tag {name} is missing", file)
    if photometric != "MONOCHROME2":
        raise StudyError(f"the photometric interpretation is {photometric}, not MONOCHROME2", file)


def _decode(file: Path, dataset: Dataset) -> tuple[np.ndarray, set[str]]:
    """Pixels (Y, X) int16 HU of one file, with padding as air; and notes."""
    slope, intercept = (read_numbers(file, dataset, f"Rescale{name}", 1)[0]
                        for name in ("Slope", "Intercept"))  # fmt: skip
    if slope <= 0:
        raise StudyError(f"RescaleSlope is {slope:g}", file)
    stored = decode(file, dataset)
    padding = dataset.get("PixelPaddingValue")
    hu = stored.astype(np.float32)
    hu *= slope
    hu += intercept
    notes = set()
    if isinstance(padding, int):
        if TISSUE_HU[0] < padding * slope + intercept < TISSUE_HU[1]:
            notes = {f"PixelPaddingValue {padding} lies among tissue values: not used as padding"}
        else:
            hu[stored == padding] = AIR_HU
    del dataset.PixelData  # not kept beside the volume
    return np.rint(hu, out=hu).clip(AIR_HU, 32767).astype(np.int16), notes
