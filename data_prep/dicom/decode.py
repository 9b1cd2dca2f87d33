"""Decode the pixel data of one DICOM file to its stored values, or raise an error if damaged.

All compressed syntaxes are decoded by imagecodecs: it reads them all, is the fastest at lossless
JPEG and detects damage about as often as other decoders. No decoder reports damage inside JPEG
data, and some crash on a wrong offset or size, so the stream is checked before decoding
(codestream) and after it (jpeg_audit).

Not detected are flipped bits that give another valid image: any bit of uncompressed pixels, literal
bytes in RLE, values within a JPEG code, and nearly all of JPEG 2000, which has no checksum. Such a
slice may still differ from its neighbours (audit/continuity.py).
"""

import contextlib
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
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
)  # fmt: skip

from data_prep.dicom.codestream import (
    END,
    FILL,
    LOSSLESS,
    DamagedStream,
    check_rle,
    codestream_of,
    read_jpeg,
    read_jpeg2000,
)
from data_prep.dicom.jpeg_audit import check_lossless, check_lossy
from data_prep.errors import StudyError, brief

NATIVE = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)  # fmt: skip
# Function that reads the header of a frame, and imagecodecs' function that decodes it.
COMPRESSED = {
    RLELossless: (None, "dicomrle_decode"),
    JPEGBaseline8Bit: (read_jpeg, "jpeg8_decode"),
    JPEGExtended12Bit: (read_jpeg, "jpeg8_decode"),
    JPEGLossless: (read_jpeg, "jpeg8_decode"),
    JPEGLosslessSV1: (read_jpeg, "jpeg8_decode"),
    JPEGLSLossless: (read_jpeg, "jpegls_decode"),
    JPEGLSNearLossless: (read_jpeg, "jpegls_decode"),
    JPEG2000Lossless: (read_jpeg2000, "jpeg2k_decode"),
    JPEG2000: (read_jpeg2000, "jpeg2k_decode"),
}
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)
REFETCH = "download it again, or move it out of the folder"


def decode(file: Path, dataset: Dataset) -> np.ndarray:
    """Stored values (Y, X) of a single-frame file: int8, uint8, int16 or uint16, before rescale.

    Args:
        file: its path, for messages.
        dataset: as from pydicom.dcmread.

    Raises:
        StudyError: an unsupported transfer syntax, tags that contradict the pixels, or damaged
            pixels.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in (*NATIVE, *COMPRESSED):
        if not syntax:
            raise StudyError("compressed pixels without a transfer syntax", file, REFETCH)
        name = UID(syntax).name
        raise StudyError(f"the transfer syntax {name} is not supported", file, "convert the file")
    rows, columns, allocated, stored, signed = _layout(file, dataset)
    dtype = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    try:
        data = dataset.PixelData
        if not isinstance(data, bytes):
            raise DamagedStream("the pixel data are not bytes")
        if syntax in NATIVE:
            size = rows * columns * dtype.itemsize
            if len(data) != size + size % 2:
                raise DamagedStream(f"{len(data)} bytes instead of {size + size % 2}")
            options = {"raw": True, "correct_unused_bits": False}
            pixels, _ = get_decoder(syntax).as_array(dataset, **options)
        else:
            stream = next(generate_frames(data, number_of_frames=1))
            pixels, bits = _decompress(stream, syntax, (rows, columns), dtype)
            stored = min(bits, stored)
        pixels = pixels.astype(dtype, copy=False)
        return _without_unused_bits(pixels, stored, _overlay_bits(dataset))
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise StudyError(f"the pixels cannot be decoded ({brief(error)})", file, REFETCH) from error


def is_lossy(dataset: Dataset) -> bool:
    """Whether the image was compressed with loss, now (by its syntax) or earlier (by its tag).

    JPEG 2000 (.91) may be either; it counts as lossy unless the tag says that it is not.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    said = str(dataset.get("LossyImageCompression", ""))
    return said == "01" or (syntax in LOSSY and not (syntax == JPEG2000 and said == "00"))


