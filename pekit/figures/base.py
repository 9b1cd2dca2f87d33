"""Common parts of all figures: figure class, PNG bytes, palette, grids of axes."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pekit.common.errors import UserError

# Okabe and Ito's palette, safe for colour-blind readers. Each meaning has one colour.
BLUE, ORANGE, GREEN, RED, SKY, YELLOW, PURPLE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#F0E442", "#CC79A7",
)  # fmt: skip
HOP_COLOURS = (BLUE, ORANGE, PURPLE, RED)
HULL, BOX, CLOT, LANDMARK, TRUTH = SKY, ORANGE, RED, YELLOW, GREEN


class KitFigure(Figure):
    """A matplotlib figure that shows itself in Jupyter without pyplot.

    Args:
        patient: whether it shows images of a patient. If images may not leave this machine, a run
            keeps such figures here. Functions that draw charts set it to False.
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
    """A figure of `n` axes in rows of `columns`, each `width` x `height` inches; outer tick labels.

    Raises:
        UserError: `n` is 0.
    """
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
    """Remove the frame at the top and right, and add a faint grid."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, lw=0.5)
        ax.set_axisbelow(True)


def check_columns(table: pd.DataFrame, columns: Sequence[str], empty: bool = False) -> None:
    """Check that a table has `columns` and, unless `empty`, rows.

    Raises:
        UserError: a column is missing, or there are no rows.
    """
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"the table lacks {', '.join(missing)}: it has {list(table)}")
    if table.empty and not empty:
        raise UserError("the table is empty: nothing to draw")
