"""Tables in a notebook, set as in the pages.

show(tables["summary"], "42 test studies")    # as a cell's last expression
"""

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from pekit.common.html.render import kind, lines

_TABLE = {
    "th": [("text-align", "left"), ("vertical-align", "bottom"), ("white-space", "normal")],
    "td": [("text-align", "left"), ("vertical-align", "top"), ("white-space", "normal")],
    "caption": [("text-align", "left")],
}
_COLUMN = {"long": [("min-width", "16rem")], "estimate": [], "number": [("text-align", "right")]}
_WHOLE = [("white-space", "nowrap")]  # the cells of numbers, not their heading


def show(table: pd.DataFrame, caption: str = "", digits: int = 3) -> Styler:
    """A table to look at: text on the left, numbers on the right, an estimate above its interval.

    Args:
        table: its index becomes the first columns, unless it only numbers the rows.
        caption: above the table.
        digits: decimals of fractions.
    """
    index = table.index
    if index.nlevels == 1 and index.name is None:
        numbers = pd.api.types.is_integer_dtype(index.dtype)
        shown = table.reset_index(drop=True) if numbers else table.rename_axis(" ").reset_index()
    else:
        shown = table.reset_index()
    shown = shown.rename_axis(columns=None).convert_dtypes()
    styles = [{"selector": part, "props": props} for part, props in _TABLE.items()]
    for k, (_, column) in enumerate(shown.items()):
        styles.append({"selector": f".col{k}", "props": _COLUMN.get(kind(column), [])})
        if kind(column) in ("number", "estimate"):
            styles.append({"selector": f"td.col{k}", "props": _WHOLE})
    styler = shown.style.hide(axis="index").set_table_styles(styles)
    styler = styler.format(lambda value: "<br>".join(map(escape, lines(value, digits))))
    return styler.set_caption(escape(caption)) if caption else styler
