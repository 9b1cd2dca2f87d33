"""Every picture of a bundle decodes: image files, and those that its pages embed.

A page embeds a picture as `data:image/<kind>;base64,<code>`, wherever it stands: an `<img>`, a
style, or the data of a slice viewer.
"""

import base64
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from pekit.review.bundle import files_of

FILES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg"}
_EMBEDDED = re.compile(r"data:image/([\w.+-]+);base64,([^\"'`<>)]*)")


def caption(path: Path) -> str:
    """What a figure shows: the description in its PNG file, or else its name."""
    try:
        said = Image.open(path).info.get("Description", "")
    except OSError:  # a damaged file: `damaged_pictures` names it
        said = ""
    return said or path.stem.replace("_", " ")


def damaged_pictures(bundle: Path) -> tuple[int, list[str]]:
    """The number of pictures in a bundle, and in words where those are that do not decode."""
    number, damaged = 0, []
    for where, vector, content in _pictures(bundle):
        number += 1
        if not _decodes(content, vector):
            damaged.append(where)
    return number, damaged


def _pictures(bundle: Path) -> Iterator[tuple[str, bool, bytes]]:
    """Each picture: where it is, whether it is an SVG, its bytes (none if it is not base64)."""
    for name, path in files_of(bundle).items():
        if path.suffix in FILES:
            yield name, path.suffix == ".svg", path.read_bytes()
        elif path.suffix == ".html":
            # Unescaped: a slice viewer is a page in an attribute of its frame.
            found = _EMBEDDED.findall(html.unescape(path.read_text(encoding="utf-8")))
            for k, (kind, code) in enumerate(found, start=1):
                where = f"{name} (picture {k} of {len(found)})"
                yield where, kind.startswith("svg"), _bytes(code)


def _bytes(code: str) -> bytes:
    try:
        return base64.b64decode(re.sub(r"\s|\\n", "", code), validate=True)
    except ValueError:
        return b""


def _decodes(content: bytes, vector: bool) -> bool:
    try:
        if vector:
            ElementTree.fromstring(content)
        else:
            Image.open(io.BytesIO(content)).load()
    except (OSError, SyntaxError, ValueError):  # SyntaxError: of a PNG's chunks, and of XML
        return False
    return True
