"""Every syntax decodes to the written values; damaged streams are errors, not images."""

import re
import struct

import imagecodecs
import numpy as np
import pydicom
import pytest
from encoders import BY_GDCM, LOSSY, NATIVE, SYNTAXES, replace_stream, write_slice
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data_prep.dicom.codestream import DamagedStream, read_jpeg
from data_prep.dicom.decode import decode, is_lossy
from data_prep.dicom.jpeg_audit import check_lossless
from data_prep.errors import StudyError

JPEG_SYNTAXES = (JPEGLossless, JPEGLosslessSV1, JPEGBaseline8Bit, JPEGExtended12Bit)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """(Y, X) stored values with smooth parts, edges and noise."""
    y, x = np.mgrid[:72, :96]
    disc = (y - 40) ** 2 + (x - 50) ** 2 < 900
    return (24 + 1000 * disc + 4 * x + np.random.default_rng(0).integers(0, 30, (72, 96))).astype(
        np.int16
    )


@pytest.fixture(scope="module")
def open_slice(image, tmp_path_factory):
    """(file, dataset, values) of a slice in a syntax; each call gives a new dataset."""
    folder = tmp_path_factory.mktemp("syntaxes")

    def open_one(syntax, **tags):
        pixels = image // 8 if syntax == JPEGBaseline8Bit else image
        file = folder / f"{syntax}.dcm"
        write_slice(file, pixels, syntax, **tags)
        return file, pydicom.dcmread(file), pixels

    return open_one


