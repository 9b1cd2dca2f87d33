"""No path, user name, host name or original UID leaves the machine with a bundle.

Texts are scrubbed when they are copied; the complete bundle is checked.
"""

import getpass
import platform
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import public_uid

HIDDEN = "[path]"
TEXTS = {".csv", ".html", ".json", ".lock", ".sha256", ".txt", ""}
# Accounts that identify nobody and are also words of the field (aortic root) or of this kit.
_GENERIC = {"root", "user", "ubuntu", "admin", "runner", "jovyan", "docker", "test", "demo"}

_PATH = re.compile(
    # /home/name/data, ~/data/x; not the slashes of a relative path or an address
    r"(?<![\w.:/<>)\]~…*+-])(?:~|file://)?(?:/[\w.@][\w.@^+%=,-]*){2,}/?"
    # a quoted text that is "/data" or "~/x"
    r"|(?<=[\"'])(?:~/[^\"'\n]*|/[\w.@^+%-]+/?)(?=[\"'])"
    r"|\b[A-Za-z]:(?:\\{1,2}[\w.@^+ -]+)+"  # C:\Users\name
)
# Encoded media is no text: base64 holds slashes.
_MEDIA = re.compile(
    # A data URI; MIME breaks base64 into lines of 64 or 76 characters.
    r"data:[\w.+-]+/[\w.+-]+(?:;[\w.=-]+)*;base64,"
    r"(?:[A-Za-z0-9+/]{76}\s+|[A-Za-z0-9+/]{64}\s+)*[A-Za-z0-9+/=]*"
    # Long runs of base64 elsewhere. Only a JPEG's run starts with a slash.
    r"|(?<![A-Za-z0-9+/=])(?:/9j/|[A-Za-z0-9+])[A-Za-z0-9+/=]{96,}"
)
_DICOM_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){7,}(?![\w.])")


def scrub(text: str) -> str:
    """Replace each absolute path in a text by `[path]`; encoded media stays as it is."""
    pieces = zip_longest(_MEDIA.split(text), _MEDIA.findall(text), fillvalue="")
    return "".join(_PATH.sub(HIDDEN, outside) + encoded for outside, encoded in pieces)


def check_privacy(folder: Path) -> None:
    """Check all files of a complete bundle.

    Raises:
        UserError: a file holds an absolute path, the name of this user or host, or a DICOM UID, or
            a table holds a UID that is neither RSNA's own nor hashed. The message names the file.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        content = file.read_bytes()
        for kind, secret in _secrets():
            if re.search(rb"(?<!\w)" + re.escape(secret.encode()) + rb"(?!\w)", content):
                raise UserError(f"{name} holds {kind}: change the stage that writes it")
        if file.suffix in TEXTS:
            text = _MEDIA.sub("", content.decode("utf-8", errors="replace"))
            if file.suffix == ".html":
                text = _without_markup(text)
            for kind, found in (("an absolute path", _PATH), ("a DICOM UID", _DICOM_UID)):
                if match := found.search(text):
                    line = text[: match.start()].count("\n") + 1
                    raise UserError(
                        f"{name} holds {kind} (line {line}): change the stage that writes it"
                    )
        if file.suffix in (".csv", ".parquet"):
            _check_uids(file, name)


def _secrets() -> Iterator[tuple[str, str]]:
    """Private texts of this machine to look for in all files: kind for the message, text."""
    yield "the path of the home folder", str(Path.home())
    yield "the path of the kit", str(Path(__file__).resolve().parents[2])
    for kind, name in (
        ("the user's name", getpass.getuser()),
        ("the host's name", platform.node()),
    ):
        if len(name) >= 3 and name.lower() not in _GENERIC:
            yield kind, name


def _without_markup(html: str) -> str:
    """A page without markup that looks like a path: end tags and web addresses."""
    return re.sub(r"</?[A-Za-z][\w-]*|https?://[\w./#-]+", " ", html)


def _check_uids(file: Path, name: str) -> None:
    """Check that columns of UIDs hold public UIDs: 12 hexadecimal digits."""
    if file.stat().st_size == 0:
        return
    table = pd.read_csv(file, dtype=str) if file.suffix == ".csv" else pd.read_parquet(file)
    for column in table:
        if str(column).endswith("InstanceUID") or column == "study":
            values = table[column].dropna().astype(str).unique()
            if any(public_uid(value) != value for value in values):
                raise UserError(f"{name}: column {column} holds a UID that is not hashed")