def _layout(file: Path, dataset: Dataset) -> tuple[int, int, int, int, bool]:
    """Rows, columns, bits allocated and stored, and whether values are signed."""
    values = {}
    allowed = {
        "Rows": range(1, 1 << 16), "Columns": range(1, 1 << 16), "BitsAllocated": (8, 16),
        "BitsStored": range(1, 17), "PixelRepresentation": (0, 1), "SamplesPerPixel": (1,),
    }  # fmt: skip
    for name, good in allowed.items():
        values[name] = dataset.get(name)
        if not isinstance(values[name], int) or values[name] not in good:
            raise StudyError(f"the tag {name} has no value that a CT slice can have", file)
    rows, columns, allocated, stored, signed, _ = values.values()
    if stored > allocated:
        raise StudyError(f"{stored} bits stored in {allocated} allocated", file)
    return rows, columns, allocated, stored, bool(signed)


def _overlay_bits(dataset: Dataset) -> int:
    """The bits of a pixel that hold overlays, as was legal until 2004: groups 6000 to 601E."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    places = (element.value for element in positions if element is not None)
    return sum(1 << place for place in {p for p in places if isinstance(p, int) and 0 < p < 16})


def _without_unused_bits(pixels: np.ndarray, stored: int, overlays: int) -> np.ndarray:
    """Keep the lower `stored` bits of each pixel, with their sign.

    Raises:
        DamagedStream: the bits above them are neither zeros nor the sign nor `overlays`.
    """
    unused = 8 * pixels.itemsize - stored
    if unused:
        used = pixels << unused >> unused
        bits = pixels.view(f"u{pixels.itemsize}")
        if overlays >> stored:
            bits = bits & np.array(~overlays & (1 << 8 * pixels.itemsize) - 1, bits.dtype)
        if (used != pixels).any() and bits.max() >> stored:
            raise DamagedStream(f"values beyond the {stored} bits of BitsStored")
        pixels = used
    return pixels


def _decompress(stream: bytes, syntax: UID, shape: tuple[int, int], dtype: np.dtype):
    """Decode one compressed frame: pixels (Y, X) of `dtype`, and the number of bits in use.

    Raises:
        DamagedStream: the stream is damaged; or any exception of the decoder.
    """
    import imagecodecs

    if syntax == RLELossless:
        check_rle(stream, dtype.itemsize)
        return _decode_rle(stream, shape, dtype.newbyteorder("<")), 8 * dtype.itemsize
    read_header, codec = COMPRESSED[syntax]
    stream = codestream_of(stream)
    frame = read_header(stream)
    if (frame.rows, frame.columns, frame.samples) != (*shape, 1):
        raise DamagedStream(f"it holds {frame.rows}x{frame.columns}x{frame.samples} samples")
    if not 1 < frame.precision <= 8 * dtype.itemsize:
        raise DamagedStream(f"its samples have {frame.precision} bits")
    if codec == "jpeg2k_decode":
        stream = stream[: frame.data[1]] + END  # OpenJPEG insists on the end marker
    pixels = getattr(imagecodecs, codec)(stream)
    if pixels.shape != shape:
        raise DamagedStream(f"it was decoded to {pixels.shape} pixels")
    if frame.kind == LOSSLESS:
        check_lossless(stream, frame, pixels.astype(np.uint16, copy=False))
    elif codec == "jpeg8_decode":
        check_lossy(stream, frame)
    # JPEG has no sign, and JPEG 2000's may differ from PixelRepresentation.
    pixels = pixels.astype(f"{pixels.dtype.kind}{dtype.itemsize}", copy=False).view(dtype)
    return pixels, 8 * dtype.itemsize if codec == "jpeg8_decode" else frame.precision


def _decode_rle(stream: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Pixels (Y, X) of an RLE frame. Fill bytes after its last code would be codes as well."""
    import imagecodecs

    end = len(stream.rstrip(FILL))
    # Codes may end in fill bytes of their own: at most a literal run of 128 bytes.
    for stop in (len(stream), *range(end, min(end + 129, len(stream)))):
        with contextlib.suppress(imagecodecs.DicomrleError):
            pixels = np.frombuffer(imagecodecs.dicomrle_decode(stream[:stop], dtype), dtype)
            if pixels.size == shape[0] * shape[1]:
                return pixels.reshape(shape)
    raise DamagedStream(f"its codes are not those of {shape[0] * shape[1]} pixels")
