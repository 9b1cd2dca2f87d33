"""Slice probabilities along a study, alone or below chosen slices and their attributions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL
from pekit.figures.base import (
    CLOT,
    SKY,
    TRUTH,
    KitFigure,
    check_columns,
    grid_of_axes,
    hop_style,
    label_outer,
    plain,
)
from pekit.figures.overlays import draw_contour, draw_heat, draw_image, mark_sides
from pekit.figures.slices import PE_WINDOW
from pekit.voting import Vote, vote_study

Votes = Vote | Mapping[str, Vote] | None


def slice_curves(
    predictions: pd.DataFrame,
    hops: Sequence[str] = ("hop1", "hop2"),
    n: int = 4,
    vote: Votes = None,
) -> Figure:
    """Slice probabilities of each hop along the patient, true slices with PE shaded (figure 7).

    Args:
        predictions: one row per slice: StudyInstanceUID, z, one column per hop, and
            pe_present_on_image if known (-1: unknown).
        hops: columns to draw.
        n: draw the first `n` studies of the table.
        vote: one for all hops, or one per hop; its delta is a dashed line, its verdict is in the
            title.

    Raises:
        UserError: a column is missing, or there are no rows.
    """
    check_columns(predictions, ("StudyInstanceUID", "z", *hops))
    studies = predictions.StudyInstanceUID.unique()[:n]
    figure, axes = grid_of_axes(
        len(studies),
        columns=2,
        width=4.6,
        height=2.1,
        sharex=False,
        layout="constrained",
        patient=False,
        caption="Slice probability along the study, by hop",
    )
    votes = _by_hop(vote, hops)
    for ax, study in zip(axes, studies, strict=True):
        _draw_curves(ax, predictions[predictions.StudyInstanceUID == study], votes)
    _add_legend(figure, predictions, votes)
    label_outer(axes, "slice z (feet to head)", "probability of PE")
    return figure


def study_case(
    rows: pd.DataFrame,
    votes: Mapping[str, Vote],
    slices: Sequence[int] = (),
    slice_hu: np.ndarray | None = None,
    attributions: Mapping[str, np.ndarray] | None = None,
    clot: np.ndarray | None = None,
    caption: str = "",
) -> Figure:
    """One study: chosen slices in the PE window, the attribution of each hop, and the curve.

    Args:
        rows: predictions of the study, as `slice_curves` takes them.
        votes: one per hop.
        slices: z of the chosen slices; dotted lines on the curve.
        slice_hu: `(N, Y, X)` HU of the chosen slices; None: no images.
        attributions: `(N, Y, X)` for each hop.
        clot: `(N, Y, X)` bool, drawn as a contour.
        caption: method of the attributions.

    Raises:
        UserError: the number of images or attributions is not that of the chosen slices.
    """
    check_columns(rows, ("StudyInstanceUID", "z", *votes))
    with_images = slice_hu is not None and len(slices) > 0
    if not with_images:
        figure = KitFigure(figsize=(9, 2.4), layout="constrained", patient=False)
        curve = figure.subplots()
    else:
        figure, curve = _with_images(rows, slices, slice_hu, attributions or {}, clot)
    what = "top slices, what each hop used of them, and curve" if with_images else "curve"
    figure.caption = f"Study {rows.StudyInstanceUID.iloc[0]}: {what}"
    _draw_curves(curve, rows, dict(votes))
    for z in slices:
        curve.axvline(z, color="0.4", lw=0.8)
    curve.set_xlabel(
        "slice z (feet to head)" + (f"; above: {caption}" if with_images and caption else "")
    )
    curve.set_ylabel("probability of PE")
    _add_legend(figure, rows, dict(votes), clots=with_images and clot is not None)
    return figure


def _with_images(
    rows: pd.DataFrame,
    slices: Sequence[int],
    slice_hu: np.ndarray,
    attributions: Mapping[str, np.ndarray],
    clot: np.ndarray | None,
) -> tuple[Figure, Axes]:
    # A row of images (each slice, then its attributions), and the axes of the curve below.
    for name, planes in (("slice_hu", slice_hu), *attributions.items()):
        if len(planes) != len(slices):
            raise UserError(f"{name} has {len(planes)} images for {len(slices)} slices")
    each = 1 + len(attributions)
    columns = max(each * len(slices), 3)
    aspect = slice_hu.shape[1] / slice_hu.shape[2]
    height = 11.5 / columns * aspect
    figure = KitFigure(figsize=(11.5, height + 2.6), layout="constrained")
    grid = figure.add_gridspec(2, columns, height_ratios=(height + 0.3, 1.7))
    by_z = rows.set_index("z")
    for k, z in enumerate(slices):
        titles = [f"z = {z}" + _label(by_z.loc[z]), *(
            f"{hop.replace('hop', 'hop ')}, p = {by_z.loc[z, hop]:.3f}" for hop in attributions
        )]  # fmt: skip
        for j, title in enumerate(titles):
            ax = figure.add_subplot(grid[0, each * k + j])
            draw_image(ax, slice_hu[k], (1, 1), PE_WINDOW)
            if j:
                draw_heat(ax, list(attributions.values())[j - 1][k])
            if clot is not None:
                draw_contour(ax, clot[k], (1, 1), SKY if j else CLOT)
            ax.set_title(title, fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
            if not k and not j:
                mark_sides(ax)
    return figure, figure.add_subplot(grid[1, :])


def _label(row: pd.Series) -> str:
    return {1: ", PE", 0: ", no PE"}.get(row.get(SLICE_LABEL), "")


def _by_hop(vote: Votes, hops: Sequence[str]) -> dict[str, Vote | None]:
    return {hop: vote.get(hop) if isinstance(vote, Mapping) else vote for hop in hops}


def _draw_curves(ax: Axes, rows: pd.DataFrame, votes: Mapping[str, Vote | None]) -> None:
    # The probabilities of one study by each hop; the title gives study, truth and verdicts.
    rows = rows.sort_values("z")
    title = str(rows.StudyInstanceUID.iloc[0])
    if SLICE_LABEL in rows and rows[SLICE_LABEL].isin((0, 1)).all():
        ax.fill_between(rows.z, rows[SLICE_LABEL], step="mid", color=TRUTH, alpha=0.25, lw=0)
        title += ": PE" if rows[SLICE_LABEL].any() else ": no PE"
    for i, (hop, vote) in enumerate(votes.items()):
        style = hop_style(i)
        ax.plot(rows.z, rows[hop], lw=1.6, **style)
        if vote is not None:
            ax.axhline(vote.delta, color=style["color"], ls=":", lw=1)
            positive = vote_study(rows[hop].to_numpy(), vote)
            title += f", {hop} {'positive' if positive else 'negative'}"
    ax.set_title(title, fontsize=9, loc="left")
    ax.set(ylim=(-0.02, 1.02), xlim=(rows.z.min() - 0.5, rows.z.max() + 0.5))
    ax.tick_params(labelsize=8)
    plain(ax)


def _add_legend(
    figure: Figure, rows: pd.DataFrame, votes: Mapping[str, Vote | None], clots: bool = False
) -> None:
    handles = [Line2D([], [], lw=1.6, label=hop, **hop_style(i)) for i, hop in enumerate(votes)]
    if SLICE_LABEL in rows:
        handles.append(Patch(color=TRUTH, alpha=0.25, lw=0, label="slices with PE (truth)"))
    if any(v is not None for v in votes.values()):
        handles.append(Line2D([], [], color="0.3", ls=":", lw=1, label="delta of the vote"))
    if clots:
        handles.append(Line2D([], [], color=CLOT, lw=1, label="clot"))
        handles.append(Line2D([], [], color=SKY, lw=1, label="clot, over attribution"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
