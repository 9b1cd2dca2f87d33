"""Lungs by lungmask's U-Net (Hofmanninger et al. 2020), the heart by threshold between them.

Weights are read from a file and never fetched.
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
        weights: a file of lungmask's; without it R231 in $TORCH_HOME/hub/checkpoints.
        force_cpu: leave the GPU alone.

    Raises:
        SetupError: lungmask or its weights are missing, or the file is none of its.
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
            "there, or name its place by the option weights"
        )
    return weights


@lru_cache(maxsize=1)  # one model a process, not one a study
def _inferer(weights: Path, force_cpu: bool):
    with warnings.catch_warnings():  # importing lungmask silences all UserWarnings for good
        lungmask = need("lungmask", "lungmask")
    logging.getLogger("lungmask").setLevel(logging.WARNING)  # it prints a line a study
    try:
        with weights_only():
            return lungmask.LMInferer(
                modelpath=str(weights), force_cpu=force_cpu, tqdm_disable=True
            )
    except Exception as error:  # of torch and pickle, many kinds
        reason = (str(error).strip() or repr(error)).split(". ")[0].splitlines()[0]
        raise SetupError(f"{weights} holds no weights of lungmask's ({reason})") from None
