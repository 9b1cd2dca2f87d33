"""Check decoded JPEG pixels against their stream, to find damage that decoders do not report.

After a bad code, or if the data end too soon, decoders of JPEG (ITU-T T.81) silently continue with
zeros.

- Lossless: each pixel's code has a known length, and the codes of the decoded pixels must fill the
  stream to its last byte; every 16th code is looked up at its place. 2 ms per slice.
- Lossy: the codes cannot be derived from the pixels, so the stream is read code by code. 0.1 s per
  slice, only for the few lossy series.

A flipped bit that gives another valid stream of the same length is not found.
"""

import re
from functools import lru_cache

import numpy as np

from data_prep.dicom.codestream import DamagedStream, Frame

SAMPLED = 16  # every 16th pixel's code is looked up in the stream
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# Category (T.81 table H.2) of a difference modulo 2**16, and the number of its additional bits.
_DIFFERENCE = np.arange(1 << 16).astype(np.uint16).view(np.int16).astype(np.int32)
_CATEGORY = np.ceil(np.log2(np.abs(_DIFFERENCE) + 1)).astype(np.uint8)
_MORE_BITS = np.array([*range(16), 0])


def check_lossless(stream: bytes, frame: Frame, pixels: np.ndarray) -> None:
    """Check decoded pixels (Y, X) uint16 against their lossless stream.

    Raises:
        DamagedStream: the pixels' codes are not those of the stream.
    """
    rows = frame.rows
    if frame.restart:
        rows, rest = divmod(frame.restart, frame.columns)
        if rest or not rows:
            raise DamagedStream("restart markers inside a row")
    bits, codes = np.zeros(17, int), np.zeros(17, int)
    for code, length, category in frame.tables.get(frame.table >> 4, ()):
        if category < len(bits):
            bits[category], codes[category] = length, code
    absent = 255  # more bits than any code has
    cost = np.where(bits > 0, bits + _MORE_BITS, absent).astype(np.uint32)[_CATEGORY]
    difference = _differences(pixels >> frame.shift, frame, rows)
    parts = _parts(stream, frame, -(-frame.rows // rows))
    for data, top in zip(parts, range(0, frame.rows, rows), strict=True):
        coded = difference[top : top + rows].ravel()
        ends = np.cumsum(cost[coded], dtype=np.uint32)
        _check_length(data, int(ends[-1]))
        sample = slice(None, None, -SAMPLED)  # from the last pixel back
        _find_codes(data, coded[sample], ends[sample].astype(np.int64), bits, codes)


def check_lossy(stream: bytes, frame: Frame) -> None:
    """Read a sequential lossy stream (T.81 F.2.2) with one sample per pixel code by code.

    Raises:
        DamagedStream: a code that is not in its tables, a block of more than 64 coefficients, or
            data that end before or after the last block.
    """
    blocks = -(-frame.rows // 8) * -(-frame.columns // 8)
    step = frame.restart or blocks
    first = _lookup(frame.tables.get(frame.table >> 4, ()))
    others = _lookup(frame.tables.get(0x10 | frame.table & 15, ()))
    for part, data in enumerate(_parts(stream, frame, -(-blocks // step))):
        at, padded, end = 0, data + bytes(8), 8 * len(data)
        for _ in range(min(step, blocks - part * step)):
            coefficient, table = 0, first
            while coefficient < 64 and at <= end:
                four = int.from_bytes(padded[at >> 3 : (at >> 3) + 4], "big")
                bits, value = table[four >> (16 - (at & 7)) & 0xFFFF]
                at += bits + (value & 15)
                if coefficient and value & 15 == 0 and value != 0xF0:
                    if value:
                        raise DamagedStream("its data have a code of another kind of JPEG")
                    break  # the rest of the block is zero
                coefficient, table = coefficient + (value >> 4) + 1, others
            if at > end:
                raise DamagedStream("its data end too soon, or have a code not in its tables")
            if coefficient > 64:
                raise DamagedStream("a block of more than 64 coefficients")
        _check_length(data, at)
        left = -at % 8
        if left and padded[at >> 3] & ((1 << left) - 1) != (1 << left) - 1:
            raise DamagedStream("data follow its last block")  # T.81 F.1.2.3 pads with ones


def _parts(stream: bytes, frame: Frame, count: int) -> list[bytes]:
    """The data between restart markers, without stuffed bytes and fill bytes."""
    parts = _RESTART.split(stream[slice(*frame.data)])
    if len(parts) != count:
        raise DamagedStream(f"{len(parts)} parts between restart markers instead of {count}")
    return [part.rstrip(b"\xff").replace(b"\xff\x00", b"\xff") for part in parts]


def _check_length(data: bytes, bits: int) -> None:
    if (bits + 7) // 8 != len(data):
        raise DamagedStream(f"its codes take {bits} bits, its data {8 * len(data)}")


def _differences(x: np.ndarray, frame: Frame, rows: int) -> np.ndarray:
    """Each pixel minus its prediction, modulo 2**16 (T.81 H.1.2), for (Y, X) uint16 pixels.

    The first of every `rows` rows is predicted from the left pixel only.
    """
    left, above, corner = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    if frame.selector > 4:  # halves need the sign
        left, above, corner = (v.astype(np.int32) for v in (left, above, corner))
    if not 1 <= frame.selector <= 7:
        raise DamagedStream(f"predictor {frame.selector} of lossless JPEG does not exist")
    predicted = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }[frame.selector]()
    out = np.empty_like(x)
    np.subtract(x[1:, 1:], predicted, out=out[1:, 1:], casting="unsafe")
    out[1:, 0] = x[1:, 0] - x[:-1, 0]
    out[::rows, 1:] = x[::rows, 1:] - x[::rows, :-1]
    middle = 1 << (frame.precision - frame.shift - 1)
    out[::rows, 0] = x[::rows, 0] - np.array(middle, np.uint16)
    return out


def _find_codes(data: bytes, coded: np.ndarray, ends: np.ndarray, bits, codes) -> None:
    """Check that the code of each difference (N,) ends in `data` at its bit in `ends` (N,)."""
    category = _CATEGORY[coded]
    more = _MORE_BITS[category]
    signed = _DIFFERENCE[coded]
    expected = (codes[category] << more) | ((signed - (signed < 0)) & ((1 << more) - 1))
    # A code has at most 31 bits, and at most 7 of the next one share its last byte: five bytes.
    padded = np.frombuffer(bytes(8) + data, np.uint8)
    last = (ends + 7) // 8 + 7
    window = np.zeros(len(ends), np.int64)
    for byte in range(5):
        window |= padded[last - byte].astype(np.int64) << (8 * byte)
    found = (window >> (-ends % 8)) & ((1 << (bits[category] + more)) - 1)
    if (found != expected).any():
        raise DamagedStream("its codes are not those of the decoded pixels")


@lru_cache(maxsize=4)  # the slices of a series share their tables
def _lookup(table: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int]]:
    """(bits, value) of the code at the start of each 16-bit number; huge bits if there is none."""
    entries = [(1 << 40, 0)] * (1 << 16)
    for code, bits, value in table:
        low, count = code << (16 - bits), 1 << (16 - bits)
        entries[low : low + count] = [(bits, value)] * count
    return entries
