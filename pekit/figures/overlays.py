"""What is drawn on one image: the slice itself, contours, the crop box, landmarks and the sides."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pekit.figures.base import BOX, CLOT, HULL, LANDMARK, check_columns

_OUTLINE = [withStroke(linewidth=1.5, foreground="black")]
NEAR_MM = 5.0  # a landmark is drawn on the slices this near to it


def draw_image(
    ax: Axes,
    image: np.ndarray,
    spacing: Sequence[float],
    window: tuple[float, float],
    origin: str = "upper",
) -> None:
    """A plane `(rows, columns)` HU in grey; axes in units of `spacing`, window centre and width."""
    centre, width = window
    (rows, columns), (dy, dx) = image.shape, spacing
    bottom, top = (
        (-dy / 2, (rows - 0.5) * dy) if origin == "lower" else ((rows - 0.5) * dy, -dy / 2)
    )
    ax.imshow(
        image,
        cmap="gray",
        vmin=centre - width / 2,
        vmax=centre + width / 2,
        origin=origin,
        extent=(-dx / 2, (columns - 0.5) * dx, bottom, top),
    )


def draw_contour(ax: Axes, mask: np.ndarray, spacing: Sequence[float], colour: str) -> None:
    """The outline of a mask `(rows, columns)` bool; nothing where it is empty."""
    if mask.any():
        # Padded, so that a mask that reaches the border has a closed outline.
        padded = np.pad(np.asarray(mask, dtype=np.float32), 1)
        x = np.arange(-1, mask.shape[1] + 1) * spacing[1]
        y = np.arange(-1, mask.shape[0] + 1) * spacing[0]
        ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1)


def draw_box(
    ax: Axes, rows: Sequence[int], columns: Sequence[int], spacing: Sequence[float]
) -> None:
    """The crop box between start and stop voxels of rows and columns."""
    corner = ((columns[0] - 0.5) * spacing[1], (rows[0] - 0.5) * spacing[0])
    size = ((columns[1] - columns[0]) * spacing[1], (rows[1] - rows[0]) * spacing[0])
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, lw=1.4))


def draw_landmarks_near(
    ax: Axes, landmarks: pd.DataFrame, z: int, spacing: Sequence[float]
) -> None:
    """The names and places of the landmarks near slice z."""
    near = (landmarks.z - z).abs() * spacing[0] <= max(NEAR_MM, spacing[0] / 2)
    for point in present_landmarks(landmarks[near]).itertuples():
        draw_point(ax, point.x * spacing[2], point.y * spacing[1], fill(point.name, 18))


def draw_point(ax: Axes, x: float, y: float, text: str) -> None:
    """A cross with a text beside it, in the units of the axes."""
    ax.plot(x, y, "+", color=LANDMARK, ms=7, mew=1.5, path_effects=_OUTLINE)
    # Away from the middle, so that the names of a pair do not meet.
    right = x > sum(ax.get_xlim()) / 2
    label = ax.annotate(
        text, (x, y), (4 if right else -4, 3), textcoords="offset points", fontsize=7,
        ha="left" if right else "right", color=LANDMARK, path_effects=_OUTLINE, clip_on=True,
    )  # fmt: skip
    label.set_in_layout(False)


def present_landmarks(landmarks: pd.DataFrame) -> pd.DataFrame:
    """The landmarks that the study has: all, where the table has no column `present`."""
    check_columns(landmarks, ("name", "z", "y", "x"), empty=True)
    return landmarks[landmarks.present] if "present" in landmarks else landmarks


def mark_sides(ax: Axes) -> None:
    """Mark the patient's right and left."""
    for x, side in ((0.03, "R"), (0.97, "L")):
        ax.text(
            x, 0.97, side, transform=ax.transAxes, color="white", ha="center", va="top",
            fontsize=9, path_effects=_OUTLINE,
        )  # fmt: skip


def add_legend(figure: Figure, **drawn: object) -> None:
    """A legend above the axes of what was drawn: those of hull, box, clot, landmark not None."""
    colours = {"hull": HULL, "box": BOX, "clot": CLOT, "landmark": LANDMARK}
    names = {"box": "crop box"}
    handles = [
        Line2D([], [], color=colours[name], label=names.get(name, name),
               **({"marker": "+", "ls": "", "mew": 2} if name == "landmark" else {}))
        for name, what in drawn.items()
        if what is not None
    ]  # fmt: skip
    if handles:
        figure.legend(
            handles=handles, loc="outside upper right", ncols=4, frameon=True, fontsize=8,
            facecolor="#404040", labelcolor="white", edgecolor="none",
        )  # fmt: skip
