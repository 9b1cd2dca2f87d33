"""Read the headers of a folder's DICOM files and select the slices of its CT series.

Files that cannot be read are refused with a StudyError that names all that have the same fault;
every file that is left out is noted.
"""

import filecmp
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom import Dataset, Sequence
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from data_prep.dicom.acquisitions import acquisitions
from data_prep.dicom.decode import REFETCH
from data_prep.dicom.find import (
    files_below,
    is_packed,
    name_form,
    starts_without_preamble,
    was_dicom,
)
from data_prep.dicom.geometry import read_positions
from data_prep.errors import StudyError, brief, dcmodify, refuse
from pekit.common.errors import printable
from pekit.dataset.schema import UIDS

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
NO_POSITION = "a series without positions, such as a dose report"

Slices = list[tuple[Path, Dataset]]


def ct_slices(
    folder: Path, series: str | None = None, pixels: bool = True
) -> tuple[Slices, list[str], list[str]]:
    """The slices of the CT series in `folder` and its subfolders, in no particular order.

    Args:
        folder: DICOM files in any order and nesting.
        series: which series, if the folder holds several: its number in the refusal, or its UID.
        pixels: whether pixel data will be needed; they stay on disk until used.

    Returns:
        Files with their headers, notes, and repairs (files that were left out).

    Raises:
        StudyError: see `data_prep.dicom.open_series`.
    """
    found, notes = read_files(folder, pixels)
    found, repairs = _set_aside(found)
    found, number = _one_series(folder, found, series)
    refuse(error for file, dataset in found for error in _faults(file, dataset))
    found, copies = _without_copies(folder, found)
    found = _one_acquisition(folder, found, number, series)
    return found, notes, [*repairs, *copies]


def read_files(folder: Path, pixels: bool = True) -> tuple[Slices, list[str]]:
    """All DICOM files of a folder with their headers, and a note on other files.

    Raises:
        StudyError: the folder cannot be read or holds no DICOM file; a file is damaged, compressed
            by gzip, or a link to nothing.
    """
    found, unmarked, others, faults = [], {}, 0, []
    for file in files_below(folder):
        if file.name.startswith(".") or not (file.is_file() or file.is_symlink()):
            others += 1
            continue
        try:
            dataset = _read(file, pixels)
        except InvalidDicomError:  # no mark
            unmarked[file] = file.open("rb").read(136)
        except FileNotFoundError:
            faults.append(StudyError("a link to a file that is missing", file, REFETCH))
        except Exception as error:  # a damaged file raises nearly anything
            faults.append(StudyError(f"a damaged DICOM file ({brief(error)})", file, REFETCH))
        else:
            found.append((file, dataset))
    for file, head in unmarked.items():
        if starts_without_preamble(head):
            try:
                found.append((file, _read(file, pixels, force=True)))
            except Exception as error:
                faults.append(StudyError(f"a damaged DICOM file ({brief(error)})", file, REFETCH))
        elif is_packed(file, head):
            faults.append(StudyError("a DICOM file compressed by gzip", file, _unpack(folder)))
        elif was_dicom(file, head, {name_form(file) for file, _ in found}):
            faults.append(StudyError("not a DICOM file, or damaged (no mark)", file, REFETCH))
        else:
            others += 1
    refuse(faults)
    images = [item for item in found if not _is_directory(item[1])]
    others += len(found) - len(images)
    if not images:
        among = f" (it holds {others} other files)" if others else ""
        raise StudyError(f"no DICOM file in the folder{among}", Path(folder))
    tags = IMAGE_TAGS | PIXEL_TAGS if pixels else IMAGE_TAGS
    refuse(error for file, dataset in images for error in _damaged_tags(file, dataset, tags))
    return images, [f"ignored {others} files that are not DICOM images"] if others else []


def _read(file: Path, pixels: bool, force: bool = False) -> Dataset:
    """The header of a file. Without a transfer syntax, the one that its data set proves is set."""
    dataset = pydicom.dcmread(file, defer_size=4096, stop_before_pixels=not pixels, force=force)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        # Of undefined length are compressed pixels, of any syntax.
        if not pixels or ("PixelData" in dataset and not dataset["PixelData"].is_undefined_length):
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian
                if implicit
                else ExplicitVRLittleEndian
                if little
                else ExplicitVRBigEndian
            )
    return dataset


def _is_directory(dataset: Dataset) -> bool:
    """Whether a file is a DICOMDIR, the table of contents of a disc."""
    kind = dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
    return kind == MediaStorageDirectoryStorage


def _damaged_tags(file: Path, dataset: Dataset, tags: dict[str, Tag]) -> Iterator[StudyError]:
    """An error if a tag cannot be read; pydicom would raise only when it is used."""
    for name, tag in tags.items():
        try:
            if tag in dataset and isinstance(dataset[tag].value, Sequence):
                raise TypeError("a sequence")
        except Exception as error:  # a damaged tag raises nearly anything
            yield StudyError(f"the tag {name} is damaged ({type(error).__name__})", file, REFETCH)
            return


def text(dataset: Dataset, name: str) -> str:
    """The value of a tag as text; empty if it is missing."""
    return str(dataset.get(name, "")).strip()


def _set_aside(found: Slices) -> tuple[Slices, list[str]]:
    """The CT slices, without reports, other modalities and localizers."""
    kinds = _kinds(found)
    if all(kinds):
        raise StudyError(f"{kinds[0]}, not a CT slice", found[0][0])
    slices = [item for item, kind in zip(found, kinds, strict=True) if not kind]
    ours = {text(dataset, "SeriesInstanceUID") for _, dataset in slices}
    # A report is a separate series; within a series of CT slices the tag must be damaged.
    refuse(
        StudyError(f"{kind} in a series of CT slices", file, REFETCH)
        for (file, dataset), kind in zip(found, kinds, strict=True)
        if kind not in ("", LOCALIZER) and text(dataset, "SeriesInstanceUID") in ours
    )
    others = Counter(filter(None, kinds))
    return slices, [f"set aside: {kind} ({n} files)" for kind, n in sorted(others.items())]


