"""Segment lungs and heart of a CT by a method chosen by name (paper, section IV).

`threshold` needs no weights; `totalsegmentator` and `lungmask` need their package and weights on
disk; `precomputed` reads masks made by any segmenter. Volumes are (Z, Y, X) int16 HU in LPS axes,
spacing is (z, y, x) mm.
"""

from collections.abc import Callable
from inspect import Parameter, signature

import numpy as np

from data_prep.anatomy.coarse import reduce_volume
from data_prep.anatomy.from_lungmask import segment_by_lungmask
from data_prep.anatomy.from_totalsegmentator import segment_by_totalsegmentator
from data_prep.anatomy.masks import Masks
from data_prep.anatomy.orientation import remarks_without_masks
from data_prep.anatomy.plausible import check_masks
from data_prep.anatomy.precomputed import segment_precomputed
from data_prep.anatomy.threshold import segment_by_threshold
from data_prep.errors import SegmentationError
from pekit.common.errors import UserError, nearest

# Without contrast the median over the heart, walls included, is 30 to 60 HU. Contrast that makes a
# clot visible (200 HU and more in the pulmonary artery) raises it well above this value.
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
        options: the method's options, e.g. `folder` for `precomputed`.

    Returns:
        Lungs, heart, and further organs if the method gives them. The place of lung that is missing
        from the mask is in `unseen`, so that the hull covers it. `remarks` say so, and whether the
        anatomy contradicts the axes.

    Raises:
        SegmentationError: lungs or heart not found, or implausible (`plausible.check_masks`).
        UserError: unknown method or option, a missing package or weights, or mask files that do
            not fit the volume.
    """
    check_method(method)
    function, known = METHODS[method]
    parameters = signature(function).parameters
    required = {name for name in known if parameters[name].default is Parameter.empty}
    if wrong := sorted((set(options) - set(known)) | (required - set(options))):
        raise UserError(
            f"segmentation method {method} takes the options ({', '.join(known)}); "
            f"unknown or missing: {', '.join(wrong)}"
        )
    try:
        return check_masks(function(volume_hu, spacing_mm, **options), volume_hu, spacing_mm)
    except SegmentationError as error:
        # An image that is turned over is often the reason.
        remarks = remarks_without_masks(*reduce_volume(volume_hu, spacing_mm))
        raise SegmentationError("; ".join([str(error), *remarks])) from error


def check_method(method: str) -> None:
    """Refuse a name that is not in METHODS.

    Raises:
        UserError: the name is unknown; the message suggests the nearest one.
    """
    if method not in METHODS:
        raise UserError(f"no segmentation method {method!r}: {nearest(method, METHODS)}")


METHODS: dict[str, tuple[Callable[..., Masks], tuple[str, ...]]] = {
    "threshold": (segment_by_threshold, ()),
    "precomputed": (segment_precomputed, ("folder", "origin_mm")),
    "totalsegmentator": (segment_by_totalsegmentator, ("weights", "fast", "airways", "device")),
    "lungmask": (segment_by_lungmask, ("weights", "force_cpu")),
}


def contrast_hu(hu: np.ndarray, heart: np.ndarray) -> float:
    """Median HU in the heart mask; below CTPA_MIN_HU the scan is not a contrast-enhanced CTPA."""
    return float(np.median(hu[heart]))
