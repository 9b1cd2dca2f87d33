"""What the data set doctor saw: where studies lie by size, and which verdict they got."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pekit.errors import UserError
from pekit.figures.base import BLUE, ORANGE, RED, KitFigure, check_columns, plain

VERDICT_COLOURS = {"ok": BLUE, "repaired": ORANGE, "excluded": RED}


def audit_overview(table: pd.DataFrame) -> Figure:
    """Covered height against slice distance, and the number of slices, coloured by verdict.

    Args:
        table: the doctor's: verdict, slices, missing, spacing_z (mm); studies that could not be
            read have none of the last three and are counted in the legend only.

    Raises:
        UserError: a column missing, no rows, an unknown verdict, or no study that could be read.
    """
    check_columns(table, ("verdict", "slices", "missing", "spacing_z"))
    if unknown := set(table["verdict"]) - set(VERDICT_COLOURS):
        raise UserError(f"unknown verdict {sorted(unknown)[0]!r}")
    if table["slices"].isna().all():
        raise UserError("no study could be read: see the reasons in the table")
    figure = KitFigure(figsize=(10, 3.6), layout="constrained")
    where, counts = figure.subplots(1, 2, width_ratios=(3, 2))
    bins = np.histogram_bin_edges(table["slices"].dropna().astype(float), bins=20)
    parts = {name: rows for name, rows in table.groupby("verdict") if len(rows)}
    for name, colour in VERDICT_COLOURS.items():
        if name not in parts:
            continue
        rows = parts[name]
        read = rows.dropna(subset="slices").astype({"slices": float, "missing": float})
        height = (read["slices"] + read["missing"] - 1) * read["spacing_z"].astype(float)
        label = f"{name}: {len(rows)}"
        if len(read) < len(rows):
            label += f" ({len(rows) - len(read)} not readable)"
        where.scatter(read["spacing_z"].astype(float), height, s=14, color=colour, label=label)
    stacked = [parts[n]["slices"].dropna().astype(float) for n in VERDICT_COLOURS if n in parts]
    colours = [colour for name, colour in VERDICT_COLOURS.items() if name in parts]
    counts.hist(stacked, bins=bins, stacked=True, color=colours, edgecolor="white", lw=0.4)
    counts.yaxis.set_major_locator(MaxNLocator(integer=True))
    where.set(xlabel="slice distance (mm)", ylabel="covered height (mm)")
    counts.set(xlabel="slices a study", ylabel="studies")
    where.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    plain(where, counts)
    return figure
