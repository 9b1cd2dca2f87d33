"""One self-contained HTML page of text, notes, figures, tables and slice viewers.

It makes no request to any host.

write_page(
    Path("report.html"),
    "Study 1a2b",
    lead="PE suspected in 12 of 79 slices.",
    notes=["Low contrast in the heart region: not a CTPA?"],
    sections=[Section("Slices", ["Hop 1 and hop 2.", Picture(figure, "Probability"), table])],
)
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from pekit.common.files import atomic
from pekit.common.html.render import render, table
from pekit.reports.viewer.frame import Viewer, script_source


class Figure(Protocol):
    """The part of a matplotlib figure that is used; this module does not import matplotlib."""

    def savefig(self, target: io.BytesIO, **options: object) -> None: ...


@dataclass(frozen=True)
class Picture:
    """A figure and its caption, which is also its alternative text."""

    figure: Figure
    caption: str


Item = str | Picture | pd.DataFrame | Viewer


@dataclass(frozen=True)
class Section:
    """A heading and the texts, pictures, tables and slice viewers below it, in order."""

    heading: str
    items: Sequence[Item]


def render_page(
    title: str, lead: str = "", notes: Sequence[str] = (), sections: Sequence[Section] = ()
) -> str:
    """The page as HTML. Texts are escaped: markup in them is shown, not read."""
    filled = [
        {"heading": section.heading, "blocks": _blocks(section.items)} for section in sections
    ]
    viewers = any(isinstance(item, Viewer) for section in sections for item in section.items)
    scripts = script_source() if viewers else ""
    return render(
        "page.html", title=title, lead=lead, notes=notes, sections=filled, scripts=scripts
    )


def write_page(
    path: Path,
    title: str,
    lead: str = "",
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write the page of `render_page` to `path`, atomically; returns `path`."""
    html = render_page(title, lead, notes, sections)
    with atomic(path) as beside:
        beside.write_text(html, encoding="utf-8")
    return path


def _blocks(items: Sequence[Item]) -> list[list[tuple[str, object]]]:
    """Prepared items in blocks: each picture, table or viewer with the texts before it."""
    blocks: list[list[tuple[str, object]]] = [[]]
    for item in map(_prepare, items):
        if blocks[-1] and blocks[-1][-1][0] != "text":
            blocks.append([])
        blocks[-1].append(item)
    return blocks


def _prepare(item: Item) -> tuple[str, object]:
    """The kind of an item and its values for the template."""
    if isinstance(item, str):
        return "text", item
    if isinstance(item, Picture):
        png = io.BytesIO()
        item.figure.savefig(png, format="png", bbox_inches="tight", dpi=110)
        code = base64.b64encode(png.getvalue()).decode("ascii")
        return "picture", {"png": code, "caption": item.caption}
    if isinstance(item, pd.DataFrame):
        return "table", table(item)
    if isinstance(item, Viewer):
        return "viewer", item.frame()
    raise TypeError(
        f"a section holds texts, Pictures, DataFrames and Viewers, not {type(item).__name__}"
    )
