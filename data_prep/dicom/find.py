"""Find the DICOM files of a folder: through links, by their content and not their names.

A file that is no DICOM file (a licence, a viewer, a picture) is set aside, unless its name says
that it was one: a damaged file must not be lost without a word.
"""

import gzip
import os
import re
import zlib
from pathlib import Path

from data_prep.errors import StudyError

DICOM_SUFFIXES = (".dcm", ".dic", ".dicom", ".ima")
MARK = slice(128, 132)  # where "DICM" stands
# Bytes that open a data set without preamble: group 0002 or 0008, and an element of it.
_LITTLE, _BIG = (
    re.compile(rb"[\x02\x08]\0[\0-\x70]\0", re.S),
    re.compile(rb"\0\x08\0[\0-\x70]", re.S),
)
_VR = re.compile(rb"AE|AS|CS|DA|DT|LO|LT|PN|SH|SQ|ST|TM|UI|UL|OB")


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted. Links to folders are followed.

    A folder that several links lead to is read once, so a loop of links ends.

    Raises:
        StudyError: a folder that cannot be read.
    """

    def refuse_folder(error: OSError):
        raise StudyError(f"the folder cannot be read ({error.strerror})", Path(error.filename))

    seen, files = set(), []
    for root, folders, names in os.walk(folder, onerror=refuse_folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        files += [Path(root, name) for name in names]
    return sorted(files)


def starts_without_preamble(head: bytes) -> bool:
    """Whether a file that begins with `head` is a data set without preamble and mark."""
    explicit = _VR.match(head, 4) is not None
    implicit = int.from_bytes(head[4:8], "little") < 1 << 16 and head[:1] == b"\x08"
    return bool((_LITTLE.match(head) and (explicit or implicit)) or (_BIG.match(head) and explicit))


def is_packed(file: Path, head: bytes) -> bool:
    """Whether a file is a DICOM file compressed by gzip."""
    if head[:2] != b"\x1f\x8b":
        return False
    try:
        with gzip.open(file) as unpacked:
            return unpacked.read(MARK.stop)[MARK] == b"DICM"
    except (OSError, EOFError, zlib.error):
        return file.name.lower().removesuffix(".gz").endswith(DICOM_SUFFIXES)


def was_dicom(file: Path, head: bytes, others: set[str]) -> bool:
    """Whether a file without mark is a damaged DICOM file.

    Args:
        file: its path.
        head: its first bytes.
        others: `name_form` of the folder's DICOM files.
    """
    meta = head[MARK.stop :][:4] == b"\x02\0\0\0"
    return meta or file.suffix.lower() in DICOM_SUFFIXES or name_form(file) in others


def name_form(file: Path) -> str:
    """A file's name without what differs between the files of a series: IM# of IM0031."""
    return re.sub(r"[0-9a-fA-F.]*[0-9][0-9a-fA-F.]*", "#", file.name)
