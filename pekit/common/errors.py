"""The error that users can mend: it names what is wrong and what to do about it."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

SHOWN = 20  # names that a message lists where none is near


class UserError(ValueError):
    """A bad file, value or setting. The message says which, and what to do about it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """What a mistyped name may have been: "did you mean a or b?"; else the names that there are."""
    lower = {str(known).lower(): str(known) for known in names}
    close = get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(lower[item] for item in close) + "?"
    known = sorted(lower.values())
    return "choose one of " + ", ".join(known[:SHOWN]) if known else "there is none"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its name where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def printable(path: Path) -> str:
    r"""A path as text that can be written anywhere: bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
