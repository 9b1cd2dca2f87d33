"""Drawing on one image: slice, contours, crop box, landmarks, attribution, patient's sides."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pekit.figures.base import BOX, CLOT, HULL, LANDMARK, check_columns

_OUTLINE = [withStroke(linewidth=1.5, foreground="black")]
_EDGE = [withStroke(linewidth=2.8, foreground="black")]  # of lines: seen on every grey
NEAR_MM = 5.0  # a landmark is drawn on slices within this distance


def draw_image(
    ax: Axes,
    image: np.ndarray,
    spacing: Sequence[float],
    window: tuple[float, float],
    origin: str = "upper",
) -> None:
    """Draw `(rows, columns)` HU in grey, axes in units of `spacing`; window: centre and width."""
    centre, width = window
    (rows, columns), (dy, dx) = image.shape, spacing
    bottom, top = (
        (-dy / 2, (rows - 0.5) * dy) if origin == "lower" else ((rows - 0.5) * dy, -dy / 2)
    )
    ax.set_facecolor("black")  # air, where something is drawn outside the image
    ax.imshow(
        image,
        cmap="gray",
        vmin=centre - width / 2,
        vmax=centre + width / 2,
        origin=origin,
        extent=(-dx / 2, (columns - 0.5) * dx, bottom, top),
    )


def draw_contour(ax: Axes, mask: np.ndarray, spacing: Sequence[float], colour: str) -> None:
    """Draw the outline of a mask `(rows, columns)` bool; nothing if it is empty."""
    if mask.any():
        # Padded, so that the outline is closed at the border of the image.
        padded = np.pad(np.asarray(mask, dtype=np.float32), 1)
        x = np.arange(-1, mask.shape[1] + 1) * spacing[1]
        y = np.arange(-1, mask.shape[0] + 1) * spacing[0]
        lines = ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.2)
        lines.set_path_effects(_EDGE)


def draw_box(
    ax: Axes, rows: Sequence[int], columns: Sequence[int], spacing: Sequence[float]
) -> None:
    """Draw the crop box from start and stop voxels of rows and columns."""
    corner = ((columns[0] - 0.5) * spacing[1], (rows[0] - 0.5) * spacing[0])
    size = ((columns[1] - columns[0]) * spacing[1], (rows[1] - rows[0]) * spacing[0])
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, lw=1.4, path_effects=_EDGE))


def draw_landmarks_near(
    ax: Axes, landmarks: pd.DataFrame, z: int, spacing: Sequence[float]
) -> None:
    """Draw the landmarks near slice `z`, with their names."""
    near = (landmarks.z - z).abs() * spacing[0] <= max(NEAR_MM, spacing[0] / 2)
    points = present_landmarks(landmarks[near])
    names = [fill(name, 18) for name in points.name]
    draw_points(ax, points.x * spacing[2], points.y * spacing[1], names, gap=0.17)


def draw_points(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    gap: float,
    beside: bool = False,
) -> None:
    """Draw a cross at each point; a thin line leads to its name, at the left or right of the image.

    Args:
        x, y: in the units of the axes.
        names: one per point; none overlaps another.
        gap: smallest distance between names, as a share of the image's height.
        beside: the names stand beside the image, not in it.
    """
    points = pd.DataFrame({"x": list(x), "y": list(y), "name": list(names)})
    if points.empty:
        return
    low, high = sorted(ax.get_ylim())
    middle = points["x"].median() if len(points) > 1 else sum(ax.get_xlim()) / 2
    colour = "black" if beside else LANDMARK
    for right, rows in points.groupby(points["x"] > middle):
        rows = rows.sort_values("y")
        step = gap * (high - low)
        margin = 0.4 * step
        if beside:  # past the image, where it is too low for the names
            margin = min(margin, (high - low - step * (len(rows) - 1)) / 2)
        heights = spread(rows["y"].to_numpy(), step, low + margin, high - margin)
        at = (1.03 if right else -0.03) if beside else (0.98 if right else 0.02)
        for row, height in zip(rows.itertuples(), heights, strict=True):
            ax.annotate(
                row.name, (row.x, row.y), (at, height), textcoords=ax.get_yaxis_transform(),
                ha="left" if right == beside else "right", va="center",
                fontsize=8 if beside else 7, color=colour,
                path_effects=None if beside else _OUTLINE,
                arrowprops={"arrowstyle": "-", "color": LANDMARK, "lw": 0.7, "shrinkA": 1,
                            "path_effects": _OUTLINE},
            )  # fmt: skip
    ax.plot(
        points["x"], points["y"], "+", color=LANDMARK, ms=7, mew=1.5, path_effects=_OUTLINE,
        clip_on=False,
    )  # fmt: skip


def spread(values: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places near ascending values, at least `gap` apart, from `low` to `high`.

    If they do not fit, they have equal distances.
    """
    places = np.clip(values.astype(np.float64), low, high)
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], high)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    return places


def present_landmarks(landmarks: pd.DataFrame) -> pd.DataFrame:
    """The landmarks that are present in the study; all, if the table has no column `present`."""
    check_columns(landmarks, ("name", "z", "y", "x"), empty=True)
    return landmarks[landmarks.present] if "present" in landmarks else landmarks


def share_of_peak(plane: np.ndarray) -> np.ndarray:
    """Scale the magnitude of an attribution `(Y, X)` to [0, 1] for display, float64.

    The 99.9th percentile becomes 1, so that a single voxel does not dim the rest.
    """
    magnitude = np.abs(plane).astype(np.float64)
    peak = np.quantile(magnitude, 0.999) or magnitude.max() or 1.0
    return np.clip(magnitude / peak, 0, 1)


def draw_heat(ax: Axes, plane: np.ndarray) -> AxesImage:
    """Draw an attribution `(Y, X)` of any scale and sign over a slice, low values transparent."""
    share = share_of_peak(plane)
    return ax.imshow(share, cmap="inferno", alpha=0.85 * share**0.6, vmin=0, vmax=1)


def mark_sides(ax: Axes) -> None:
    """Mark the patient's right and left."""
    for x, side in ((0.03, "R"), (0.97, "L")):
        ax.text(
            x, 0.97, side, transform=ax.transAxes, color="white", ha="center", va="top",
            fontsize=9, path_effects=_OUTLINE,
        )  # fmt: skip


def add_legend(figure: Figure, **drawn: object) -> None:
    """Add a legend above the axes for each of hull, box, clot and landmark that is not None."""
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
