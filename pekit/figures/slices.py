"""Axial slices and coronal sections of a CT, and attributions over slices.

Images have the radiological orientation: the patient's right on the left, front up.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pekit.common.errors import UserError
from pekit.figures.base import CLOT, HULL, SKY, KitFigure, grid_of_axes, label_outer
from pekit.figures.overlays import (
    add_legend,
    draw_box,
    draw_contour,
    draw_heat,
    draw_image,
    draw_landmarks_near,
    draw_points,
    mark_sides,
    present_landmarks,
)

PE_WINDOW = (100, 700)  # centre and width in HU of the paper's window for arteries with contrast


def slice_grid(
    volume_hu: np.ndarray,
    z_indices: Sequence[int],
    window: tuple[float, float] = PE_WINDOW,
    hull: np.ndarray | None = None,
    box_zyx: np.ndarray | None = None,
    clot: np.ndarray | None = None,
    landmarks: pd.DataFrame | None = None,
    spacing_mm: Sequence[float] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Axial slices in an HU window, with hull, crop box, clots and landmarks.

    Args:
        volume_hu: `(Z, Y, X)` HU.
        z_indices: slices to show.
        window: centre and width in HU.
        hull: `(Z, Y, X)` bool, drawn as a contour; `clot` the same.
        box_zyx: `(3, 2)` start and stop voxels; titles mark slices outside the crop box.
        landmarks: name; z, y, x in voxels; present (optional). Drawn on slices within 5 mm.
        spacing_mm: (z, y, x); None: the axes are in voxels.
        titles: one per slice; None: its z.

    Raises:
        UserError: no slices, a slice outside the volume, or a mask of another shape.
    """
    _check_shapes(volume_hu, 3, hull=hull, clot=clot)
    _check_slices(z_indices, len(volume_hu))
    spacing, unit = _spacing(spacing_mm)
    aspect = volume_hu.shape[1] * spacing[1] / (volume_hu.shape[2] * spacing[2])
    drawn = {"hull": hull, "crop box": box_zyx, "clots": clot, "landmarks": landmarks}
    names = ", ".join(name for name, what in drawn.items() if what is not None)
    figure, axes = grid_of_axes(
        len(z_indices),
        columns=4,
        width=2.8,
        height=2.8 * aspect + 0.3,
        caption="Axial slices" + (f" with {names}" if names else ""),
    )
    for i, (ax, z) in enumerate(zip(axes, z_indices, strict=True)):
        draw_image(ax, volume_hu[z], spacing[1:], window)
        for mask, colour in ((hull, HULL), (clot, CLOT)):
            if mask is not None:
                draw_contour(ax, mask[z], spacing[1:], colour)
        title = titles[i] if titles is not None else f"z = {z}"
        if box_zyx is not None:
            if box_zyx[0][0] <= z < box_zyx[0][1]:
                draw_box(ax, box_zyx[1], box_zyx[2], spacing[1:])
            else:
                title += " (outside the crop box)"
        if landmarks is not None:
            draw_landmarks_near(ax, landmarks, z, spacing)
        ax.set_title(title, fontsize=9)
    mark_sides(axes[0])
    label_outer(axes, f"x to the patient's left ({unit})", f"y to the back ({unit})")
    add_legend(figure, hull=hull, box=box_zyx, clot=clot, landmark=landmarks)
    return figure


def coronal(
    volume_hu: np.ndarray,
    spacing_mm: Sequence[float],
    hull: np.ndarray | None = None,
    box_zyx: np.ndarray | None = None,
    landmarks: pd.DataFrame | None = None,
    y: int | None = None,
    window: tuple[float, float] = (40, 800),
) -> Figure:
    """A coronal section, head up, with hull, crop box and all landmarks projected onto it.

    Args:
        volume_hu: `(Z, Y, X)` HU, z from feet to head.
        spacing_mm: (z, y, x).
        hull: `(Z, Y, X)` bool; the contour of its section is drawn.
        box_zyx: `(3, 2)` start and stop voxels.
        landmarks: name; z, y, x in voxels; present (optional).
        y: section to show; None: the middle of the crop box or of the volume.
        window: centre and width in HU.

    Raises:
        UserError: y outside the volume, or a hull of another shape.
    """
    _check_shapes(volume_hu, 3, hull=hull)
    if y is None:
        y = volume_hu.shape[1] // 2 if box_zyx is None else int(np.mean(box_zyx[1]))
    if not 0 <= y < volume_hu.shape[1]:
        raise UserError(f"y={y}: choose a section in 0..{volume_hu.shape[1] - 1}")
    plane = (spacing_mm[0], spacing_mm[2])
    height, width = np.array(volume_hu[:, y].shape) * plane
    points = present_landmarks(landmarks) if landmarks is not None else None
    named = points is not None and len(points) > 0
    figure = KitFigure(
        figsize=(5.6 + 4 * named, 5 * height / width + 1),
        layout="compressed",
        caption="Coronal section" + (" with all landmarks, projected onto it" if named else ""),
    )
    ax = figure.subplots()
    draw_image(ax, volume_hu[:, y], plane, window, origin="lower")
    if hull is not None:
        draw_contour(ax, hull[:, y], plane, HULL)
    if box_zyx is not None:
        draw_box(ax, box_zyx[0], box_zyx[2], plane)
    mark_sides(ax)
    ax.set(xlabel="x to the patient's left (mm)", ylabel="z to the head (mm)")
    ax.set_title(f"coronal section y = {y}", fontsize=10)
    if named:  # the names take the place of the z axis
        gap = 0.17 * width / (5 * height)  # inches, as a share of the image's height
        draw_points(ax, points.x * plane[1], points.z * plane[0], points.name, gap, beside=True)
        ax.yaxis.set_visible(False)
    add_legend(figure, hull=hull, box=box_zyx, landmark=landmarks)
    return figure