def _kinds(found: Slices) -> list[str]:
    """What each file is, if not a CT slice: another modality, a localizer, without positions."""
    kinds = [_other_kind(dataset) for _, dataset in found]
    series = [text(dataset, "SeriesInstanceUID") for _, dataset in found]
    placed = {
        uid
        for (_, dataset), uid, kind in zip(found, series, kinds, strict=True)
        if not kind and text(dataset, "ImagePositionPatient")
    }
    if not placed:
        return kinds
    return [
        kind or ("" if uid in placed or not uid else NO_POSITION)
        for uid, kind in zip(series, kinds, strict=True)
    ]


def _other_kind(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality not in ("", "CT"):
        return f"an object of modality {_code(modality)}"
    return LOCALIZER if "LOCALIZER" in text(dataset, "ImageType").upper() else ""


def _code(value: str) -> str:
    """The value if it looks like a defined term of the standard; free text is not repeated."""
    return value if re.fullmatch(r"[A-Z0-9_ ]{2,16}", value) else "unknown"


def _one_series(folder: Path, slices: Slices, series: str | None) -> tuple[Slices, str]:
    """The files of the only series, or of the one chosen by `series`; and its number."""
    refuse(
        StudyError("no SeriesInstanceUID: cut short, or not an image", file, REFETCH)
        for file, dataset in slices
        if not text(dataset, "SeriesInstanceUID")
    )
    found: dict[str, Slices] = {}
    for file, dataset in slices:
        found.setdefault(text(dataset, "SeriesInstanceUID"), []).append((file, dataset))
    numbers = {uid: str(number) for number, uid in enumerate(sorted(found), 1)}
    listing = {numbers[uid]: found[uid] for uid in sorted(found)}
    number = "1" if series is None else numbers.get(series, series.partition(".")[0])
    if number not in listing:
        raise StudyError("no such series", folder, _choice(listing))
    if series is None and len(found) == len(slices) > 1:
        raise StudyError(
            f"{len(found)} series of one file each, as some exports write a single series",
            folder,
            f"give them one UID: {dcmodify('-m SeriesInstanceUID=1.2.3', folder)}",
        )
    if series is None and len(found) > 1:
        raise StudyError(f"{len(found)} series in one folder", folder, _choice(listing))
    return listing[number], number


def _one_acquisition(folder: Path, slices: Slices, number: str, series: str | None) -> Slices:
    """The slices of the only acquisition of series `number`, or of the one chosen by `series`."""
    z_mm = read_positions(slices)[:, 2]
    groups, tag = acquisitions([dataset for _, dataset in slices], z_mm)
    if len(groups) == 1:
        return slices
    listing = {f"{number}.{k}": [slices[i] for i in g] for k, g in enumerate(groups, 1)}
    is_uid = series == text(slices[0][1], "SeriesInstanceUID")
    if is_uid or series not in listing:
        raise StudyError(
            f"{len(groups)} acquisitions share one series, told apart by {tag}: their slices would "
            "make one false volume",
            folder,
            _choice(listing, tag),
        )
    return listing[series]


def _choice(listing: dict[str, Slices], order: str = "UID") -> str:
    """The way out where there are several series or acquisitions, by number, in some order."""
    names = []
    for number, members in listing.items():
        dataset = members[0][1]
        about = [f"{len(members)} files"]
        if thickness := text(dataset, "SliceThickness"):
            about.append(f"{thickness} mm")
        if kernel := text(dataset, "ConvolutionKernel"):
            about.append(f"kernel {kernel}")
        names.append(f"SERIES={number} ({', '.join(about)})")
    return f"choose one (they are in the order of {order}): {', '.join(names)}"


def _faults(file: Path, dataset: Dataset) -> Iterator[StudyError]:
    """An error if a file is not a single-frame CT image in Hounsfield units."""
    photometric = text(dataset, "PhotometricInterpretation")
    if text(dataset, "NumberOfFrames") not in ("", "1"):
        yield StudyError("a multi-frame file", file, "convert it to single-frame files")
    elif missing := [name for name, tag in IMAGE_TAGS.items() if _lacks(dataset, name, tag)]:
        yield StudyError(f"the tag {missing[0]} is missing", file)
    elif photometric != "MONOCHROME2":
        yield StudyError(
            f"the photometric interpretation is {_code(photometric)}, not MONOCHROME2", file
        )


def _lacks(dataset: Dataset, name: str, tag: Tag) -> bool:
    return name in NEEDED and (tag not in dataset or dataset[tag].is_empty)


def _unpack(folder: Path) -> str:
    return f"unpack them: gunzip -r {shlex.quote(printable(folder))}"


def _without_copies(folder: Path, slices: Slices) -> tuple[Slices, list[str]]:
    """Each slice once: byte-for-byte copies of another file are left out."""
    seen, kept, faults = {}, [], []
    for file, dataset in slices:
        uid = text(dataset, "SOPInstanceUID")
        if uid not in seen:
            kept.append((file, dataset))
        elif not filecmp.cmp(seen[uid], file, shallow=False):
            faults.append(
                StudyError(
                    "another file has the same SOPInstanceUID",
                    file,
                    f"remove one, or give each its own: {dcmodify('-gin', folder)}",
                )
            )
        seen.setdefault(uid, file)
    refuse(faults)
    copies = len(slices) - len(kept)
    return kept, [f"{copies} files are copies of others: left out"] if copies else []
