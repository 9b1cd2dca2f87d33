"""Charts of an evaluation: ROC curves, confusion tables, calibration, subgroups."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import auc, roc_curve

from pekit.common.errors import UserError
from pekit.figures.base import (
    BLUE,
    HOP_MARKERS,
    ORANGE,
    KitFigure,
    check_columns,
    grid_of_axes,
    hop_style,
    label_outer,
    plain,
)

_MARKERS = "osD^vP*X<>hp"


def roc_curves(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    auroc: Mapping[str, str] | None = None,
    votes: Mapping[str, np.ndarray] | None = None,
    theirs: pd.DataFrame | None = None,
) -> Figure:
    """ROC curves, each with its AUROC in the legend.

    Args:
        scores: truth (0 or 1) and score in [0, 1] of the studies, by name of the model.
        auroc: AUROC and its interval as text, by model; None: the area under the drawn curve.
        votes: counts [[TN, FP], [FN, TP]] of a model's vote, drawn as a dot.
        theirs: published results (row, metric, value, source), drawn as one grey mark per row with
            a sensitivity and a specificity, in a second panel that enlarges their corner.

    Raises:
        UserError: studies of one class only, or a missing column in `theirs`.
    """
    panels = 1 if theirs is None else 2
    figure = KitFigure(
        figsize=(5, 5.6) if theirs is None else (11.5, 5.2),
        layout="constrained",
        patient=False,
        caption="ROC curves of the studies",
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    axes[0].plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
    for i, (name, (truth, score)) in enumerate(scores.items()):
        if len(np.unique(truth)) < 2:
            raise UserError(f"{name}: a ROC curve needs studies with PE and studies without")
        false_alarms, found, _ = roc_curve(truth, score)
        area = auroc[name] if auroc is not None else f"{auc(false_alarms, found):.3f}"
        style = hop_style(i)
        label = f"{name}: AUROC {area}"
        for ax in axes:
            ax.plot(false_alarms, found, label=label, **style)
            if votes and name in votes:
                (tn, fp), (fn, tp) = votes[name]
                dot = fp / (fp + tn), tp / (tp + fn)
                ax.plot(*dot, "o", color=style["color"], mec="black", zorder=3)
    axes[0].set(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    covers = None if auroc is None else "95 % intervals over studies"
    axes[0].legend(  # below, where no curve is
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=9, title=covers,
        title_fontsize=9, handlelength=3.2,
    )  # fmt: skip
    for ax in axes:
        ax.set(xlabel="1 - specificity", ylabel="sensitivity")
    if theirs is not None:
        _published_marks(axes[1], theirs)
    plain(*axes)
    return figure


def _published_marks(ax: Axes, theirs: pd.DataFrame) -> None:
    # Published operating points, and axis limits that include them all.
    check_columns(theirs, ("row", "metric", "value", "source"))
    wide = theirs.pivot_table(index=["source", "row"], columns="metric", values="value", sort=False)
    check_columns(wide, ("sensitivity", "specificity"))
    wide = wide.dropna(subset=["sensitivity", "specificity"])
    marks = []
    for i, ((source, name), row) in enumerate(wide.iterrows()):
        marker, author = _MARKERS[i % len(_MARKERS)], source.split(",")[0]
        label = name if author.split()[0] in name else f"{author}, {name}"
        style = {"ls": "", "marker": marker, "color": "0.35", "mfc": "none", "label": label}
        marks += ax.plot(1 - row["specificity"], row["sensitivity"], ms=7, zorder=4, **style)
    ax.set_xlim(-0.005, 1.2 * (1 - wide["specificity"].min()))
    ax.set_ylim(wide["sensitivity"].min() - 0.05, 1.005)
    ax.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
        fontsize=8,
        title="published, on other studies",
        title_fontsize=9,
    )


def confusion_tables(tables: Mapping[str, np.ndarray], columns: int = 4) -> Figure:
    """Counts of studies [[TN, FP], [FN, TP]] by name, shaded by their share of the true class.

    Args:
        tables: by name.
        columns: number of tables side by side.

    Raises:
        UserError: a table that is not 2x2, or no tables.
    """
    for name, table in tables.items():
        if np.shape(table) != (2, 2):
            raise UserError(f"{name}: a confusion table is 2x2, not {np.shape(table)}")
    figure, axes = grid_of_axes(
        len(tables),
        columns=columns,
        width=2.6,
        height=2.7,
        patient=False,
        caption="Verdicts against the truth: counts of studies",
    )
    for ax, (name, counts) in zip(axes, tables.items(), strict=True):
        counts = np.asarray(counts)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(2, 2):
            text = f"{counts[row, column]}\n{share[row, column]:.1%}"
            colour = "white" if share[row, column] > 0.5 else "black"
            ax.text(column, row, text, ha="center", va="center", color=colour)
        ax.set_xticks([0, 1], ["negative", "positive"])
        ax.set_yticks([0, 1], ["no PE", "PE"])
        ax.set_title(name, fontsize=10)
    label_outer(axes, "verdict", "truth")
    return figure


def reliability_curves(table: pd.DataFrame) -> Figure:
    """Share of slices with PE against predicted probability, raw and scaled, and slices per bin.

    Args:
        table: of one protocol: model, forecast, bin_low, bin_high, slices, predicted, value, low,
            high (`pekit.evaluation.calibration.reliability`). Empty bins are left out.

    Raises:
        UserError: a column is missing, or there are no rows.
    """
    columns = ("model", "forecast", "bin_low", "bin_high", "slices", "predicted", "value", "low")
    check_columns(table, (*columns, "high"))
    models = list(dict.fromkeys(table["model"]))
    figure = KitFigure(
        figsize=(3.4 * len(models) + 0.6, 4.6),
        layout="constrained",
        patient=False,
        caption="Calibration: share of slices with PE by predicted probability",
    )
    axes = figure.subplots(
        2, len(models), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    forecasts = dict(
        zip(dict.fromkeys(table["forecast"]), ((BLUE, "o-"), (ORANGE, "s--")), strict=False)
    )
    for model, (curve, counts) in zip(models, axes.T, strict=True):
        curve.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
        for i, (forecast, (colour, line)) in enumerate(forecasts.items()):
            rows = table[(table["model"] == model) & (table["forecast"] == forecast)]
            seen = rows[rows["slices"] > 0]
            # With few studies a percentile interval may not contain the value.
            errors = np.abs([seen["value"] - seen["low"], seen["high"] - seen["value"]])
            curve.errorbar(
                seen["predicted"], seen["value"], errors, fmt=line, color=colour, ms=4, lw=1.2,
                elinewidth=0.8, capsize=2, label=forecast,
            )  # fmt: skip
            width = (rows["bin_high"] - rows["bin_low"]) * 0.4
            counts.bar(
                rows["bin_low"] + width * (0.25 + i),
                rows["slices"],
                width,
                color=colour,
                align="edge",
            )
        curve.set_title(model, fontsize=10)
        counts.set(yscale="log", xlim=(0, 1))
        curve.set(ylim=(0, 1))
    axes[0, 0].set_ylabel("slices that show PE")
    axes[1, 0].set_ylabel("slices")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("predicted probability of PE", fontsize=10)
    plain(*axes.flat)
    return figure


def forest(table: pd.DataFrame, measures: Sequence[str] = ("sensitivity", "specificity")) -> Figure:
    """Estimate and 95 % interval of each subgroup, by model, with its number of studies.

    Args:
        table: of one protocol: model, subgroup, level, measure, n, value, low, high
            (`pekit.evaluation.subgroups`). Levels without studies keep an empty line.
        measures: one panel each, from top to bottom.

    Raises:
        UserError: a column is missing, no rows, or none of the measures in the table.
    """
    check_columns(table, ("model", "subgroup", "level", "measure", "n", "value", "low", "high"))
    panels = {name: table[table["measure"] == name] for name in measures}
    panels = {name: rows for name, rows in panels.items() if len(rows)}
    if not panels:
        raise UserError(f"the table has none of the measures {', '.join(measures)}")
    models = list(dict.fromkeys(table["model"]))
    lines = [len(rows.groupby(["subgroup", "level"])) for rows in panels.values()]
    size = (8, (0.13 + 0.08 * len(models)) * sum(lines) + 0.7 * len(panels) + 0.3)
    figure = KitFigure(
        figsize=size, layout="constrained", patient=False, caption="Subgroups with their intervals"
    )
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=lines)[:, 0]
    for ax, (measure, rows) in zip(axes, panels.items(), strict=True):
        _forest_panel(ax, rows, models)
        ax.set_xlabel(measure)
        ax.xaxis.set_tick_params(labelbottom=True)
    axes[0].legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _forest_panel(ax: Axes, rows: pd.DataFrame, models: list[str]) -> None:
    levels = rows[["subgroup", "level"]].drop_duplicates()
    names = [f"{s}: {k}" if k else s for s, k in levels.itertuples(index=False)]
    n = rows.drop_duplicates(["subgroup", "level"])["n"]
    for i, model in enumerate(models):
        mine = rows[rows["model"] == model]
        y = np.arange(len(mine)) + 0.7 * ((i + 0.5) / len(models) - 0.5)
        errors = [mine["value"] - mine["low"], mine["high"] - mine["value"]]
        errors = np.clip(errors, 0, None)  # rounding can put a limit past a value of 0 or 1
        ax.errorbar(
            mine["value"], y, xerr=errors, fmt=HOP_MARKERS[i % len(HOP_MARKERS)], ms=3.5, lw=1.2,
            label=model, clip_on=False, color=hop_style(i)["color"],
        )  # fmt: skip
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for y, count in enumerate(n):
        ax.text(1.03, y, f"n={count}", fontsize=8, va="center", clip_on=False)
    ax.set(xlim=(0, 1.0), ylim=(len(names) - 0.5, -0.5))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    plain(ax)
