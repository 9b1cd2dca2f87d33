"""Damage a DICOM file by random seed: bits, lengths, tags and structure.

`mutate(data, seed, kind)` always makes the same damage for the same seed. A deflated file is
inflated, damaged and deflated again, so that its tags are damaged too.
"""

import io
import struct
import zlib

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian

NAN, HUGE = "nan", "1e300"
ABSURD = (
    {"Rows": 65535}, {"Columns": 65535}, {"Rows": 65535, "Columns": 65535}, {"Rows": 0},
    {"BitsAllocated": 1}, {"BitsAllocated": 32}, {"BitsAllocated": 8}, {"BitsStored": 0},
    {"BitsStored": 3}, {"HighBit": 99}, {"SamplesPerPixel": 3}, {"PixelRepresentation": 7},
    {"NumberOfFrames": 100000}, {"NumberOfFrames": -1}, {"PlanarConfiguration": 9},
    {"PixelSpacing": [-0.7, -0.7]}, {"PixelSpacing": [NAN, NAN]}, {"PixelSpacing": [HUGE, HUGE]},
    {"ImagePositionPatient": [NAN, NAN, NAN]}, {"ImagePositionPatient": [-100, -200, HUGE]},
    {"ImagePositionPatient": [0, 0]}, {"ImagePositionPatient": [-100, -200, 400]},
    {"ImageOrientationPatient": [0] * 6}, {"ImageOrientationPatient": [NAN] * 6},
    {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, {"RescaleSlope": 0}, {"RescaleSlope": -1},
    {"RescaleSlope": HUGE}, {"RescaleSlope": "1e-300"}, {"RescaleSlope": NAN},
    {"RescaleIntercept": HUGE}, {"RescaleIntercept": "-inf"},
    {"PhotometricInterpretation": "PALETTE COLOR"}, {"PhotometricInterpretation": "YBR_FULL_422"},
    {"Modality": "X" * 3000}, {"ImageType": ["A"] * 500}, {"SpecificCharacterSet": "nonsense"},
    {"StudyInstanceUID": ""}, {"SeriesInstanceUID": ""}, {"SOPInstanceUID": ""},
    {"SeriesInstanceUID": "../../x"}, {"SOPInstanceUID": "1." * 300}, {"FloatPixelData": bytes(8)},
    {"LossyImageCompression": "?"}, {"ExtendedOffsetTable": bytes(8)},
)  # fmt: skip
VRS = b"AE AS CS DA DS FD FL IS LO OB OW SQ SS UI UL UN US UT ZZ \0\0 \xff\xff".split(b" ")
LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")


def mutate(data: bytes, seed: int, kind: str) -> bytes:
    """The bytes of a DICOM file, with damage that depends on seed and kind."""
    rng = np.random.default_rng(seed)
    if kind == "truncate":
        return data[: rng.integers(len(data))]
    if kind in ("remove a tag", "absurd tag"):
        return _with_other_tags(data, rng, kind)
    start = 144 + int.from_bytes(data[140:144], "little")  # after the file meta information
    dataset = pydicom.dcmread(io.BytesIO(data))
    meta, body = data[:start], bytearray(data[start:])
    deflated = dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    if deflated and rng.random() < 0.7:
        body, start = bytearray(zlib.decompress(body, -zlib.MAX_WBITS)), 0
    elif deflated:
        return meta + _with_flips(body, rng, 0, len(body))
    body = bytes(_KINDS[kind](body, rng, dataset, start))
    if deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    return meta + body


def _with_other_tags(data: bytes, rng, kind: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    if kind == "absurd tag":
        set_absurd(dataset, ABSURD[rng.integers(len(ABSURD))])
    else:
        del dataset[list(dataset.keys())[rng.integers(len(dataset))]]
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def set_absurd(dataset: pydicom.Dataset, tags: dict) -> None:
    """Set tags to values that pydicom would refuse."""
    with pydicom.config.disable_value_validation():
        for name, value in tags.items():
            setattr(dataset, name, value)


def _with_flips(body: bytearray, rng, low: int, high: int) -> bytearray:
    for at in rng.integers(low, max(high, low + 1), rng.choice([1, 4, 32])):
        body[min(at, len(body) - 1)] ^= 1 << int(rng.integers(8))
    return body


def _pixels_at(dataset, start: int) -> int:
    return dataset.get_item("PixelData").value_tell - start


def _flip_header(body, rng, dataset, start):
    return _with_flips(body, rng, 0, _pixels_at(dataset, start))


def _flip_pixels(body, rng, dataset, start):
    return _with_flips(body, rng, _pixels_at(dataset, start), len(body))


def _flip_frame_header(body, rng, dataset, start):
    at = _pixels_at(dataset, start)
    return _with_flips(body, rng, at, min(at + 150, len(body)))


def _zero(body, rng, low: int, high: int):
    at = int(rng.integers(low, high))
    size = min(int(rng.choice([2, 16, 200, 3000])), high - at)
    body[at : at + size] = bytes(size)
    return body


def _zero_header(body, rng, dataset, start):
    return _zero(body, rng, 0, _pixels_at(dataset, start))


def _zero_pixels(body, rng, dataset, start):
    return _zero(body, rng, _pixels_at(dataset, start), len(body))


def _some_element(rng, dataset, start):
    """Offsets of a value, its length field and its VR (None if implicit); size of the length."""
    elements = [e for e in map(dataset.get_item, dataset.keys()) if isinstance(e, RawDataElement)]
    element = elements[rng.integers(len(elements))]
    at = element.value_tell - start
    if dataset.original_encoding[0]:
        return at, at - 4, None, 4
    return (at, at - 4, at - 8, 4) if element.VR in LONG_VRS else (at, at - 2, at - 4, 2)


def _wrong_vr(body, rng, dataset, start):
    _, _, vr, _ = _some_element(rng, dataset, start)
    if vr is None:
        return _wrong_length(body, rng, dataset, start)
    body[vr : vr + 2] = VRS[rng.integers(len(VRS))].ljust(2)
    return body


def _wrong_length(body, rng, dataset, start):
    _, at, _, size = _some_element(rng, dataset, start)
    value = int(rng.choice([0, 1, 3, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))
    order = "little" if dataset.original_encoding[1] else "big"
    body[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, order)
    return body


def _nest(body, rng, dataset, start):
    """Nested sequences, so deep that naive readers overflow the stack."""
    implicit, little = dataset.original_encoding
    depth, order = int(rng.choice([1, 20, 3000])), "<" if little else ">"
    tag = struct.pack(f"{order}HH", 0x0040, 0xA730)
    item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    size = struct.pack(f"{order}I", 0xFFFFFFFF)
    opening = tag + (b"" if implicit else b"SQ\0\0") + size + item
    closing = struct.pack(f"{order}HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    _, length, vr, _ = _some_element(rng, dataset, start)
    at = (length if vr is None else vr) - 4
    return body[:at] + opening * depth + closing * (depth * int(rng.integers(2))) + body[at:]


def _splice(body, rng, dataset, start):
    """Insert a copy of a piece of the file, or random bytes."""
    at, size = int(rng.integers(len(body))), int(rng.choice([1, 2, 8, 100]))
    piece = body[at : at + size] if rng.random() < 0.5 else rng.bytes(size)
    return body[:at] + piece + body[at:]


_KINDS = {
    "flip header": _flip_header, "flip pixels": _flip_pixels,
    "flip frame header": _flip_frame_header, "zero header": _zero_header,
    "zero pixels": _zero_pixels, "wrong VR": _wrong_vr, "wrong length": _wrong_length,
    "nest": _nest, "splice": _splice,
}  # fmt: skip
KINDS = (*_KINDS, "truncate", "remove a tag", "absurd tag")
