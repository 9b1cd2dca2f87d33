"""Common parts of all figures: figure class, PNG bytes, palette, grids of axes."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pekit.common.errors import UserError

# Okabe and Ito's palette, safe for colour-blind readers; orange and purple darker, so that every
# line on white has a contrast of 3 or more. Each meaning has one colour.
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#A66A00", "#009E73", "#D55E00", "#9B4F80"
SKY, YELLOW, AMBER = "#56B4E9", "#F0E442", "#E69F00"  # on images, which are dark
HULL, BOX, CLOT, LANDMARK, TRUTH = SKY, AMBER, RED, YELLOW, GREEN
# Hops and models: told apart without colour too.
HOP_COLOURS = (BLUE, ORANGE, PURPLE, RED)
HOP_LINES = ("-", (0, (6, 1.5)), "-.", (0, (3, 1, 1, 1, 1, 1)))
HOP_MARKERS = ("o", "s", "^", "D")


def hop_style(i: int) -> dict[str, object]:
    """Colour and dashes of the i-th hop or model; with more than four the dashes change."""
    n = len(HOP_COLOURS)
    return {"color": HOP_COLOURS[i % n], "ls": HOP_LINES[(i + i // n) % n]}


class KitFigure(Figure):
    """A matplotlib figure that shows itself in Jupyter without pyplot.

    Args:
        patient: whether it shows images of a patient. If images may not leave this machine, a run
            keeps such figures here. Functions that draw charts set it to False.
        caption: what it shows, in words; kept in PNG files as their description.
    """

    def __init__(
        self, *args: object, patient: bool = True, caption: str = "", **options: object
    ) -> None:
        super().__init__(*args, **options)
        self.patient, self.caption = patient, caption

    def savefig(self, target: object, **options: object) -> None:
        if options.get("format") == "png" and self.caption:
            options["metadata"] = {"Description": self.caption}
        super().savefig(target, **options)

    def _repr_png_(self) -> bytes:
        return to_png(self)


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file, without margins."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def grid_of_axes(
    n: int,
    columns: int,
    width: float,
    height: float,
    sharex: bool = True,
    layout: str = "compressed",
    patient: bool = True,
    caption: str = "",
) -> tuple[Figure, list[Axes]]:
    """A figure of `n` axes, each `width` x `height` inches; outer tick labels.

    Rows have at most `columns` axes, and as equal numbers of them as possible.

    Raises:
        UserError: `n` is 0.
    """
    if not n:
        raise UserError("nothing to draw: give at least one study, slice or table")
    rows = ceil(n / columns)
    columns = ceil(n / rows)
    size = (width * columns + 0.5, height * rows + 0.6)
    figure = KitFigure(figsize=size, layout=layout, patient=patient, caption=caption)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).flat)
    for ax in axes[n:]:
        ax.remove()
    for ax in axes[:n]:
        ax.tick_params(labelsize=8)
    for ax in axes[n - columns : n]:  # the last of its column
        ax.tick_params(labelbottom=True)
    return figure, axes[:n]


def label_outer(axes: Sequence[Axes], x: str, y: str) -> None:
    """Label the x axes that are the last of their column and the y axes of the first column."""
    last = {ax.get_subplotspec().colspan.start: ax for ax in axes}
    for ax in axes:
        ax.set_xlabel(x if ax in last.values() else "", fontsize=9)
        ax.set_ylabel(y if ax.get_subplotspec().is_first_col() else "", fontsize=9)


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
