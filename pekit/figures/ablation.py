"""Forest plot of an ablation: one row per arm, with intervals and published results."""

import pandas as pd
from matplotlib.figure import Figure

from pekit.figures.base import BLUE, ORANGE, KitFigure, check_columns, plain

# Panel -> metric of the published results in it: the paper's F1 is one at its own prevalence.
_SHOWN = {"F1": None, "F1 at 25 %": "F1", "AUROC": "AUROC"}


def ablation_forest(
    arms: pd.DataFrame, theirs: pd.DataFrame | None = None, title: str = ""
) -> Figure:
    """F1, F1 at the paper's prevalence and AUROC of each arm, one row of panels per level.

    Args:
        arms: rows of one table and protocol of `pekit.evaluation.ablation.ablation`.
        theirs: the paper's results for the same rows (row, metric, value), drawn as crosses; they
            are on other studies and not comparable.
        title: what a value and its interval are (`pekit.evaluation.summary.seeds_text`).

    Raises:
        UserError: a column is missing, or there are no rows.
    """
    columns = ("level", "row", "metric", "value", "low", "high", "studies", "with_pe")
    check_columns(arms, columns)
    levels, rows = list(arms["level"].unique()), list(arms["row"].unique())
    figure = KitFigure(
        figsize=(3 * len(_SHOWN) + 1.2, (0.36 * len(rows) + 0.8) * len(levels) + 1.0),
        layout="constrained",
        patient=False,
        caption="Each variant with its interval, and published results",
    )
    grid = figure.subplots(len(levels), len(_SHOWN), squeeze=False, sharey=True, sharex="col")
    for axes, level in zip(grid, levels, strict=True):
        for ax, (metric, of_theirs) in zip(axes, _SHOWN.items(), strict=True):
            of_level = arms[(arms["level"] == level) & (arms["metric"] == metric)]
            values = of_level.set_index("row").reindex(rows)
            y = range(len(rows))
            errors = [values["value"] - values["low"], values["high"] - values["value"]]
            ax.errorbar(
                values["value"], y, xerr=errors, fmt="o", color=BLUE, capsize=3, label="ours"
            )
            if theirs is not None:
                known = (
                    theirs[theirs["metric"] == of_theirs].set_index("row")["value"].reindex(rows)
                )
                if known.notna().any():
                    ax.plot(known, y, "x", color=ORANGE, label="published, other studies")
            name = f"{level}: {metric}" if level else metric
            if metric == "F1" and len(of_level):
                share = of_level["with_pe"].sum() / of_level["studies"].sum()
                name += f" ({100 * share:.1f} % with PE)"
            ax.set_title(name, fontsize=10)
            plain(ax)
        axes[0].set_yticks(range(len(rows)), rows)
    # All panels share the y axis; the first row is at the top.
    grid[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    for ax, metric in zip(grid[-1], _SHOWN, strict=True):
        ax.set_xlabel(f"study {metric}")
    figure.suptitle(title, fontsize=10)
    shown = grid[0, 1].get_legend_handles_labels()
    figure.legend(*shown, fontsize=8, loc="outside lower center", ncols=2)
    return figure
