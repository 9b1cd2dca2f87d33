"""Take the voxels out of an image file (NIfTI, MetaImage, NRRD), or refuse the file as damaged.

ITK fills what it cannot read of a damaged file with zeros, without an error, and reads NaN in a
NIfTI file as 0. So the voxels are read here, and ITK gets the header only. A compressed stream must
match its checksum (CRC-32 of gzip and bzip2, Adler-32 of zlib) and its length; anything else
must have exactly the size that the header gives.

Not detected are flipped bits in voxels that are stored without compression.
"""

import bz2
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from data_prep.errors import StudyError

REFETCH = "make it or download it again"
# Data types by their numbers in NIfTI.
NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
# Fields of the header of NIfTI-1: type and place.
NIFTI_FIELDS = {
    "kind": "i2 70", "start": "f4 108", "slope": "f4 112", "intercept": "f4 116",
    "qform": "i2 252", "sform": "i2 254", "mm": "f4 80 3",
}  # fmt: skip
TEXT = ("txt", "text", "ascii")
# Names of NRRD's spaces that say how an image lies in the patient.
SPACE = re.compile(r"((left|right)-(anterior|posterior)-superior|[lr][ap]s)", re.IGNORECASE)


class DamagedContainer(ValueError):
    """What is wrong with the bytes of an image file."""


@dataclass(frozen=True)
class Voxels:
    """The voxels of an image file, in its own order.

    Attributes:
        data: the bytes, decompressed and checked.
        header: the file's header as a file of its own, for ITK.
        dtype: their type; None: the one that ITK reads in the header, in `order`.
        order: `<` or `>`, little or big endian.
        scale: slope and intercept.
        place: the voxels are `all` of the data, the `first` or the `last` of them.
        oriented: whether the file says how its axes lie in the patient.
    """

    data: bytes | memoryview
    header: bytes
    dtype: np.dtype | None = None
    order: str = "<"
    scale: tuple[float, float] = (1.0, 0.0)
    place: str = "all"
    oriented: bool = True

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """The voxels as an array of `shape`; `dtype` is the type that ITK reads in the header.

        Raises:
            DamagedContainer: there are too few or too many.
        """
        dtype = self.dtype or dtype.newbyteorder(self.order)
        have, need = len(self.data), prod(shape) * dtype.itemsize
        if have < need or (have > need and self.place == "all"):
            raise DamagedContainer(f"{have} bytes of voxels, where its header says {need}")
        start = have - need if self.place == "last" else 0
        array = np.frombuffer(self.data, dtype, prod(shape), start).reshape(shape)
        if self.scale != (1.0, 0.0):
            return array * self.scale[0] + self.scale[1]
        return array.astype(dtype.newbyteorder("="), copy=False)


def read_voxels(path: Path) -> Voxels:
    """The checked voxels of an image file, or of the data files that it names.

    Raises:
        DamagedContainer: a file is damaged, or of a kind that is not read.
        StudyError: a data file is missing.
    """
    read = {"nifti": _read_nifti, "meta": _read_metaimage, "nrrd": _read_nrrd}[container(path)]
    return read(path, path.read_bytes())


def container(path: Path) -> str:
    """The kind of an image file by its name: nifti, meta or nrrd."""
    name = path.name.lower()
    kinds = {"nifti": (".nii", ".nii.gz"), "meta": (".mha", ".mhd"), "nrrd": (".nrrd", ".nhdr")}
    return next(kind for kind, suffixes in kinds.items() if name.endswith(suffixes))


def beside(path: Path, name: str) -> Path:
    """The file that `path` names: in its own folder or, if `path` is a link, in its target's.

    Raises:
        StudyError: there is none.
    """
    at = path
    while not (file := at.parent / name).is_file():
        if not at.is_symlink():
            raise StudyError(
                "a data file that it names is missing", path,
                f"put {Path(name).name} beside it; the two files belong together",
            )  # fmt: skip
        at = at.parent / at.readlink()  # one link at a time: the file may lie beside any of them
    return file


