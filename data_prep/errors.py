"""Errors of a study that cannot be read or segmented."""

import os
import re
from pathlib import Path

from pekit.common.errors import UserError


class StudyError(UserError):
    """A study that cannot be read.

    Attributes:
        reason: what is wrong, without file names and patient tags, so that a table with it may be
            shared.
        where: the file or folder concerned; the message names it.
        way_out: what the user can do about it.
    """

    def __init__(self, reason: str, where: Path | None = None, way_out: str = ""):
        self.reason, self.where, self.way_out = reason, where, way_out
        message = f"{where}: {reason}" if where else reason
        super().__init__(f"{message}; {way_out}" if way_out else message)

    def __reduce__(self):
        return StudyError, (self.reason, self.where, self.way_out)


class SetupError(UserError):
    """Something that every study needs is missing, e.g. a segmenter's package or weights."""


class SegmentationError(UserError):
    """Lungs or heart were not found; the message says which and why."""


def brief(error: Exception) -> str:
    """First line of an error's message, without the paths and values that it may contain."""
    first = re.sub(r"'[^']*'|\"[^\"]*\"", "...", (str(error).splitlines() or [""])[0])
    return type(error).__name__ if not first or os.sep in first else first[:200].rstrip(".")
