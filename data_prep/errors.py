"""Errors of a study that cannot be read or segmented."""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from pekit.common.errors import UserError, printable

LISTED = 20  # names of files that a message lists


class StudyError(UserError):
    """A study that cannot be read.

    Attributes:
        reason: what is wrong, without file names and patient tags, so that a table with it may be
            shared.
        where: the file or folder concerned; the message names it.
        way_out: what the user can do about it.
        files: the files concerned in the folder `where`, if several; the message names them too.
    """

    def __init__(
        self,
        reason: str,
        where: Path | None = None,
        way_out: str = "",
        files: tuple[Path, ...] = (),
    ):
        self.reason, self.where, self.way_out, self.files = reason, where, way_out, files
        message = f"{printable(where)}: {reason}" if where else reason
        if files:
            names = [printable(file.relative_to(where)) for file in files[:LISTED]]
            more = [f"and {len(files) - LISTED} more"] * (len(files) > LISTED)
            message += f": {', '.join(names + more)}"
        super().__init__(f"{message}; {way_out}" if way_out else message)

    def __reduce__(self):
        return StudyError, (self.reason, self.where, self.way_out, self.files)


def refuse(errors: Iterable[StudyError]) -> None:
    """Raise the errors of single files, if any: all those that are like the first, as one error."""
    found = list(errors)
    if not found:
        return
    alike = [error for error in found if _kind(error) == _kind(found[0])]
    if len(alike) == 1:
        raise found[0]
    files = tuple(error.where for error in alike)
    folder = Path(os.path.commonpath([file.parent for file in files]))
    raise StudyError(f"{len(files)} files: {found[0].reason}", folder, found[0].way_out, files)


def _kind(error: StudyError) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "n", error.reason)


def dcmodify(change: str, files: Path) -> str:
    """The command of DCMTK, a free toolkit, that changes a tag of a file or of a folder's files."""
    where = shlex.quote(printable(files))
    if files.is_dir():
        return f"find {where} -type f -exec dcmodify -nb {change} {{}} + (DCMTK)"
    return f"dcmodify -nb {change} {where} (DCMTK)"


class SetupError(UserError):
    """Something that every study needs is missing, e.g. a segmenter's package or weights."""


class SegmentationError(UserError):
    """Lungs or heart were not found; the message says which and why."""


def brief(error: Exception) -> str:
    """First line of an error's message, without the paths and values that it may contain."""
    first = re.sub(r"'[^']*'|\"[^\"]*\"", "...", (str(error).splitlines() or [""])[0])
    return type(error).__name__ if not first or os.sep in first else first[:200].rstrip(".")