def frame_of(dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def spoil(stream: bytes, seed: int, kind: str) -> bytes:
    """Damage the last two thirds of a stream, leaving its last four bytes."""
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(stream) // 3, len(stream) - 70))
    if kind == "cut":
        return stream[:at] + stream[-4:]
    if kind == "zeros":
        return stream[:at] + bytes(64) + stream[at + 64 :]
    return stream[:at] + bytes([stream[at] ^ 1 << int(rng.integers(8))]) + stream[at + 1 :]


def refusal(file, dataset) -> StudyError | None:
    try:
        decode(file, dataset)
    except StudyError as error:
        return error
    return None


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_values_are_those_written(open_slice, syntax):
    file, dataset, pixels = open_slice(syntax)
    values = decode(file, dataset)
    assert values.dtype == (np.uint8 if syntax == JPEGBaseline8Bit else
                            np.uint16 if syntax in LOSSY else np.int16)  # fmt: skip
    assert values.shape == pixels.shape
    error = np.abs(values.astype(int) - pixels).max()
    assert error <= (LOSSY[syntax][1] if syntax in LOSSY else 0)
    assert is_lossy(dataset) == (syntax in LOSSY)


@pytest.mark.parametrize("syntax", [*NATIVE, *BY_GDCM])
def test_negative_values(tmp_path, image, syntax):
    write_slice(tmp_path / "a.dcm", image - 2000, syntax)
    values = decode(tmp_path / "a.dcm", pydicom.dcmread(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(values, image - 2000)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_of_every_predictor_and_precision(open_slice, image, predictor, bits):
    file, dataset, _ = open_slice(JPEGExtended12Bit)
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    dataset.BitsStored = 16
    pixels = (image.astype(int) * 37) % (1 << bits)  # steps past both ends of the range
    stream = imagecodecs.jpeg8_encode(
        pixels.astype(np.uint8 if bits == 8 else np.uint16),
        bitspersample=bits, lossless=True, predictor=predictor,
    )  # fmt: skip
    replace_stream(dataset, stream)
    np.testing.assert_array_equal(decode(file, dataset), pixels)


def test_twelve_signed_bits_get_their_sign_back(open_slice, image):
    file, dataset, _ = open_slice(JPEGExtended12Bit)
    dataset.file_meta.TransferSyntaxUID, dataset.PixelRepresentation = JPEGLossless, 1
    signed = image - 1500
    stream = imagecodecs.jpeg8_encode(
        (signed & 0xFFF).astype(np.uint16), bitspersample=12, lossless=True, predictor=1
    )
    replace_stream(dataset, stream)
    np.testing.assert_array_equal(decode(file, dataset), signed)


def test_values_beyond_the_bits_stored_are_refused(open_slice):
    file, dataset, _ = open_slice(JPEGLossless, PixelRepresentation=0)
    dataset.BitsStored = 10
    with pytest.raises(StudyError, match="beyond the 10 bits"):
        decode(file, dataset)


def test_lossy_by_syntax_or_by_tag(open_slice):
    _, dataset, _ = open_slice(RLELossless, LossyImageCompression="01")
    assert is_lossy(dataset)
    _, dataset, _ = open_slice(JPEG2000, LossyImageCompression="00")
    assert not is_lossy(dataset)
    _, dataset, _ = open_slice(JPEGBaseline8Bit, LossyImageCompression="00")
    assert is_lossy(dataset)


@pytest.mark.parametrize("syntax", [MPEG2MPML, HTJ2KLossless])
def test_other_syntaxes_are_refused_by_name(open_slice, syntax):
    file, dataset, _ = open_slice(RLELossless)
    dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(StudyError, match=re.escape(syntax.name)) as caught:
        decode(file, dataset)
    assert caught.value.where == file
    assert file.name not in caught.value.reason


@pytest.mark.parametrize("kind", ["cut", "zeros"])
@pytest.mark.parametrize("syntax", [*JPEG_SYNTAXES, JPEGLSLossless, JPEGLSNearLossless])
def test_damaged_jpeg_is_an_error(open_slice, syntax, kind):
    file, dataset, _ = open_slice(syntax)
    whole, passed = frame_of(dataset), 0
    for seed in range(20):
        replace_stream(dataset, spoil(whole, seed, kind))
        error = refusal(file, dataset)
        passed += error is None
        assert error is None or (error.where == file and file.name not in error.reason)
    # In lossy JPEG, zeros may be another valid stream of the same length.
    assert passed <= (6 if syntax in LOSSY and kind == "zeros" else 0)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_a_flipped_bit_in_lossless_jpeg_is_an_error_or_another_stream(open_slice, syntax):
    file, dataset, pixels = open_slice(syntax)
    whole, refused = frame_of(dataset), 0
    for seed in range(60):
        replace_stream(dataset, spoil(whole, seed, "flip"))
        try:
            values = decode(file, dataset)
        except StudyError:
            refused += 1
        else:  # the bits after a code, within one pixel, may have any value
            assert (values != pixels).any()
    assert refused >= 5


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000, RLELossless])
def test_streams_cut_short_are_errors(open_slice, syntax):
    file, dataset, _ = open_slice(syntax)
    whole = frame_of(dataset)
    for end in range(1, len(whole) - 8, len(whole) // 15):
        for tail in (b"", whole[-4:]):
            replace_stream(dataset, whole[:end] + tail)
            with pytest.raises(StudyError, match="cannot be decoded"):
                decode(file, dataset)


FILLS = [b"\xff", b"\xff" * 2, b"\xff" * 9, b"\0" * 3, b"\0\xff\0\xff"]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("syntax", [*BY_GDCM, *LOSSY])
def test_fill_bytes_after_a_stream_are_no_damage(open_slice, syntax, fill):
    """As scanners write them; GDCM, OpenJPEG and Pillow skip them."""
    file, dataset, _ = open_slice(syntax)
    expected, whole = decode(file, dataset), frame_of(dataset)
    replace_stream(dataset, whole + fill)
    np.testing.assert_array_equal(decode(file, dataset), expected)
    if syntax != RLELossless:  # a code of RLE may have any value
        replace_stream(dataset, whole + fill + b"data")
        assert refusal(file, dataset)


@pytest.mark.parametrize("last", [(0, 0), (-1, -1), (0, 1), (-1, 0)])
def test_rle_whose_last_codes_look_like_fill_bytes(tmp_path, image, last):
    pixels = image.copy()
    pixels[-1, -30:] = np.resize(last, 30)
    write_slice(tmp_path / "a.dcm", pixels, RLELossless)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    replace_stream(dataset, frame_of(dataset) + b"\xff" * 5)
    np.testing.assert_array_equal(decode(tmp_path / "a.dcm", dataset), pixels)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_a_jpeg_2000_codestream_in_boxes_or_without_end_marker(open_slice, image, syntax):
    file, dataset, pixels = open_slice(syntax, BitsStored=12, HighBit=11, PixelRepresentation=0)
    for codec, end in (("jp2", None), ("j2k", -2), ("jp2", -2)):
        stream = imagecodecs.jpeg2k_encode(
            image.astype(np.uint16), level=0, codecformat=codec, reversible=True, bitspersample=12
        )[:end]
        for fill in (b"", b"\0", b"\xff\xff"):
            replace_stream(dataset, stream + fill)
            np.testing.assert_array_equal(decode(file, dataset), pixels)
        for cut in (len(stream) // 2, len(stream) - 8):
            replace_stream(dataset, stream[:cut])
            with pytest.raises(StudyError, match="cannot be decoded"):
                decode(file, dataset)


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEGLossless])
def test_overlays_in_unused_bits_are_removed(tmp_path, image, syntax):
    """Legal until 2004: (60xx,0102) is the bit of the overlay in each pixel."""
    file, tags = tmp_path / "a.dcm", {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    drawn = image.astype(np.uint16)
    drawn[5:9, 5:9] |= 0x8000
    drawn[20:30, 9] |= 0x2000
    write_slice(file, drawn, syntax, BitsStored=16, HighBit=15, PixelRepresentation=0)
    dataset = pydicom.dcmread(file)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.add_new((0x6000, 0x0102), "US", 15)
    with pytest.raises(StudyError, match="beyond the 12 bits"):  # bit 13 is nobody's
        decode(file, dataset)
    dataset.add_new((0x6002, 0x0102), "US", 13)
    np.testing.assert_array_equal(decode(file, dataset), image)
    for group in (0x6000, 0x6002):  # 0: the overlay lies in a tag of its own
        dataset.add_new((group, 0x0102), "US", 0)
    with pytest.raises(StudyError, match="beyond the 12 bits"):
        decode(file, dataset)


@pytest.mark.parametrize(
    "header", [(1, 64, 0), (2, 64, 1 << 30), (2, 900, 64), (2, 64, 64), (15, 64, 900)]
)
def test_rle_segments_outside_the_frame_are_an_error(open_slice, header):
    file, dataset, _ = open_slice(RLELossless)
    replace_stream(dataset, struct.pack("<3I", *header) + frame_of(dataset)[12:])
    with pytest.raises(StudyError, match="RLE segments"):
        decode(file, dataset)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("change", [-2, 2, -1000])
def test_uncompressed_pixels_have_the_exact_length(open_slice, syntax, change):
    file, dataset, _ = open_slice(syntax)
    data = dataset.PixelData
    dataset.PixelData = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(StudyError, match=f"{len(data) + change} bytes instead of {len(data)}"):
        decode(file, dataset)


@pytest.mark.parametrize("syntax", [*BY_GDCM, *LOSSY])
@pytest.mark.parametrize("tags", [{"Rows": 65535, "Columns": 65535}, {"Rows": 71}, {"Columns": 1}])
def test_a_frame_of_another_size_is_an_error(open_slice, syntax, tags):
    file, dataset, _ = open_slice(syntax)
    for name, value in tags.items():
        setattr(dataset, name, value)
    with pytest.raises(StudyError, match="cannot be decoded"):
        decode(file, dataset)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Rows", 0), ("Columns", None), ("BitsAllocated", 32), ("BitsStored", 0),
     ("PixelRepresentation", 2), ("SamplesPerPixel", 3), ("Rows", [2, 2])],
)  # fmt: skip
def test_absurd_tags_are_refused_by_name(open_slice, name, value):
    file, dataset, _ = open_slice(RLELossless)
    setattr(dataset, name, value)
    with pytest.raises(StudyError, match=name):
        decode(file, dataset)


