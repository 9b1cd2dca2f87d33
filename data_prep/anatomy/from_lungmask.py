"""Segment lungs with lungmask's U-Net (Hofmanninger et al. 2020), the heart by threshold.

Weights are read from a file and never downloaded.
"""

import logging
import os
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.anatomy.coarse import enlarge, reduce_mask, reduce_volume
from data_prep.anatomy.heart import SOFT_HU, find_heart
from data_prep.anatomy.masks import Masks
from data_prep.anatomy.optional import need, weights_only
from data_prep.errors import SegmentationError, SetupError

R231 = "unet_r231-d5d2fc3d.pth"


def segment_by_lungmask(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    weights: Path | None = None,
    force_cpu: bool = False,
) -> Masks:
    """Masks of lungs and heart of a volume (Z, Y, X) int16 HU.

    Args:
        hu: the whole study in LPS axes; spacing_mm: (z, y, x).
        weights: a weights file of lungmask; default: R231 in $TORCH_HOME/hub/checkpoints.
        force_cpu: do not use the GPU.

    Raises:
        SetupError: lungmask or its weights are missing, or the file is not one of its weights.
        SegmentationError: lungs or heart not found.
    """
    labels = _inferer(_find(weights), force_cpu).apply(np.ascontiguousarray(hu))
    lung = np.asarray(labels) > 0
    if not lung.any():
        raise SegmentationError("no lungs: lungmask found none")
    coarse, spacing = reduce_volume(hu, spacing_mm)
    heart = find_heart(coarse, reduce_mask(lung, spacing_mm), spacing)
    return Masks(lung, enlarge(heart, hu, lambda slice_hu: slice_hu > SOFT_HU[0]))


def _find(weights: Path | None) -> Path:
    if weights is None:
        home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
        weights = Path(home) / "hub" / "checkpoints" / R231
    weights = Path(weights)
    if not weights.is_file():
        raise SetupError(
            f"lungmask's weights are not at {weights}: put {R231} (from lungmask's releases) "
            "there, or set the option weights to its path"
        )
    return weights


@lru_cache(maxsize=1)  # one model per process, not one per study
def _inferer(weights: Path, force_cpu: bool):
    with warnings.catch_warnings():  # importing lungmask silences all UserWarnings for good
        lungmask = need("lungmask", "lungmask")
    logging.getLogger("lungmask").setLevel(logging.WARNING)  # it prints one line per study
    try:
        with weights_only():
            return lungmask.LMInferer(
                modelpath=str(weights), force_cpu=force_cpu, tqdm_disable=True
            )
    except Exception as error:  # torch and pickle raise many kinds
        reason = (str(error).strip() or repr(error)).split(". ")[0].splitlines()[0]
        raise SetupError(
            f"{weights} holds no weights of lungmask ({reason}): download {R231} again"
        ) from None
