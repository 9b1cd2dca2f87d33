"""Fill a template of this folder; format a table for it.

render("page.html", title="Study 1a2b", lead="", notes=[], sections=[])
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
LONG = 40  # characters of a text from which on its column is wide
_ESTIMATE = re.compile(r"(\S+) (\[\S+, \S+\])")  # with its interval: 0.929 [0.886, 0.957]


def render(template: str, *folders: Path, scripts: str = "", **values: Any) -> str:
    """Fill a template; values are escaped unless the template marks them as safe.

    Args:
        template: name of a file in this folder, or else in one of `folders`.
        scripts: sources for `script-src` of the content-security policy; by default no script runs.
        values: variables of the template.

    Raises:
        jinja2.UndefinedError: a variable of the template is missing.
    """
    environment = Environment(
        loader=FileSystemLoader([FOLDER, *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(scripts=scripts, **values).lstrip()


def table(frame: pd.DataFrame, limit: int | None = None) -> dict[str, Any]:
    """The first `limit` rows of a table (None: all) as `grid` of table.html shows them."""
    shown = frame.iloc[:limit].convert_dtypes()  # counts stay whole numbers where some are missing
    return {
        "columns": [(name, kind(column)) for name, column in shown.items()],
        "rows": [[lines(value) for value in row] for row in shown.itertuples(index=False)],
        "length": len(frame),
    }


def lines(value: object, digits: int = 3) -> list[str]:
    """A value as the lines of a cell: an estimate stands above its interval."""
    text = cell(value, digits)
    estimate = _ESTIMATE.fullmatch(text)
    return list(estimate.groups()) if estimate else [text]


def cell(value: object, digits: int = 3) -> str:
    """A value as text: fractions with `digits` decimals, tiny ones with 2 digits, else a dash."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.2g}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"
    return str(value)


def kind(column: pd.Series) -> str:
    """How a column is set: as a number, estimate or long text; else empty."""
    if pd.api.types.is_numeric_dtype(column) and column.notna().any():
        return "number"
    texts = column.astype(str)
    if texts.str.fullmatch(_ESTIMATE).any():
        return "estimate"
    return "long" if texts.str.len().max() > LONG else ""
