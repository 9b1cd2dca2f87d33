"""The viewer as HTML: a whole document, and the frame that shows it inside another page.

The frame isolates: two viewers on a page do not disturb each other, and JupyterLab does not act on
the viewer's keys. Inside, only the kit's script may run, and nothing may be fetched.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from pekit.common.files import atomic
from pekit.common.html.render import render

FOLDER = Path(__file__).parent
SCRIPTS = ("image.js", "viewer.js")


@cache
def script() -> str:
    """The viewer's script."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)


@cache
def script_source() -> str:
    """The script as source for `script-src` of a content-security policy, by its SHA-256: a page
    with this source runs the viewer's script and no other."""
    digest = hashlib.sha256(script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


@dataclass(frozen=True)
class Viewer:
    """A slice viewer; Jupyter shows it as a cell's last expression.

    Attributes:
        title: a few words, for screen readers and the browser's tab.
        content: data that the script draws (`slice_viewer` makes it).
        height: of the frame, pixels.
    """

    title: str
    content: Mapping[str, Any]
    height: int = 700

    def document(self) -> str:
        """The viewer as an HTML document of its own."""
        # "<" escaped, so that no text of the study can end the block that holds it.
        content = json.dumps(self.content, separators=(",", ":"), allow_nan=False)
        return render(
            "viewer.html",
            FOLDER,
            scripts=script_source(),
            title=self.title,
            script=script(),
            content=content.replace("<", "\\u003c"),
        )

    def frame(self) -> str:
        """The viewer as an `<iframe>` for another page.

        The text inside shows only where frames are removed, as JupyterLab does in notebooks that
        are not trusted.
        """
        return (
            f'<iframe title="{escape(self.title)}" srcdoc="{escape(self.document())}" '
            'sandbox="allow-scripts" loading="lazy" '
            f'style="width: 100%; height: {self.height}px; border: 0">'
            "The slice viewer is shown in trusted notebooks only: choose File, Trust Notebook, or "
            "run this cell.</iframe>"
        )

    def write(self, path: Path) -> Path:
        """Write the document to `path`, atomically; returns `path`."""
        with atomic(path) as beside:
            beside.write_text(self.document(), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        return self.frame()
