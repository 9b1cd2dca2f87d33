"""Read the header of a compressed image (size, precision, place of the data) without decoding it.

It is read before decoding, so that a damaged size neither takes gigabytes of memory nor gives an
image of another shape, and that a stream cut short or overwritten by a marker is found. JPEG
(ITU-T T.81) and JPEG-LS (T.87) share their markers; JPEG 2000 (T.800) has its own and may lie in
the boxes of a JP2 file (its annex I), and RLE (DICOM PS3.5 annex G) has a table of offsets.
Scanners fill a stream up to an even length, or further, with zeros or with FF: both are skipped.
"""

import re
import struct
from dataclasses import dataclass, field

END = b"\xff\xd9"
FILL = b"\0\xff"  # bytes that may follow the end marker
LOSSLESS, JPEG_LS = 0xC3, 0xF7  # second bytes of the frame markers SOF3 and SOF55
_FRAMES = (0xC0, 0xC1, LOSSLESS, JPEG_LS)  # and of SOF0 and SOF1, the lossy ones
_SIDE_MARKERS = (0xDB, 0xF8, 0xFE, *range(0xE0, 0xF0))  # quantization, JPEG-LS, comment, APPn
# Any marker but a restart ends the data. JPEG stuffs a zero byte after FF, JPEG-LS a zero bit.
_END = {True: re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]"),
        False: re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")}  # fmt: skip


class DamagedStream(ValueError):
    """A stream that violates its format, or does not agree with the pixels decoded from it."""


@dataclass(frozen=True)
class Frame:
    """Header of a compressed image.

    Attributes:
        rows, columns, samples: size, and samples per pixel.
        precision: bits per sample.
        kind: second byte of the JPEG frame marker; 0 for JPEG 2000. All further fields but `data`
            are for JPEG only.
        selector, shift: predictor and point transform of a lossless scan (T.81 table B.3).
        tables: Huffman tables by class and number (T.81 B.2.4.2): (code, bits, value) of each code.
        table: number of the scan's table, of class 0 in the upper four bits, of class 1 in the
            lower four.
        restart: pixels (lossless) or blocks (lossy) between restart markers; 0 for none.
        data: start and end of the entropy-coded data, in bytes; of JPEG 2000, of all before the
            end marker.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    kind: int = 0
    selector: int = 0
    shift: int = 0
    tables: dict[int, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    table: int = 0
    restart: int = 0
    data: tuple[int, int] = (0, 0)


def read_jpeg(stream: bytes) -> Frame:
    """Read the header of a JPEG or JPEG-LS stream.

    Raises:
        DamagedStream: not one image with one scan, complete from its first marker to its last.
    """
    if stream[:2] != b"\xff\xd8":
        raise DamagedStream("it does not begin with a JPEG marker")
    at, kind, tables, restart = 2, 0, {}, 0
    while True:
        marker, length = stream[at : at + 2], int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at + 4 : at + 2 + length]
        if len(marker) < 2 or marker[0] != 0xFF or length < 2 or len(segment) != length - 2:
            raise DamagedStream(f"no marker at byte {at}")
        at += 2 + length
        if marker[1] == 0xC4:
            tables |= _huffman_tables(segment)
        elif marker[1] == 0xDD:
            restart = int.from_bytes(segment, "big")
        elif marker[1] in _FRAMES and len(segment) >= 6 and not kind:
            kind = marker[1]
            precision, rows, columns, samples = struct.unpack_from(">BHHB", segment)
        elif marker[1] == 0xDA and len(segment) == 6 and kind:
            break
        elif marker[1] not in _SIDE_MARKERS:
            raise DamagedStream(f"marker FF{marker[1]:02X} where none is expected")
    end = _END[kind == JPEG_LS].search(stream, at)
    if end is None:
        raise DamagedStream("it has no end marker")
    _check_end(stream[end.start() :])
    return Frame(
        rows, columns, samples, precision, kind,
        selector=segment[3], shift=segment[5] & 15, tables=tables, table=segment[2],
        restart=restart, data=(at, end.start()),
    )  # fmt: skip


def read_jpeg2000(stream: bytes) -> Frame:
    """Read the header of a JPEG 2000 codestream, and follow the lengths of its tile parts.

    The end marker may be missing: then the last tile part ends with the stream.

    Raises:
        DamagedStream: no size (SIZ) marker at its beginning, or tile parts that do not fill the
            stream up to its end marker.
    """
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 44:
        raise DamagedStream("it does not begin with a JPEG 2000 marker")
    _, _, right, bottom, left, top, *_, samples, depth = struct.unpack_from(">HH8IHB", stream, 4)
    at = 2
    while stream[at : at + 2] not in (b"\xff\x90", b""):  # the markers of the main header
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    while stream[at : at + 2] == b"\xff\x90":  # SOT, whose length counts from the marker
        length = int.from_bytes(stream[at + 6 : at + 10], "big")
        if length == 0:  # up to the end marker, which must be there
            length = stream.rfind(END) - at
        if length < 14 or at + length > len(stream):
            raise DamagedStream("it is cut short")
        at += length
    end = at
    if stream[at : at + 2] == END:
        at += 2
    if stream[at:].strip(FILL):
        raise DamagedStream("its tile parts do not fill it up to its end marker")
    return Frame(bottom - top, right - left, samples, precision=(depth & 127) + 1, data=(0, end))


def codestream_of(stream: bytes) -> bytes:
    """The codestream in the boxes of a JP2 file (T.800 annex I); a bare codestream as it is."""
    at = 0
    while stream[4:8] == b"jP  " and len(stream) >= at + 8:
        length, kind = int.from_bytes(stream[at : at + 4], "big"), stream[at + 4 : at + 8]
        head = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(stream[at + 8 : at + 16], "big")
        if kind == b"jp2c":  # length 0: up to the end of the file
            return stream[at + head : at + length if length else None]
        if length < head:
            break
        at += length
    return stream


def check_rle(stream: bytes, segments: int) -> None:
    """Check that the segments of an RLE frame (one per byte of a pixel) lie inside it, in order.

    imagecodecs follows offsets outside the frame and may crash.

    Raises:
        DamagedStream: the segments do not lie inside the frame, in order.
    """
    if len(stream) < 64:
        raise DamagedStream("it is too short for RLE")
    count, *offsets = struct.unpack_from("<16I", stream)
    edges = [*offsets[:segments], len(stream)]
    if count != segments or edges[0] != 64 or sorted(set(edges)) != edges:
        raise DamagedStream("its RLE segments do not lie inside it in order")


def _check_end(tail: bytes) -> None:
    """Refuse a tail that is not an end marker with fill bytes."""
    if tail[:2] != END:
        raise DamagedStream("it does not end with its end marker")
    if tail[2:].strip(FILL):
        raise DamagedStream("there are data after its end marker")


def _huffman_tables(segment: bytes) -> dict[int, tuple[tuple[int, int, int], ...]]:
    """Tables of one DHT segment, by class (upper four bits) and number (T.81 C.2)."""
    tables = {}
    while segment:
        counts = segment[1:17]
        values = segment[17 : 17 + sum(counts)]
        if len(values) != sum(counts):
            raise DamagedStream("a Huffman table is cut short")
        codes, code, n = [], 0, 0
        for bits, count in enumerate(counts, 1):
            for value in values[n : n + count]:
                codes.append((code, bits, value))
                code += 1
            if code > 1 << bits:
                raise DamagedStream("a Huffman table has too many codes")
            code, n = code << 1, n + count
        tables[segment[0]] = tuple(codes)
        segment = segment[17 + len(values) :]
    return tables
