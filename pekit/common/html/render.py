"""Fill a template of this folder; format a table for it.

render("page.html", title="Study 1a2b", lead="", notes=[], sections=[])
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
LONG = 40  # characters of a text from which on its column is wrapped


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
        "columns": [(name, _kind(column)) for name, column in shown.items()],
        "rows": [[cell(value) for value in row] for row in shown.itertuples(index=False)],
        "length": len(frame),
    }


def cell(value: object) -> str:
    """A value as text: fractions with 3 decimals, tiny ones with 2 digits, a dash for none."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return str(value)


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column) and column.notna().any():
        return "number"
    return "long" if column.astype(str).str.len().max() > LONG else ""
