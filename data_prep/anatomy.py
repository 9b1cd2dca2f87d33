"""Lung and heart masks of a CT (paper, section IV).

`segment` chooses a method by name: `threshold` needs no weights; `precomputed` reads NIfTI masks
that another segmenter made. Volumes are (Z, Y, X) int16 HU in LPS axes, spacing is (z, y, x) mm.
"""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from data_prep.errors import SegmentationError
from data_prep.images import read_image
from data_prep.masks import Masks
from data_prep.threshold import segment_by_threshold
from pekit.errors import UserError

# The median over the heart, walls included, is 30 to 60 HU without contrast; blood that lets a clot
# be seen (200 HU and more in the pulmonary artery) lifts it well above this.
CTPA_MIN_HU = 100.0


def segment(
    volume_hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    method: str = "threshold",
    **options,
) -> Masks:
    """Masks of lungs and heart of a volume (Z, Y, X) int16 HU.

    Args:
        volume_hu: the whole study.
        spacing_mm: voxel size (z, y, x).
        method: a name in METHODS.
        options: what that method takes, e.g. `folder` for `precomputed`.

    Raises:
        SegmentationError: lungs or heart not found.
        UserError: unknown method or option, or mask files that do not fit.
    """
    check_method(method)
    function, known = METHODS[method]
    if wrong := sorted(set(options) ^ set(known)):
        raise UserError(
            f"segmentation method {method} takes the options ({', '.join(known)}); "
            f"unknown or missing: {', '.join(wrong)}"
        )
    return function(volume_hu, spacing_mm, **options)


def check_method(method: str) -> None:
    """Refuse a name that is not in METHODS.

    Raises:
        UserError: names the nearest one.
    """
    if method not in METHODS:
        near = get_close_matches(method, METHODS, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(
            f"unknown segmentation method {method!r}{hint} (one of {', '.join(METHODS)})"
        )


def _precomputed(hu: np.ndarray, spacing_mm: tuple, folder: Path) -> Masks:
    return Masks(
        *(read_mask(Path(folder) / f"{name}.nii.gz", hu.shape) for name in ("lung", "heart"))
    )


def read_mask(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A NIfTI mask (any axis order and direction) as (Z, Y, X) bool in LPS axes.

    Raises:
        UserError: the file is missing or unreadable, or has another shape than the volume.
        SegmentationError: the mask is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: put the mask there or choose another method")
    mask = read_image(path).array > 0.5
    if mask.shape != tuple(shape):
        raise UserError(f"{path} has the shape {mask.shape}, the volume {tuple(shape)} (z, y, x)")
    if not mask.any():
        raise SegmentationError(f"the mask {path.name} is empty")
    return mask


METHODS: dict[str, tuple[Callable[..., Masks], tuple[str, ...]]] = {
    "threshold": (segment_by_threshold, ()),
    "precomputed": (_precomputed, ("folder",)),
}


def contrast_hu(hu: np.ndarray, heart: np.ndarray) -> float:
    """Median HU in the heart mask: below CTPA_MIN_HU the scan is no contrast-filled CTPA."""
    return float(np.median(hu[heart]))
