"""What masks and crop do to a slice before the network sees it (figure 2 of the paper)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pekit.errors import UserError
from pekit.figures.base import BLUE, RED, YELLOW, grid_of_axes
from pekit.figures.images import PE_WINDOW
from pekit.figures.overlays import mark_sides


def crop_gain(
    volume_hu: np.ndarray,
    lungs: np.ndarray,
    heart: np.ndarray,
    cropped_hu: np.ndarray,
    box_zyx: np.ndarray,
    z_indices: Sequence[int],
    window: tuple[float, float] = PE_WINDOW,
) -> Figure:
    """Whole slices with lungs and heart coloured above, their crops below, both as large.

    Each is scaled to a square, as for the network; a border holds the heart in both (the lungs
    where a slice has no heart), and the title says what share of the image that border is.

    Args:
        volume_hu: `(Z, Y, X)` HU, the whole study.
        lungs, heart: `(Z, Y, X)` bool.
        cropped_hu: the crop of `box_zyx`, as the store has it.
        box_zyx: `(3, 2)` start and stop voxels.
        z_indices: slices of the whole study, inside the box.
        window: centre and width in HU.

    Raises:
        UserError: no slice, one outside the box, or arrays of other shapes.
    """
    if lungs.shape != volume_hu.shape or heart.shape != volume_hu.shape:
        raise UserError(f"masks {lungs.shape}, {heart.shape}: the volume is {volume_hu.shape}")
    (z0, z1), (y0, y1), (x0, x1) = np.asarray(box_zyx)
    if cropped_hu.shape != (z1 - z0, y1 - y0, x1 - x0):
        raise UserError(f"the crop is {cropped_hu.shape}, not of the box {box_zyx}")
    if not len(z_indices) or not all(z0 <= z < z1 for z in z_indices):
        raise UserError(f"z_indices {list(z_indices)}: choose slices in {z0}..{z1 - 1}")
    n = len(z_indices)
    figure, axes = grid_of_axes(2 * n, columns=n, width=2.8, height=3.0)
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
    """A plane `(Y, X)` HU as `(Y, X, 3)` RGB in [0,1]."""
    centre, width = window
    grey = np.clip((plane.astype(np.float64) - centre) / width + 0.5, 0, 1)
    return np.repeat(grey[..., None], 3, axis=2)


def _panel(ax: Axes, image: np.ndarray, structure: np.ndarray, title: str, name: str) -> None:
    """An image scaled to the unit square, with the border of a structure `(Y, X)` bool on it."""
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