def lossless_stream(pixels: np.ndarray, rows_a_part: int) -> bytes:
    """Lossless JPEG, predictor 1, with a restart marker after each `rows_a_part` rows.

    Written from the standard for this test: categories 0 to 15 have 4-bit codes, in this order.
    """
    rows, columns = pixels.shape
    parts = []
    for top in range(0, rows, rows_a_part):
        bits = ""
        for y in range(top, min(top + rows_a_part, rows)):
            for x in range(columns):
                before = pixels[y, x - 1] if x else pixels[y - 1, 0] if y > top else 1 << 11
                step = int(pixels[y, x]) - int(before)
                category = abs(step).bit_length()
                low = step if step > 0 else step + (1 << category) - 1
                bits += f"{category:04b}" + (f"{low:0{category}b}" if category else "")
        bits += "1" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        parts.append(data.replace(b"\xff", b"\xff\x00"))
    table = bytes([0, 0, 0, 0, 15, *[0] * 12, *range(15)])
    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    restart = (rows_a_part * columns).to_bytes(2, "big")
    head = (
        b"\xff\xd8\xff\xc3\0\x0b\x0c" + size + b"\1\1\x11\0"
        + b"\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table
        + b"\xff\xdd\0\4" + restart + b"\xff\xda\0\x08\1\1\0\1\0\0"
    )  # fmt: skip
    body = b"".join(p + bytes([0xFF, 0xD0 + i % 8]) for i, p in enumerate(parts[:-1])) + parts[-1]
    return head + body + b"\xff\xd9"


@pytest.mark.parametrize("rows_a_part", [1, 5, 72])
def test_restart_markers(open_slice, image, rows_a_part):
    stream = lossless_stream(image, rows_a_part)
    pixels = image.astype(np.uint16)
    check_lossless(stream, read_jpeg(stream), pixels)
    for y, x, step in ((0, 0, 512), (71, 95, 1), (40, 50, 2048)):
        wrong = pixels.copy()
        wrong[y, x] += step
        with pytest.raises(DamagedStream):
            check_lossless(stream, read_jpeg(stream), wrong)
    file, dataset, _ = open_slice(JPEGExtended12Bit)
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    replace_stream(dataset, stream)
    np.testing.assert_array_equal(decode(file, dataset), pixels)