def _inflate(data: bytes) -> bytes:
    """Decompress zlib, or gzip in one or several streams, each with its checksum and length."""
    parts = []
    while data:
        stream = zlib.decompressobj(wbits=47)  # either format, by its first bytes
        try:
            parts.append(stream.decompress(data))
        except zlib.error as error:
            reason = str(error).split(": ")[-1]
            raise DamagedContainer(f"its compressed data are broken ({reason})") from None
        if not stream.eof:
            raise DamagedContainer("its compressed data end early")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _unbzip(data: bytes) -> bytes:
    try:
        return bz2.decompress(data)
    except (OSError, ValueError) as error:
        raise DamagedContainer(f"its compressed data are broken ({error})") from None


def _numbers(text: bytes) -> bytes:
    """Numbers written as text, as the bytes of float64."""
    try:
        return np.array(text.split(), dtype=np.float64).tobytes()
    except ValueError:
        raise DamagedContainer("its voxels are neither numbers nor bytes") from None


def _read_nifti(path: Path, data: bytes) -> Voxels:
    if packed := data.startswith(b"\x1f\x8b"):
        data = _inflate(data)
    order = "<" if data[:4] == (348).to_bytes(4, "little") else ">"
    if len(data) < 352 or data[:4] not in (b"\x5c\1\0\0", b"\0\0\1\x5c"):
        raise DamagedContainer("it does not begin as NIfTI-1 does")
    if data[344:348] != b"n+1\0":
        raise DamagedContainer("it is not a NIfTI of one file, with header and voxels")
    field = {}
    for name, place in NIFTI_FIELDS.items():
        kind, at, *count = place.split()
        field[name] = np.frombuffer(data, order + kind, int((count or [1])[0]), int(at))
    kind, start, slope, inter = (field[name].item() for name in list(NIFTI_FIELDS)[:4])
    if kind not in NIFTI_TYPES:
        raise DamagedContainer(f"its data type has the number {kind}, which no CT or mask has")
    if not 352 <= start <= len(data):
        raise DamagedContainer(f"its voxels begin at byte {start:g} of {len(data)}")
    if not (field["mm"] > 0).all():
        raise DamagedContainer("its header gives no size of its voxels")
    if not np.isfinite(slope) or slope == 0:  # not scaled, by the standard
        slope, inter = 1.0, 0.0
    if not np.isfinite(inter):
        raise DamagedContainer(f"its intercept is {inter}")
    return Voxels(
        memoryview(data)[int(start) :],
        data[: int(start)],
        np.dtype(order + NIFTI_TYPES[kind]),
        scale=(slope, inter),
        place="first" if packed else "all",  # where a checksum holds, more may follow
        oriented=field["qform"] > 0 or field["sform"] > 0,
    )


def _read_metaimage(path: Path, data: bytes) -> Voxels:
    found = re.search(rb"^ElementDataFile *=([^\r\n]*)\r?\n?", data, re.MULTILINE)
    if not found:
        raise DamagedContainer("its header names no ElementDataFile")
    lines = data[: found.start()].decode("latin-1").splitlines()
    tags = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if not {"ElementSpacing", "ElementSize"} & set(tags):
        raise DamagedContainer("its header has no ElementSpacing")
    packed, binary = _is_true(tags, "CompressedData"), _is_true(tags, "BinaryData", "True")
    msb = [_is_true(tags, f"{kind}ByteOrderMSB") for kind in ("Binary", "BinaryData", "Element")]
    name, rest = _text(found[1]), data[found.end() :]
    files = [rest] if name == "LOCAL" else _data_files(path, name, rest)
    skip = _whole(tags.get("HeaderSize", "0"))
    header = data[: found.start()] + b"ElementDataFile = LOCAL\n"
    oriented = bool({"TransformMatrix", "Rotation", "Orientation"} & set(tags))
    if not binary:
        return Voxels(_numbers(b" ".join(files)), header, np.dtype("f8"), oriented=oriented)
    unpack = _inflate if packed else bytes
    return Voxels(
        b"".join([unpack(file[max(skip, 0) :]) for file in files]),
        header,
        order=">" if any(msb) else "<",
        place="last" if skip < 0 else "all",
        oriented=oriented,
    )


