"""Charts of training, of crops and of landmarks."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pekit.errors import UserError
from pekit.figures.base import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    SKY,
    KitFigure,
    check_columns,
    plain,
)
from pekit.store import LANDMARKS


def loss_curves(log: pd.DataFrame) -> Figure:
    """Training and validation loss, and the learning rate below them.

    Args:
        log: columns epoch, train_loss, validation_loss, lr, others ignored; several rows an
            epoch with gaps, as Lightning's CSV logger writes them, are put together.

    Raises:
        UserError: a column missing, or no validation loss at all.
    """
    check_columns(log, ("epoch", "train_loss", "validation_loss", "lr"))
    by_epoch = log.groupby("epoch")[["train_loss", "validation_loss", "lr"]].last()
    if by_epoch.validation_loss.isna().all():
        raise UserError("the log has no validation loss: was the training stopped in epoch 0?")
    figure = KitFigure(figsize=(7, 4.2), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, colour in (("train", BLUE), ("validation", ORANGE)):
        curve = by_epoch[f"{name}_loss"].dropna()
        loss.plot(curve.index, curve, "o-", color=colour, markersize=3, label=name)
    rate.plot(by_epoch.index, by_epoch.lr, "o-", color=GREEN, markersize=3)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(ylabel="loss (nats)")
    rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    loss.legend(frameon=False)
    plain(loss, rate)
    return figure


def volume_ratio_histogram(ratios: np.ndarray | pd.Series) -> Figure:
    """Volume of the crop as a share of the study's (figure 4).

    Raises:
        UserError: no ratios, or one that is NaN or outside [0,1].
    """
    values = np.asarray(ratios, dtype=np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise UserError("volume ratios must be in [0,1], at least one: leave failed studies out")
    figure = KitFigure(figsize=(6, 3.2), layout="constrained")
    ax = figure.subplots()
    ax.hist(100 * values, bins=np.arange(0, 102.5, 2.5), color=BLUE, edgecolor="white", lw=0.4)
    mean = 100 * values.mean()
    ax.axvline(mean, color=RED, ls="--", label=f"mean {mean:.0f} %, {len(values)} studies")
    ax.set(xlabel="volume of the crop (% of the study)", ylabel="studies", xlim=(0, 100))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    plain(ax)
    return figure


def landmark_presence(table: pd.DataFrame) -> Figure:
    """Share of the studies in which each landmark was found (figure 6).

    Args:
        table: the landmarks table: StudyInstanceUID, name, present.

    Raises:
        UserError: a column missing, no rows, or an unknown landmark.
    """
    check_columns(table, ("StudyInstanceUID", "name", "present"))
    names = _known_landmarks(table)
    found = table[table.present].groupby("name").StudyInstanceUID.nunique()
    share = 100 * found.reindex(names, fill_value=0) / table.StudyInstanceUID.nunique()
    figure, ax = _landmark_rows(names)
    ax.barh(names, share, color=BLUE)
    ax.bar_label(ax.containers[0], fmt="%.0f", padding=2, fontsize=8)
    ax.set(xlabel="studies with the landmark (%)", xlim=(0, 106))
    return figure


def landmark_errors(table: pd.DataFrame) -> Figure:
    """Distance between predicted and true landmarks: each one, the quartiles and the median.

    Args:
        table: a row a landmark and study or slice: name, error_mm.

    Raises:
        UserError: a column missing, no rows, NaN, or an unknown landmark.
    """
    check_columns(table, ("name", "error_mm"))
    if table.error_mm.isna().any():
        raise UserError("error_mm has NaN: leave out the landmarks that a study lacks")
    names = _known_landmarks(table)
    figure, ax = _landmark_rows(names)
    low, middle, high = (
        table.groupby("name").error_mm.quantile(q)[names] for q in (0.25, 0.5, 0.75)
    )
    ax.plot(table.error_mm, table.name.map(names.index), ".", color=SKY, ms=3, alpha=0.5, zorder=1)
    ax.hlines(range(len(names)), low, high, color=BLUE, lw=5, label="quartiles", zorder=2)
    ax.plot(middle, range(len(names)), "o", color="white", mec=BLUE, ms=5, label="median")
    ax.set(xlabel="distance to the true landmark (mm)", xlim=(0, None))
    ax.set_title(f"median of all {table.error_mm.median():.1f} mm", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return figure


def _landmark_rows(names: list[str]) -> tuple[Figure, Axes]:
    figure = KitFigure(figsize=(7, 0.24 * len(names) + 1.1), layout="constrained")
    ax = figure.subplots()
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.invert_yaxis()
    plain(ax)
    return figure, ax


def _known_landmarks(table: pd.DataFrame) -> list[str]:
    """Landmarks of the table, in the paper's order."""
    unknown = sorted(set(table.name) - set(LANDMARKS))
    if unknown:
        raise UserError(f"landmark {unknown[0]!r} is none of the paper's 20")
    return [name for name in LANDMARKS if name in set(table.name)]
