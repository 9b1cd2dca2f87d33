"""What all figures share: the figure class, its PNG bytes, the palette, and axes in a grid."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pekit.common.errors import UserError

# Okabe and Ito's palette: told apart by colour-blind readers. One colour, one meaning.
BLUE, ORANGE, GREEN, RED, SKY, YELLOW, PURPLE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#F0E442", "#CC79A7",
)  # fmt: skip
HOP_COLOURS = (BLUE, ORANGE, PURPLE, RED)
HULL, BOX, CLOT, LANDMARK, TRUTH = SKY, ORANGE, RED, YELLOW, GREEN


class KitFigure(Figure):
    """A matplotlib figure that shows itself in Jupyter without pyplot.

    Args:
        patient: whether it shows a patient's images. A run keeps such figures on this machine where
            images may not leave it, so a function that draws a chart says False.
    """

    def __init__(self, *args: object, patient: bool = True, **options: object) -> None:
        super().__init__(*args, **options)
        self.patient = patient

    def _repr_png_(self) -> bytes:
        return to_png(self)


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def grid_of_axes(
    n: int,
    columns: int,
    width: float,
    height: float,
    sharex: bool = True,
    layout: str = "compressed",
    patient: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure with n axes in rows of `columns`, sizes in inches each; only outer tick labels."""
    if not n:
        raise UserError("nothing to draw: give at least one study, slice or table")
    columns = min(columns, n)
    rows = ceil(n / columns)
    figure = KitFigure(
        figsize=(width * columns + 0.5, height * rows + 0.6), layout=layout, patient=patient
    )
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).flat)
    for ax in axes[n:]:
        ax.remove()
    for ax in axes[:n]:
        ax.tick_params(labelsize=8)
    return figure, axes[:n]


def plain(*axes: Axes) -> None:
    """No frame at the top and right, and a faint grid."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, lw=0.5)
        ax.set_axisbelow(True)


def check_columns(table: pd.DataFrame, columns: Sequence[str], empty: bool = False) -> None:
    """Refuse a table that lacks a column, or has no rows where `empty` is not allowed."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"the table lacks {', '.join(missing)}: it has {list(table)}")
    if table.empty and not empty:
        raise UserError("the table is empty: nothing to draw")
