"""Which DICOM files of a folder make up its CT series: headers read, other files set aside.

What cannot be read is refused with a StudyError that names the file; nothing is passed over
without a note.
"""

import filecmp
import os
import re
from collections import Counter
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import MediaStorageDirectoryStorage

from data_prep.errors import StudyError
from pekit.store import UIDS

# Only files of these kinds are passed over; any other file that is not DICOM is an error.
NOT_DICOM = {
    ".csv", ".gif", ".gz", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json", ".log", ".md", ".mha",
    ".mhd", ".nhdr", ".nii", ".npy", ".npz", ".nrrd", ".parquet", ".pdf", ".png", ".raw", ".tif",
    ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip",
}  # fmt: skip
REFETCH = "fetch it again, or take it out of the folder"
# What a slice must have to become part of a volume.
NEEDED = (
    *UIDS, "Modality", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
NEEDED_TAGS = {name: Tag(name) for name in NEEDED}

Slices = list[tuple[Path, Dataset]]


def ct_slices(
    folder: Path, series: str | None = None, pixels: bool = True
) -> tuple[Slices, list[str], list[str]]:
    """The slices of the CT series in `folder` and its subfolders, in no order.

    Args:
        folder: DICOM files in any order and nesting.
        series: SeriesInstanceUID to read where the folder holds several.
        pixels: whether pixel data will be needed; they stay on disk until used.

    Returns:
        Files with their headers, notes, and repairs (what was left out).

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
    """All DICOM files of a folder with their headers, and notes on other files.

    Raises:
        StudyError: the folder cannot be read or holds no DICOM, or a file is damaged.
    """

    def refuse(error: OSError):
        raise StudyError(f"the folder cannot be read ({error.strerror})", Path(error.filename))

    found, ignored = [], 0
    # os.walk does not follow links to folders, so a loop of links ends.
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
                f"not a DICOM file, or a damaged one ({brief(error)})", file, REFETCH
            ) from error
        if is_directory:
            ignored += 1
        else:
            found.append((file, dataset))
    if not found:
        raise StudyError("no DICOM file in the folder", Path(folder))
    return found, [f"ignored {ignored} files that are not DICOM images"] if ignored else []


def brief(error: Exception) -> str:
    """First line of an error without the paths and values that it may hold."""
    first = re.sub(r"'[^']*'|\"[^\"]*\"", "...", (str(error).splitlines() or [""])[0])
    return type(error).__name__ if not first or os.sep in first else first[:200].rstrip(".")


def text(dataset: Dataset, name: str) -> str:
    """The value of a tag as text, empty where it is missing."""
    return str(dataset.get(name, "")).strip()


def _set_aside(found: Slices) -> tuple[Slices, list[str]]:
    """The CT slices; reports, other modalities and localizers beside them are left out."""
    kinds = [_other_kind(dataset) for _, dataset in found]
    if all(kinds):
        raise StudyError(f"{kinds[0]}, not a CT slice", found[0][0])
    others = Counter(filter(None, kinds))
    return (
        [item for item, kind in zip(found, kinds, strict=True) if not kind],
        [f"set aside: {kind} ({count} files)" for kind, count in sorted(others.items())],
    )


def _other_kind(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality not in ("", "CT"):
        return f"an object of modality {_code(modality)}"
    return "a localizer" if "LOCALIZER" in text(dataset, "ImageType").upper() else ""


def _code(value: str) -> str:
    """A defined term of the standard as it is; free text is not repeated."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{2,16}", value) else "unknown"


def _one_series(folder: Path, slices: Slices, series: str | None) -> Slices:
    """The files of the one series that is there, or that `series` chooses."""
    found: dict[str, Slices] = {}
    for file, dataset in slices:
        uid = text(dataset, "SeriesInstanceUID")
        if not uid:
            raise StudyError("no SeriesInstanceUID: cut short, or no image", file, REFETCH)
        found.setdefault(uid, []).append((file, dataset))
    listing = ", ".join(f"{uid} ({len(members)} files)" for uid, members in found.items())
    if series is None and len(found) > 1:
        raise StudyError(
            f"{len(found)} series in one folder", folder, f"choose one with series=<UID>: {listing}"
        )
    if series is not None and series not in found:
        raise StudyError("no such series", folder, f"{series!r} is none of {listing}")
    return slices if series is None else found[series]


def _check(file: Path, dataset: Dataset) -> None:
    """Refuse, by name, what is not a single-frame CT image with Hounsfield units."""
    if text(dataset, "NumberOfFrames") not in ("", "1"):
        raise StudyError("a multi-frame file", file, "convert it to single-frame files")
    for name, tag in NEEDED_TAGS.items():
        # As it lies in the file: to convert each value of a million files takes minutes.
        value = dataset.get_item(tag).value if tag in dataset else None
        if value is None or (isinstance(value, bytes | str) and not value.strip()):
            raise StudyError(f"the tag {name} is missing", file)
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        raise StudyError(
            f"the photometric interpretation is {_code(photometric)}, not MONOCHROME2", file
        )


def _without_copies(slices: Slices) -> tuple[Slices, list[str]]:
    """Each slice once: a file that is another one's copy, byte for byte, is left out."""
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
