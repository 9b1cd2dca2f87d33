"""One self-contained HTML page: text, notes, figures, tables and slice viewers, with no request to
any host.

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
from jinja2 import Environment

from pekit.common.files import atomic
from pekit.reports.viewer.frame import Viewer, script_source


class Figure(Protocol):
    """What is used of a matplotlib figure, which this module does not import."""

    def savefig(self, target: io.BytesIO, **options: object) -> None: ...


@dataclass(frozen=True)
class Picture:
    """A figure with the caption that also describes it to those who do not see it."""

    figure: Figure
    caption: str


Item = str | Picture | pd.DataFrame | Viewer


@dataclass(frozen=True)
class Section:
    """A heading and, below it, texts, pictures, tables and slice viewers in their order."""

    heading: str
    items: Sequence[Item]


# The policy has browsers refuse whatever would leave the page, should it ever slip in, and every
# script but the viewer's where there is one.
TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{{ scripts | safe }}">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: #1c1c1c; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { line-height: 1.2; margin-bottom: 0.5rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.lead { font-size: 1.15rem; white-space: pre-line; }
.note { margin: 1rem 0; padding: 0.7rem 1rem; background: #fff4e0; border-left: 5px solid #b35c00; }
section p { white-space: pre-line; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if lead %}<p class="lead">{{ lead }}</p>
{% endif %}
{% for note in notes %}<div class="note" role="note">{{ note }}</div>
{% endfor %}
{% for section in sections %}<section>
<h2>{{ section.heading }}</h2>
{% for kind, item in section["items"] %}
{% if kind == "text" %}<p>{{ item }}</p>
{% elif kind == "picture" %}<figure>
<img src="data:image/png;base64,{{ item.png }}" alt="{{ item.caption }}">
<figcaption>{{ item.caption }}</figcaption>
</figure>
{% elif kind == "viewer" %}<figure>{{ item | safe }}</figure>
{% else %}<div class="table"><table>
<thead><tr>{% for name in item.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in item.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% endif %}
{% endfor %}</section>
{% endfor %}
</body>
</html>
"""


def render_page(
    title: str, lead: str = "", notes: Sequence[str] = (), sections: Sequence[Section] = ()
) -> str:
    """The page as HTML. All texts are taken literally: nothing in them is read as markup."""
    filled = [
        {"heading": section.heading, "items": [_prepare(item) for item in section.items]}
        for section in sections
    ]
    environment = Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string(TEMPLATE)
    viewers = any(isinstance(item, Viewer) for section in sections for item in section.items)
    scripts = f"; script-src {script_source()}" if viewers else ""
    return template.render(
        title=title, lead=lead, notes=list(notes), sections=filled, scripts=scripts
    )


def write_page(
    path: Path,
    title: str,
    lead: str = "",
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write the page of `render_page` to `path` in one step; returns `path`."""
    html = render_page(title, lead, notes, sections)
    with atomic(path) as beside:
        beside.write_text(html, encoding="utf-8")
    return path


def _prepare(item: Item) -> tuple[str, object]:
    """An item as its kind and what the template shows of it."""
    if isinstance(item, str):
        return "text", item
    if isinstance(item, Picture):
        png = io.BytesIO()
        item.figure.savefig(png, format="png", bbox_inches="tight", dpi=110)
        code = base64.b64encode(png.getvalue()).decode("ascii")
        return "picture", {"png": code, "caption": item.caption}
    if isinstance(item, pd.DataFrame):
        rows = [[_cell(value) for value in row] for row in item.itertuples(index=False)]
        return "table", {"columns": list(item.columns), "rows": rows}
    if isinstance(item, Viewer):
        return "viewer", item.frame()
    raise TypeError(
        f"a section holds texts, Pictures, DataFrames and Viewers, not {type(item).__name__}"
    )


def _cell(value: object) -> str:
    """A table's value: three decimals for fractions, a dash where there is none."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
