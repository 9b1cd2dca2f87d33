"""Write a phantom as DICOM files whose headers vary like those of the RSNA data.

Of the real files about 70 % are implicit VR little endian, 22 % explicit VR and 8 % JPEG Lossless
(1.2.840.10008.1.2.4.70). Their UIDs are 12 hex digits, the order of file names, and often that of
InstanceNumber, is not that of z, and corners outside the scan circle may hold -2000 HU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from data_prep.phantom.phantom import Phantom

PADDING_HU = -2000
SYNTAXES = {ImplicitVRLittleEndian: 0.70, ExplicitVRLittleEndian: 0.22, JPEGLosslessSV1: 0.08}
# (slope, intercept, signed, share of the series) of the conversion from HU to stored values.
_RESCALES = (
    (1.0, -1024.0, False, 0.30),
    (1.0, 0.0, True, 0.35),
    (1.0, -1024.0, True, 0.20),
    (2.0, -1024.0, True, 0.08),
    (0.5, -1000.0, True, 0.07),
)


@dataclass(frozen=True)
class HeaderStyle:
    """Encoding of one series.

    Attributes:
        syntax: transfer syntax UID.
        slope, intercept: HU = slope * stored + intercept.
        signed: whether stored values are signed.
        padded: corners outside the scan circle hold -2000 HU, or stored value 0 if unsigned.
        numbering: InstanceNumber is "down" (1 at the head), "up" or "shuffled".
        manufacturer: "" leaves the element out.
    """

    syntax: str
    slope: float
    intercept: float
    signed: bool
    padded: bool
    numbering: str
    manufacturer: str


def draw_style(rng: np.random.Generator) -> HeaderStyle:
    """Draw a header style with the frequencies of the real data."""
    syntax = list(SYNTAXES)[rng.choice(len(SYNTAXES), p=list(SYNTAXES.values()))]
    slope, intercept, signed, _ = _RESCALES[rng.choice(len(_RESCALES), p=[r[3] for r in _RESCALES])]
    return HeaderStyle(
        syntax=str(syntax),
        slope=slope,
        intercept=intercept,
        signed=signed,
        padded=bool(rng.random() < 0.35),
        numbering=str(rng.choice(["down", "up", "shuffled"], p=[0.6, 0.25, 0.15])),
        manufacturer="PHANTOM" if rng.random() < 0.08 else "",
    )


def write_series(
    folder: Path,
    phantom: Phantom,
    style: HeaderStyle,
    uids: tuple[str, str, Sequence[str]],
    rng: np.random.Generator,
    skip: frozenset[int] = frozenset(),
) -> None:
    """Write one file per slice, `folder`/<SOPInstanceUID>.dcm.

    Args:
        folder: an existing, empty folder.
        phantom: the study.
        style: its encoding.
        uids: study UID, series UID, and the SOP UIDs in z order.
        rng: shuffles InstanceNumber if the style asks for it.
        skip: z indices of slices to leave out.

    Raises:
        OSError: a file cannot be written.
    """
    study, series, sops = uids
    stored = _stored_values(phantom, style)
    numbers = np.arange(1, len(sops) + 1)
    if style.numbering == "down":
        numbers = numbers[::-1]
    elif style.numbering == "shuffled":
        rng.shuffle(numbers)
    dataset = _common_header(phantom, style, study, series)
    origin, spacing = phantom.origin_mm, phantom.spacing_mm
    # Anonymised UIDs of 12 hex digits are not valid DICOM UIDs.
    with pydicom_config.disable_value_validation():
        for z, sop in enumerate(sops):
            if z in skip:
                continue
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
            dataset.InstanceNumber = int(numbers[z])
            position = (origin[2], origin[1], origin[0] + z * spacing[0])
            dataset.ImagePositionPatient = [f"{value:.4f}" for value in position]
            if style.syntax == JPEGLosslessSV1:
                dataset.PixelData = encapsulate([_jpeg_lossless(stored[z])])
                dataset["PixelData"].is_undefined_length = True
            else:
                dataset.PixelData = stored[z].tobytes()
            dataset.save_as(folder / f"{sop}.dcm", enforce_file_format=True)


def _common_header(phantom: Phantom, style: HeaderStyle, study: str, series: str) -> Dataset:
    """The elements that all slices of a series share."""
    spacing = phantom.spacing_mm
    with pydicom_config.disable_value_validation():
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.TransferSyntaxUID = style.syntax
        dataset.SOPClassUID = CTImageStorage
        dataset.Modality = "CT"
        if style.manufacturer:
            dataset.Manufacturer = style.manufacturer
        dataset.PatientName = ""
        dataset.PatientID = ""
        dataset.SliceThickness = f"{spacing[0]:.4f}"
        dataset.KVP = "100"
        dataset.PatientPosition = "HFS"
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = series
        dataset.FrameOfReferenceUID = series
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.Rows, dataset.Columns = phantom.hu.shape[1:]
        dataset.PixelSpacing = [f"{spacing[1]:.4f}", f"{spacing[2]:.4f}"]
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = int(style.signed)
        if style.padded:
            padding = _padding(style)
            dataset.add_new("PixelPaddingValue", "SS" if style.signed else "US", padding)
        dataset.WindowCenter, dataset.WindowWidth = "100", "700"
        dataset.RescaleIntercept = f"{style.intercept:g}"
        dataset.RescaleSlope = f"{style.slope:g}"
        dataset.add_new("PixelData", "OB" if style.syntax == JPEGLosslessSV1 else "OW", b"")
    return dataset


def _padding(style: HeaderStyle) -> int:
    """Stored value of the padding; unsigned values cannot be below the intercept."""
    return round((PADDING_HU - style.intercept) / style.slope) if style.signed else 0


def _stored_values(phantom: Phantom, style: HeaderStyle) -> np.ndarray:
    """Stored values (Z, Y, X), little-endian 16 bit, of the phantom's HU."""
    kind = "<i2" if style.signed else "<u2"
    stored = np.rint((phantom.hu - np.float32(style.intercept)) / np.float32(style.slope))
    stored = stored.astype(kind)
    if style.padded:
        rows, columns = phantom.hu.shape[1:]
        v = (np.arange(rows) - (rows - 1) / 2)[:, None] / (rows / 2)
        u = (np.arange(columns) - (columns - 1) / 2)[None] / (columns / 2)
        stored[:, v * v + u * u > 1] = _padding(style)
    return stored


def _jpeg_lossless(image: np.ndarray) -> bytes:
    """One slice (Y, X), 16 bit, as a JPEG Lossless (process 14, selection value 1) frame."""
    writer = gdcm.ImageWriter()  # its GetImage() is the only way to a gdcm.Image from Python
    raw = writer.GetImage()
    raw.SetNumberOfDimensions(2)
    raw.SetDimensions((image.shape[1], image.shape[0], 1))
    monochrome = gdcm.PhotometricInterpretation.MONOCHROME2
    raw.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
    raw.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    raw.SetPixelFormat(gdcm.PixelFormat(1, 16, 16, 15, int(image.dtype.kind == "i")))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(image.tobytes())
    raw.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(raw)
    if not change.Change():
        raise RuntimeError(f"gdcm could not compress a slice of shape {image.shape}")
    fragment = change.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0)
    frame = fragment.GetByteValue().GetBuffer()
    return frame.encode("utf-8", "surrogateescape") if isinstance(frame, str) else frame
