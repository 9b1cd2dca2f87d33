"""Read the headers of a folder's DICOM files and select the slices of its CT series.

A file that cannot be read is refused with a StudyError that names it; every file that is left out
is noted.
"""

import filecmp
import os
import re
from collections import Counter
from pathlib import Path

import pydicom
from pydicom import Dataset, Sequence
from pydicom.tag import Tag
from pydicom.uid import MediaStorageDirectoryStorage

from data_prep.dicom.decode import REFETCH
from data_prep.errors import StudyError, brief
from pekit.dataset.schema import UIDS

# Files of these kinds are ignored; any other file that is not DICOM is an error.
NOT_DICOM = {
    ".csv", ".gif", ".gz", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json", ".log", ".md", ".mha",
    ".mhd", ".nhdr", ".nii", ".npy", ".npz", ".nrrd", ".parquet", ".pdf", ".png", ".raw", ".tif",
    ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip
# Tags that a slice must have to become part of a volume.
NEEDED = (
    *UIDS, "Modality", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
# All tags that are read, for the image and for its pixels.
IMAGE_TAGS = {name: Tag(name) for name in (*NEEDED, "ImageType", "NumberOfFrames")}
PIXEL_TAGS = {
    name: Tag(name)
    for name in (
        "BitsAllocated", "BitsStored", "LossyImageCompression", "PixelPaddingValue",
        "PixelRepresentation", "SamplesPerPixel",
    )
}  # fmt: skip
LOCALIZER = "a localizer"

Slices = list[tuple[Path, Dataset]]


def ct_slices(
    folder: Path, series: str | None = None, pixels: bool = True
) -> tuple[Slices, list[str], list[str]]:
    """The slices of the CT series in `folder` and its subfolders, in no particular order.

    Args:
        folder: DICOM files in any order and nesting.
        series: SeriesInstanceUID to read, if the folder holds several.
        pixels: whether pixel data will be needed; they stay on disk until used.

    Returns:
        Files with their headers, notes, and repairs (files that were left out).

    Raises:
        StudyError: see `data_prep.dicom.open_series`.
    """
    found, notes = read_files(folder, pixels)
    found, repairs = _set_aside(found)
    found = _one_series(folder, found, series)
    for file, dataset in found:
        _check(file, dataset)
    found, copies = _without_copies(found)
    return found, notes, [*repairs, *copies]


def read_files(folder: Path, pixels: bool = True) -> tuple[Slices, list[str]]:
    """All DICOM files of a folder with their headers, and notes on ignored files.

    Raises:
        StudyError: the folder cannot be read or holds no DICOM file, or a file is damaged.
    """

    def refuse(error: OSError):
        raise StudyError(f"the folder cannot be read ({error.strerror})", Path(error.filename))

    found, ignored = [], 0
    # os.walk does not follow links to folders, so loops of links are no problem.
    tree = os.walk(folder, onerror=refuse)
    for file in sorted(Path(root) / name for root, _, names in tree for name in names):
        if file.suffix.lower() in NOT_DICOM or file.name.startswith("."):
            ignored += 1
            continue
        try:
            dataset = pydicom.dcmread(file, defer_size=4096, stop_before_pixels=not pixels)
            is_directory = dataset.file_meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage
        except Exception as error:  # a damaged file raises nearly anything
            raise StudyError(
                f"not a DICOM file, or damaged ({brief(error)})", file, REFETCH
            ) from error
        if is_directory:
            ignored += 1
        else:
            _check_tags(file, dataset, IMAGE_TAGS | PIXEL_TAGS if pixels else IMAGE_TAGS)
            found.append((file, dataset))
    if not found:
        raise StudyError("no DICOM file in the folder", Path(folder))
    return found, [f"ignored {ignored} files that are not DICOM images"] if ignored else []


def _check_tags(file: Path, dataset: Dataset, tags: dict[str, Tag]) -> None:
    """Refuse a file with a tag that cannot be read; pydicom would raise only when it is used."""
    for name, tag in tags.items():
        try:
            if tag in dataset and isinstance(dataset[tag].value, Sequence):
                raise TypeError("a sequence")
        except Exception as error:  # a damaged tag raises nearly anything
            raise StudyError(
                f"the tag {name} is damaged ({type(error).__name__})", file, REFETCH
            ) from error


def text(dataset: Dataset, name: str) -> str:
    """The value of a tag as text; empty if it is missing."""
    return str(dataset.get(name, "")).strip()


def _set_aside(found: Slices) -> tuple[Slices, list[str]]:
    """The CT slices, without reports, other modalities and localizers."""
    kinds = [_other_kind(dataset) for _, dataset in found]
    if all(kinds):
        raise StudyError(f"{kinds[0]}, not a CT slice", found[0][0])
    slices = [item for item, kind in zip(found, kinds, strict=True) if not kind]
    ours = {text(dataset, "SeriesInstanceUID") for _, dataset in slices}
    for (file, dataset), kind in zip(found, kinds, strict=True):
        # A report is a separate series; within a series of CT slices the tag must be damaged.
        if kind not in ("", LOCALIZER) and text(dataset, "SeriesInstanceUID") in ours:
            raise StudyError(f"{kind} in a series of CT slices", file, REFETCH)
    others = Counter(filter(None, kinds))
    return slices, [f"set aside: {kind} ({n} files)" for kind, n in sorted(others.items())]


def _other_kind(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality not in ("", "CT"):
        return f"an object of modality {_code(modality)}"
    return LOCALIZER if "LOCALIZER" in text(dataset, "ImageType").upper() else ""


def _code(value: str) -> str:
    """The value if it looks like a defined term of the standard; free text is not repeated."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{2,16}", value) else "unknown"


def _one_series(folder: Path, slices: Slices, series: str | None) -> Slices:
    """The files of the only series, or of the one chosen by `series`."""
    found: dict[str, Slices] = {}
    for file, dataset in slices:
        uid = text(dataset, "SeriesInstanceUID")
        if not uid:
            raise StudyError("no SeriesInstanceUID: cut short, or not an image", file, REFETCH)
        found.setdefault(uid, []).append((file, dataset))
    listing = ", ".join(f"{uid} ({len(members)} files)" for uid, members in found.items())
    if series is None and len(found) > 1:
        raise StudyError(
            f"{len(found)} series in one folder", folder, f"choose one with series=<UID>: {listing}"
        )
    if series is not None and series not in found:
        raise StudyError("no such series", folder, f"{series!r} is none of {listing}: choose one")
    return slices if series is None else found[series]


def _check(file: Path, dataset: Dataset) -> None:
    """Refuse a file that is not a single-frame CT image in Hounsfield units."""
    if text(dataset, "NumberOfFrames") not in ("", "1"):
        raise StudyError("a multi-frame file", file, "convert it to single-frame files")
    for name in NEEDED:
        if (tag := IMAGE_TAGS[name]) not in dataset or dataset[tag].is_empty:
            raise StudyError(f"the tag {name} is missing", file)
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        raise StudyError(
            f"the photometric interpretation is {_code(photometric)}, not MONOCHROME2", file
        )


def _without_copies(slices: Slices) -> tuple[Slices, list[str]]:
    """Each slice once: byte-for-byte copies of another file are left out."""
    seen, kept = {}, []
    for file, dataset in slices:
        uid = text(dataset, "SOPInstanceUID")
        if uid not in seen:
            kept.append((file, dataset))
        elif not filecmp.cmp(seen[uid], file, shallow=False):
            raise StudyError("another file has the same SOPInstanceUID", file, "remove one")
        seen.setdefault(uid, file)
    copies = len(slices) - len(kept)
    return kept, [f"{copies} files are copies of others: left out"] if copies else []
