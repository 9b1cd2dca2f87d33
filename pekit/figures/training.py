"""Loss curves of a training."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pekit.common.errors import UserError
from pekit.figures.base import BLUE, GREEN, ORANGE, KitFigure, check_columns, plain


def loss_curves(log: pd.DataFrame) -> Figure:
    """Training and validation loss, and the learning rate below them.

    Args:
        log: columns epoch, train_loss, validation_loss, lr; others are ignored. Several incomplete
            rows per epoch, as Lightning's CSV logger writes them, are merged.

    Raises:
        UserError: a column is missing, or there is no validation loss.
    """
    check_columns(log, ("epoch", "train_loss", "validation_loss", "lr"))
    by_epoch = log.groupby("epoch")[["train_loss", "validation_loss", "lr"]].last()
    if by_epoch.validation_loss.isna().all():
        raise UserError("the log has no validation loss: was the training stopped in epoch 0?")
    figure = KitFigure(
        figsize=(7, 4.2),
        layout="constrained",
        patient=False,
        caption="Loss in training and validation, and learning rate, by epoch",
    )
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, colour, marker in (("train", BLUE, "o-"), ("validation", ORANGE, "s--")):
        curve = by_epoch[f"{name}_loss"].dropna()
        loss.plot(curve.index, curve, marker, color=colour, markersize=3, label=name)
    rate.plot(by_epoch.index, by_epoch.lr, "o-", color=GREEN, markersize=3)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(ylabel="loss (nats)")
    rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    loss.legend(frameon=False)
    plain(loss, rate)
    return figure
