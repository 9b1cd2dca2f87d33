"""Read a folder of DICOM files as one CT series: a Volume in Hounsfield units and LPS axes.

    read_series(folder)     the whole series
    open_series(folder)     its headers only, with the same checks, as for an audit of headers

Slices are sorted by their position along the patient's axis, never by file name or InstanceNumber.
A file that cannot be read faithfully is refused with a StudyError that names it; no slice is
replaced by zeros.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.uid import UID

from data_prep.dicom.decode import decode, is_lossy
from data_prep.dicom.files import NEEDED, Slices, ct_slices, read_files, text
from data_prep.dicom.geometry import read_geometry, read_numbers, read_spacing
from data_prep.errors import StudyError, refuse
from data_prep.volume import PADDING, Orientation, Volume, to_hu
from pekit.dataset.schema import AIR_HU

# Range of tissue; a PixelPaddingValue inside it would erase tissue and is not used.
TISSUE_HU = (-900, 3000)


@dataclass(frozen=True)
class Series:
    """The headers of one CT series, checked and in z order.

    Attributes:
        slices: files with their headers.
        shape: (Z, Y, X) that the volume will have.
        syntaxes: keywords of the transfer syntaxes in use.

    The other attributes are those of a Volume.
    """

    slices: Slices
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]
    notes: tuple[str, ...]
    repairs: tuple[str, ...]
    missing_slices: int
    z_mm: np.ndarray
    orientation: Orientation
    syntaxes: tuple[str, ...]


def open_series(folder: Path, series: str | None = None, pixels: bool = False) -> Series:
    """Read the headers of the CT series in `folder` and its subfolders; no pixels are read.

    Args:
        folder: DICOM files in any order and nesting.
        series: which series to read, if the folder holds several, as the refusal numbers them
            ("2", or "1.2" for an acquisition), or its SeriesInstanceUID.
        pixels: keep access to the pixel data, for `read_series`.

    Raises:
        StudyError: no DICOM file, several series or acquisitions, a damaged header, slices that do
            not form a single stack, or images that are not axial single-frame CT. The message names
            the file, or all files with the same fault.
    """
    folder = Path(folder)
    with _quietly():  # the data set's 12-hex-digit UIDs are not valid UIDs
        slices, notes, repairs = ct_slices(folder, series, pixels)
        geometry = read_geometry(slices)
        order = np.argsort(geometry.position_mm[:, 0], kind="stable")
        slices = [slices[i] for i in order]
        position = geometry.position_mm[order]
        spacing = read_spacing(slices, position[:, 0])
        first = slices[0][1]
        if geometry.orientation != Orientation():
            repairs.append("rows or columns turned to LPS")
        if any(is_lossy(dataset) for _, dataset in slices):
            notes.append("lossy compression")
        return Series(
            slices=slices,
            shape=(len(slices), *_lps_size(geometry.rows, geometry.columns, geometry.orientation)),
            spacing_mm=(spacing.step_mm, *geometry.spacing_mm),
            origin_mm=tuple(position[0].tolist()),
            study_uid=str(first.StudyInstanceUID),
            series_uid=str(first.SeriesInstanceUID),
            sop_uids=tuple(str(dataset.SOPInstanceUID) for _, dataset in slices),
            notes=(*notes, *spacing.notes),
            repairs=tuple(repairs),
            missing_slices=int(spacing.missing.sum()),
            z_mm=position[:, 0],
            orientation=geometry.orientation,
            syntaxes=tuple(sorted({_syntax(dataset) for _, dataset in slices})),
        )


def read_series(folder: Path, series: str | None = None) -> Volume:
    """Read the CT series in `folder` and its subfolders; arguments as for `open_series`.

    Raises:
        StudyError: as for `open_series`, or pixels that cannot be decoded.
    """
    headers = open_series(folder, series, pixels=True)
    hu, padding_notes, faults = None, set(), []
    with _quietly():
        for z, (file, dataset) in enumerate(headers.slices):
            try:
                pixels, note = _decode(file, dataset)
            except StudyError as error:  # the others are read on, to name all that are damaged
                faults.append(error)
                continue
            if hu is None:  # only after the first pixels have confirmed the size
                hu = np.empty(headers.shape, np.int16)
            hu[z] = headers.orientation.to_lps(pixels)
            padding_notes |= note
    refuse(faults)
    return Volume(
        hu=hu,
        spacing_mm=headers.spacing_mm,
        origin_mm=headers.origin_mm,
        study_uid=headers.study_uid,
        series_uid=headers.series_uid,
        sop_uids=headers.sop_uids,
        notes=(*headers.notes, *sorted(padding_notes)),
        repairs=headers.repairs,
        missing_slices=headers.missing_slices,
        z_mm=headers.z_mm,
        syntaxes=headers.syntaxes,
        orientation=headers.orientation,
    )


def read_headers(folder: Path) -> pd.DataFrame:
    """Headers of the DICOM files in `folder` as they are: one row per file, all values text.

    Columns: file, TransferSyntax (its keyword), NumberOfFrames, ImageType and those of NEEDED.

    Raises:
        StudyError: no DICOM file there, or a file that is not DICOM.
    """
    with _quietly():
        return pd.DataFrame(
            {
                "file": str(file),
                "TransferSyntax": _syntax(dataset),
                **{name: text(dataset, name) for name in ("NumberOfFrames", "ImageType", *NEEDED)},
            }
            for file, dataset in read_files(Path(folder), pixels=False)[0]
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let pydicom take any value and say nothing: a warning would quote paths and tags."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _lps_size(rows: int, columns: int, orientation: Orientation) -> tuple[int, int]:
    return (columns, rows) if orientation.transposed else (rows, columns)


def _syntax(dataset: Dataset) -> str:
    return UID(dataset.file_meta.get("TransferSyntaxUID", "")).keyword or "unknown"


def _decode(file: Path, dataset: Dataset) -> tuple[np.ndarray, set[str]]:
    """Pixels (Y, X) int16 HU of one file, with padding set to air; and notes."""
    slope, intercept = (read_numbers(file, dataset, f"Rescale{name}", 1)[0]
                        for name in ("Slope", "Intercept"))  # fmt: skip
    if slope <= 0:
        raise StudyError(f"RescaleSlope is {slope:g}, must be positive", file)
    stored = decode(file, dataset)
    whole = slope == round(slope) and intercept == round(intercept)
    number = np.int32 if whole else np.float32
    hu = stored.astype(number)
    hu *= number(slope)
    hu += number(intercept)
    padding, notes = _padding(dataset, stored.dtype), set()
    if padding is not None:
        low, high = (limit * slope + intercept for limit in padding)
        if low < TISSUE_HU[1] and high > TISSUE_HU[0]:
            notes = {f"PixelPaddingValue {padding[0]} is a tissue value: not used as padding"}
        else:
            hu[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU
    del dataset.PixelData  # not kept beside the volume
    try:
        plane, padded = to_hu(hu)
    except ValueError as error:
        raise StudyError(str(error), file) from None
    return plane, notes | ({PADDING} if padded else set())


def _padding(dataset: Dataset, dtype: np.dtype) -> tuple[int, int] | None:
    """Lowest and highest stored value that the tags call padding, or None.

    Writers give the tags the wrong sign: their 16 bits are read as the pixels are.
    """
    tags = (dataset.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit"))
    values = [tag for tag in tags if isinstance(tag, int) and -(1 << 15) <= tag < 1 << 16]
    if not values or not isinstance(dataset.get("PixelPaddingValue"), int):
        return None
    stored = [int(np.array(value & 0xFFFF, np.uint16).astype(dtype)) for value in values]
    return min(stored), max(stored)