def _is_true(tags: dict[str, str], name: str, default: str = "False") -> bool:
    value = tags.get(name, default).lower()
    if value not in ("true", "false"):
        raise DamagedContainer(f"its header's {name} is neither True nor False")
    return value == "true"


def _read_nrrd(path: Path, data: bytes) -> Voxels:
    end = re.search(rb"\r?\n\r?\n", data)
    header, rest = (data[: end.start()], data[end.end() :]) if end else (data, b"")
    lines = _text(header).splitlines()
    if not lines or not re.fullmatch(r"NRRD000\d", lines[0]):
        raise DamagedContainer("it does not begin as NRRD does")
    at = next((n for n, line in enumerate(lines) if re.match(r"data ?file: *LIST", line)), None)
    listed = "\n".join(lines[at + 1 :]).encode("utf-8", "surrogateescape") if at else b""
    tags = {}
    for line in lines[1 : at + 1 if at else None]:
        key, colon, value = line.partition(": ")
        if colon and not line.startswith("#"):
            tags[key.lower().replace(" ", "")] = value.strip()
    files = _data_files(path, tags["datafile"], listed) if "datafile" in tags else [rest]
    encoding = tags.get("encoding", "").lower()
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "gz": _inflate, "gzip": _inflate, "bz2": _unbzip, "bzip2": _unbzip, "raw": bytes,
    }  # fmt: skip
    if not {"spacedirections", "spacings"} & set(tags):
        raise DamagedContainer("its header gives no size of its voxels")
    oriented = "spacedirections" in tags and bool(SPACE.fullmatch(tags.get("space", "")))
    away = r"(data ?file|line ?skip|byte ?skip|encoding):"
    kept = [line for line in lines[: at or None] if not re.match(away, line, re.IGNORECASE)]
    header = "\n".join([*kept, "encoding: raw", "", ""]).encode("utf-8", "surrogateescape")
    skip, line_skip = (_whole(tags.get(name, "0")) for name in ("byteskip", "lineskip"))
    files = [file.split(b"\n", line_skip)[-1] if line_skip > 0 else file for file in files]
    if encoding in TEXT:
        return Voxels(_numbers(b" ".join(files)), header, np.dtype("f8"), oriented=oriented)
    if encoding not in unpack:
        raise DamagedContainer(f"its encoding is {encoding[:20]!r}, not raw, gzip, bzip2 or text")
    endian = tags.get("endian", "").lower()
    if endian not in ("little", "big") and not re.search(r"char|int8|block", tags.get("type", "")):
        raise DamagedContainer("its header's endian is neither little nor big")
    return Voxels(
        b"".join([unpack[encoding](file)[max(skip, 0) :] for file in files]),
        header,
        order=">" if endian == "big" else "<",
        place="last" if skip < 0 else "all",
        oriented=oriented,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").strip()


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise DamagedContainer("its header gives the bytes to skip as no whole number")
    return int(text)


def _data_files(path: Path, name: str, listed: bytes) -> list[bytes]:
    """Contents of the files that a header names: one file, a list, or a pattern such as
    `slice%03d.raw 1 60 1`."""
    pattern = re.fullmatch(r"(\S*%\d*d\S*) +(-?\d+) +(-?\d+) +(-?\d+)( +\d+)?", name)
    if re.fullmatch(r"LIST( +\d+D?)?", name):
        names = [line.strip() for line in _text(listed).splitlines() if line.strip()]
    elif pattern and int(pattern[4]):
        first, last, step = (int(pattern[n]) for n in (2, 3, 4))
        numbers = range(first, last + (1 if step > 0 else -1), step)
        names = [pattern[1] % number for number in numbers[:100_000]]
    else:
        names = [name]
    return [beside(path, name).read_bytes() for name in names]
