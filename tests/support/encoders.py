"""Write CT slices in every transfer syntax that the kit reads, for the tests.

GDCM encodes most syntaxes, so that writer and reader are different libraries; imagecodecs encodes
the lossy ones.
"""

from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

NATIVE = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)  # fmt: skip
# GDCM's names, and encoders of unsigned 12 bit (8 bit for .50) with their largest error.
BY_GDCM = {
    RLELossless: gdcm.TransferSyntax.RLELossless,
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}
LOSSY = {
    JPEGBaseline8Bit: (lambda x: imagecodecs.jpeg8_encode(x.astype(np.uint8), level=98), 8),
    JPEGExtended12Bit: (lambda x: imagecodecs.jpeg8_encode(x, level=98, bitspersample=12), 60),
    JPEGLSNearLossless: (lambda x: imagecodecs.jpegls_encode(x, level=2), 2),
    JPEG2000: (
        lambda x: imagecodecs.jpeg2k_encode(
            x, level=60, codecformat="j2k", reversible=False, bitspersample=12
        ),
        60,
    ),
}
SYNTAXES = (*NATIVE, *BY_GDCM, *LOSSY)


def write_slice(path: Path, pixels: np.ndarray, syntax: UID, z_mm: float = 0.0, **tags) -> None:
    """Write one CT slice of stored values (Y, X); HU are stored values minus 1024.

    Args:
        pixels: in [0, 4095], and in [0, 255] for the 8 bits of JPEG baseline.
        tags: replace attributes.
    """
    bits = 8 if syntax == JPEGBaseline8Bit else 16
    signed = syntax not in LOSSY
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in BY_GDCM else syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{round(z_mm * 10)}"
    dataset = Dataset()
    dataset.file_meta = meta
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.4",
        "SeriesInstanceUID": "1.2.5",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": 12 if syntax in LOSSY and bits == 16 else bits,
        "HighBit": (12 if syntax in LOSSY and bits == 16 else bits) - 1,
        "PixelRepresentation": int(signed),
        "PixelSpacing": [0.7, 0.7],
        "ImagePositionPatient": [-100.0, -200.0, z_mm],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    for name, value in (values | tags).items():
        setattr(dataset, name, value)
    if syntax in LOSSY:
        dataset.PixelData = encapsulate([LOSSY[syntax][0](pixels.astype(np.uint16))])
    else:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        dataset.PixelData = pixels.astype(f"{order}i2").tobytes()
    dataset["PixelData"].VR = "OB" if syntax in LOSSY else "OW"
    dataset.save_as(path, enforce_file_format=True)
    if syntax in BY_GDCM:
        compress(path, BY_GDCM[syntax])


def write_chest(folder: Path, **tags) -> list[Path]:
    """Eight slices that pass the audit: air around noisy tissue, and a bit of bone."""
    hu = np.random.default_rng(0).normal(40, 20, (8, 60, 70)).astype(np.int16)
    hu[:, :10], hu[:, 30:35, 30:40] = -1000, 500
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"DOE_{z}.dcm" for z in range(8)]
    for z, file in enumerate(files):
        write_slice(file, hu[z] + 1024, ExplicitVRLittleEndian, 5.0 * z, **tags)
    return files


def compress(path: Path, syntax: int) -> None:
    """Rewrite a file in another transfer syntax with GDCM."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def replace_stream(dataset: Dataset, stream: bytes) -> None:
    """Replace the compressed frame, with valid encapsulation."""
    dataset.PixelData = encapsulate([stream])
