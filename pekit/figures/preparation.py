"""Figures of the audit and of the preparation: studies, crop, landmarks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from pekit.common.errors import UserError
from pekit.dataset.schema import LANDMARKS
from pekit.figures.base import (
    BLUE,
    ORANGE,
    RED,
    SKY,
    YELLOW,
    KitFigure,
    check_columns,
    grid_of_axes,
    plain,
)
from pekit.figures.overlays import mark_sides
from pekit.figures.slices import PE_WINDOW

STATUS_COLOURS = {"ok": BLUE, "repaired": ORANGE, "excluded": RED}


def audit_overview(table: pd.DataFrame) -> Figure:
    """Covered height against slice distance, and the number of slices, coloured by status.

    Args:
        table: one row per study of the audit: status, slices, missing, spacing_z (mm). The last
            three are empty for studies that could not be read; only the legend counts these.

    Raises:
        UserError: a column is missing, no rows, an unknown status, or no study could be read.
    """
    check_columns(table, ("status", "slices", "missing", "spacing_z"))
    if unknown := set(table["status"]) - set(STATUS_COLOURS):
        raise UserError(f"unknown status {sorted(unknown)[0]!r}")
    if table["slices"].isna().all():
        raise UserError("no study could be read: see the reasons in the table")
    figure = KitFigure(
        figsize=(10, 3.6), layout="constrained", patient=False, caption="Sizes of the studies"
    )
    where, counts = figure.subplots(1, 2, width_ratios=(3, 2))
    bins = np.histogram_bin_edges(table["slices"].dropna().astype(float), bins=20)
    parts = {name: rows for name, rows in table.groupby("status") if len(rows)}
    for name, colour in STATUS_COLOURS.items():
        if name not in parts:
            continue
        rows = parts[name]
        read = rows.dropna(subset="slices").astype({"slices": float, "missing": float})
        height = (read["slices"] + read["missing"] - 1) * read["spacing_z"].astype(float)
        label = f"{name}: {len(rows)}"
        if len(read) < len(rows):
            label += f" ({len(rows) - len(read)} not readable)"
        where.scatter(read["spacing_z"].astype(float), height, s=14, color=colour, label=label)
    stacked = [parts[n]["slices"].dropna().astype(float) for n in STATUS_COLOURS if n in parts]
    colours = [colour for name, colour in STATUS_COLOURS.items() if name in parts]
    counts.hist(stacked, bins=bins, stacked=True, color=colours, edgecolor="white", lw=0.4)
    counts.yaxis.set_major_locator(MaxNLocator(integer=True))
    where.set(xlabel="slice distance (mm)", ylabel="covered height (mm)")
    counts.set(xlabel="slices per study", ylabel="studies")
    where.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    plain(where, counts)
    return figure


def crop_gain(
    volume_hu: np.ndarray,
    lungs: np.ndarray,
    heart: np.ndarray,
    cropped_hu: np.ndarray,
    box_zyx: np.ndarray,
    z_indices: Sequence[int],
    window: tuple[float, float] = PE_WINDOW,
) -> Figure:
    """Whole slices with lungs and heart coloured above, their crops below, at the same size.

    All are scaled to a square, as for the network. A rectangle bounds the heart in both (the lungs
    if a slice has no heart); the title gives its share of the image.

    Args:
        volume_hu: `(Z, Y, X)` HU, the whole study.
        lungs, heart: `(Z, Y, X)` bool.
        cropped_hu: the crop of `box_zyx`, as in the store.
        box_zyx: `(3, 2)` start and stop voxels.
        z_indices: slices of the whole study, inside the crop box.
        window: centre and width in HU.

    Raises:
        UserError: no slices, a slice outside the crop box, or arrays of other shapes.
    """
    if lungs.shape != volume_hu.shape or heart.shape != volume_hu.shape:
        raise UserError(f"masks {lungs.shape}, {heart.shape}: the volume is {volume_hu.shape}")
    (z0, z1), (y0, y1), (x0, x1) = np.asarray(box_zyx)
    if cropped_hu.shape != (z1 - z0, y1 - y0, x1 - x0):
        raise UserError(f"the crop is {cropped_hu.shape}, not of the box {box_zyx}")
    if not len(z_indices) or not all(z0 <= z < z1 for z in z_indices):
        raise UserError(f"z_indices {list(z_indices)}: choose slices in {z0}..{z1 - 1}")
    n = len(z_indices)
    caption = "Lungs and heart in whole slices, and below in their crops, as the network sees them"
    figure, axes = grid_of_axes(2 * n, columns=n, width=2.8, height=3.0, caption=caption)
    for above, below, z in zip(axes[:n], axes[n:], z_indices, strict=True):
        whole = _grey(volume_hu[z], window)
        for mask, colour in ((lungs[z], BLUE), (heart[z], RED)):
            whole[mask] = 0.6 * whole[mask] + 0.4 * np.array(to_rgb(colour))
        structure, name = (heart[z], "heart") if heart[z].any() else (lungs[z], "lungs")
        _panel(above, whole, structure, f"z = {z}, whole slice", name)
        inside = structure[y0:y1, x0:x1]
        _panel(below, _grey(cropped_hu[z - z0], window), inside, "its crop", name)
    mark_sides(axes[0])
    handles = [
        Patch(color=BLUE, alpha=0.6, label="lungs"),
        Patch(color=RED, alpha=0.6, label="heart"),
        Patch(fill=False, edgecolor=YELLOW, label="the same structure"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure


def _grey(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    # A plane (Y, X) HU as (Y, X, 3) RGB in [0, 1].
    centre, width = window
    grey = np.clip((plane.astype(np.float64) - centre) / width + 0.5, 0, 1)
    return np.repeat(grey[..., None], 3, axis=2)


def _panel(ax: Axes, image: np.ndarray, structure: np.ndarray, title: str, name: str) -> None:
    # An image scaled to the unit square, with the bounding box of a structure (Y, X) bool.
    ax.imshow(image, extent=(0, 1, 1, 0))
    ax.set_xticks([])
    ax.set_yticks([])
    if structure.any():
        rows, columns = (np.flatnonzero(structure.any(axis=axis)) for axis in (1, 0))
        top, bottom = rows[0] / len(structure), (rows[-1] + 1) / len(structure)
        left, right = columns[0] / structure.shape[1], (columns[-1] + 1) / structure.shape[1]
        size = (right - left, bottom - top)
        ax.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=YELLOW, lw=1.4))
        title += f": {name} {size[0] * size[1]:.0%}"
    ax.set_title(title, fontsize=9)


def volume_ratio_histogram(ratios: np.ndarray | pd.Series) -> Figure:
    """Histogram of the volume of the crop as a share of the study (figure 4).

    Raises:
        UserError: no ratios, or a ratio that is NaN or outside [0, 1].
    """
    values = np.asarray(ratios, dtype=np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise UserError("volume ratios: give one or more, all in [0, 1], without failed studies")
    figure = KitFigure(
        figsize=(6, 3.2), layout="constrained", patient=False, caption="How much the crop leaves"
    )
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
        UserError: a column is missing, no rows, or an unknown landmark.
    """
    check_columns(table, ("StudyInstanceUID", "name", "present"))
    names = _known_landmarks(table)
    found = table[table.present].groupby("name").StudyInstanceUID.nunique()
    share = 100 * found.reindex(names, fill_value=0) / table.StudyInstanceUID.nunique()
    figure, ax = _landmark_rows(names, "Studies in which each landmark was found")
    ax.barh(names, share, color=BLUE)
    ax.bar_label(ax.containers[0], fmt="%.0f", padding=2, fontsize=8)
    ax.set(xlabel="studies with the landmark (%)", xlim=(0, 106))
    return figure


def landmark_errors(table: pd.DataFrame) -> Figure:
    """Distance between predicted and true landmarks: single errors, quartiles and median.

    Args:
        table: one row per landmark and study or slice: name, error_mm.

    Raises:
        UserError: a column is missing, no rows, NaN, or an unknown landmark.
    """
    check_columns(table, ("name", "error_mm"))
    if table.error_mm.isna().any():
        raise UserError("error_mm has NaN: leave out landmarks that are absent in a study")
    names = _known_landmarks(table)
    figure, ax = _landmark_rows(names, "Error of each landmark")
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


def _landmark_rows(names: list[str], caption: str) -> tuple[Figure, Axes]:
    size = (7, 0.24 * len(names) + 1.1)
    figure = KitFigure(figsize=size, layout="constrained", patient=False, caption=caption)
    ax = figure.subplots()
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.invert_yaxis()
    plain(ax)
    return figure, ax


def _known_landmarks(table: pd.DataFrame) -> list[str]:
    # The landmarks of the table, in the paper's order.
    unknown = sorted(set(table.name) - set(LANDMARKS))
    if unknown:
        raise UserError(f"landmark {unknown[0]!r} is not one of the paper's 20")
    return [name for name in LANDMARKS if name in set(table.name)]