def attribution_overlay(
    slice_hu: np.ndarray,
    attribution: np.ndarray | Mapping[str, np.ndarray],
    titles: Sequence[str],
    clot: np.ndarray | None = None,
    caption: str = "",
) -> Figure:
    """Slices in the PE window above, their attributions below (figures 8 and 9).

    Each attribution is scaled by `share_of_peak`, so colours cannot be compared between slices.

    Args:
        slice_hu: `(N, Y, X)` HU.
        attribution: `(N, Y, X)` of any scale and sign; or several by hop, one row each.
        titles: N titles, one per slice.
        clot: `(N, Y, X)` bool, drawn as a contour.
        caption: method and baseline of the attribution.

    Raises:
        UserError: arrays of different shapes, or another number of titles than slices.
    """
    rows = attribution if isinstance(attribution, Mapping) else {"attribution": attribution}
    _check_shapes(slice_hu, 3, clot=clot, **rows)
    if len(titles) != len(slice_hu):
        raise UserError(f"{len(titles)} titles for {len(slice_hu)} slices: give one per slice")
    n, aspect = len(slice_hu), slice_hu.shape[1] / slice_hu.shape[2]
    figure, axes = grid_of_axes(
        (1 + len(rows)) * n,
        columns=n,
        width=2.8 + 1.2 / n,  # with the colour bar
        height=2.8 * aspect + 0.2,
        caption="Slices above, below what each hop used of them"
        + (f": {caption}" if caption else ""),
    )
    for k, ax in enumerate(axes):
        draw_image(ax, slice_hu[k % n], (1, 1), PE_WINDOW)
        if clot is not None:
            draw_contour(ax, clot[k % n], (1, 1), CLOT if k < n else SKY)
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize=9)
    for row, maps in enumerate(rows.values(), start=1):
        for ax, plane in zip(axes[row * n :], maps, strict=False):
            heat = draw_heat(ax, plane)
    label_outer(axes, "x (voxels of the crop)", "y (voxels)")
    for row, name in enumerate(rows, start=1):
        if len(rows) > 1:
            axes[row * n].set_ylabel(f"{name.replace('hop', 'hop ')}\ny (voxels)", fontsize=9)
    mark_sides(axes[0])
    method = f"\n{fill(caption, 45)}" if caption else ""
    label = f"attribution (share of the slice's peak){method}"
    figure.colorbar(heat, ax=list(axes[n:]), label=label, shrink=0.9)
    if clot is not None:
        handles = [
            Line2D([], [], color=colour, label=f"clot ({row})")
            for colour, row in ((CLOT, "top"), (SKY, "below"))
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _check_slices(z_indices: Sequence[int], n: int) -> None:
    if not len(z_indices) or not all(0 <= z < n for z in z_indices):
        raise UserError(f"z_indices {list(z_indices)}: choose slices in 0..{n - 1}")


def _check_shapes(image: np.ndarray, ndim: int, **others: np.ndarray | None) -> None:
    if image.ndim != ndim:
        raise UserError(f"expected an image of {ndim} axes, got the shape {image.shape}")
    for name, other in others.items():
        if other is not None and other.shape != image.shape:
            raise UserError(f"{name} has the shape {other.shape}, the image {image.shape}")


def _spacing(spacing_mm: Sequence[float] | None) -> tuple[Sequence[float], str]:
    return ((1.0, 1.0, 1.0), "voxels") if spacing_mm is None else (spacing_mm, "mm")
