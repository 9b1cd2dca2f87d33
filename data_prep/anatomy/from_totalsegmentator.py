"""Segment with TotalSegmentator (Wasserthal et al. 2023), offline and with weights on disk.

Weights are read from a folder that holds `Dataset297_...` and the like, and never downloaded. The
package runs with a temporary home folder that switches usage statistics off: in the user's home
only the weights are read, and nothing is changed.
"""

import json
import os
import tempfile
from collections import ChainMap
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from data_prep.anatomy.masks import LabelMap, Masks
from data_prep.anatomy.optional import environment, need, weights_only
from data_prep.anatomy.precomputed import LOBES
from data_prep.errors import SetupError

# Organs that the landmark rules need, by their names in the task `total`.
ORGANS = (
    "aorta",
    "brachiocephalic_trunk",
    "clavicula_left",
    "clavicula_right",
    "common_carotid_artery_left",
    "common_carotid_artery_right",
    "liver",
    "sternum",
    "subclavian_artery_left",
    "subclavian_artery_right",
    "trachea",
    "vertebrae_T4",
)
LUNG, HEART = 1, 2  # our label numbers; ORGANS follow
# Numbers of the weights' datasets: the 3 mm model; the five 1.5 mm models and the 6 mm model that
# finds the region of the requested organs; the airways model, which finds the lungs at 3 mm.
FAST, FULL, VESSELS = (297,), (291, 292, 293, 294, 295, 298), (117, 297)


def segment_by_totalsegmentator(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    weights: Path | None = None,
    fast: bool = True,
    airways: bool = False,
    device: str | None = None,
) -> Masks:
    """Masks of lungs, heart and ORGANS of a volume (Z, Y, X) int16 HU.

    Args:
        hu: the whole study in LPS axes; spacing_mm: (z, y, x).
        weights: the folder of the datasets; default: $TOTALSEG_WEIGHTS_PATH, then the folder where
            TotalSegmentator itself puts them.
        fast: use the 3 mm model, enough for hull and landmarks; else the five 1.5 mm models.
        airways: also run the task lung_vessels, for `lung_trachea_bronchia`. It does not depend on
            whether its weights happen to be there, so that two machines make the same masks.
        device: `cpu`, `gpu` or `gpu:1`; default: the GPU if there is one.

    Raises:
        SetupError: the package or weights are missing.
    """
    need("totalsegmentator.python_api", "totalsegmentator")
    folder = _find(weights, (FAST if fast else FULL) + (VESSELS if airways else ()))
    if device is None:
        import torch

        device = "gpu" if torch.cuda.is_available() else "cpu"
    labels = _run(hu, spacing_mm, folder, "total", fast, device)
    names = need("totalsegmentator.map_to_binary", "totalsegmentator").class_map["total"]
    numbers = {name: number for number, name in names.items()}
    table = np.zeros(256, np.uint8)
    table[[numbers[name] for name in LOBES]] = LUNG
    table[numbers["heart"]] = HEART
    ours = {name: HEART + 1 + i for i, name in enumerate(ORGANS)}
    for name, number in ours.items():
        table[numbers[name]] = number
    labels = table[labels]
    lung, heart, organs = labels == LUNG, labels == HEART, LabelMap(labels, ours)
    if airways:
        # A separate map, since it overlaps lung and trachea; its class 1 is lung_airways.
        bronchi = _run(hu, spacing_mm, folder, "lung_vessels", False, device)
        organs = ChainMap(organs, LabelMap(bronchi, {"lung_trachea_bronchia": 1}))
    return Masks(lung, heart, organs)


def _find(weights: Path | None, needed: tuple[int, ...]) -> Path:
    """The folder of the weights, checked for all needed datasets: else the package downloads."""
    if weights is None:
        default = Path.home() / ".totalsegmentator" / "nnunet" / "results"
        weights = os.environ.get("TOTALSEG_WEIGHTS_PATH") or default
    weights = Path(weights)
    known = need("totalsegmentator.map_tasks_config", "totalsegmentator").TASK_ID_WEIGHTS_CONFIGS
    names = [known[number]["foldername"] for number in dict.fromkeys(needed)]
    if missing := [name for name in names if not (weights / name).is_dir()]:
        raise SetupError(
            f"TotalSegmentator's weights are not in {weights} ({', '.join(missing)}): download "
            "them with `totalseg_download_weights` where there is a network, and set the option "
            "weights or TOTALSEG_WEIGHTS_PATH to their folder"
        )
    return weights.resolve()


def _run(
    hu: np.ndarray, spacing_mm: tuple, weights: Path, task: str, fast: bool, device: str
) -> np.ndarray:
    """Run a task; returns labels (Z, Y, X) uint8 with the package's numbers."""
    nibabel = need("nibabel", "totalsegmentator")
    # NIfTI's axes are RAS: x and y run the other way.
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)
    roi = [*LOBES, "heart", *ORGANS] if task == "total" and not fast else None
    with tempfile.TemporaryDirectory() as home:
        config = {
            "totalseg_id": "",
            "send_usage_stats": False,
            "prediction_counter": 0,
            "statistics_disclaimer_shown": True,
        }
        (Path(home) / "config.json").write_text(json.dumps(config))
        variables = {"TOTALSEG_HOME_DIR": home, "TOTALSEG_WEIGHTS_PATH": str(weights)}
        with environment(**variables), weights_only():
            run = need("totalsegmentator.python_api", "totalsegmentator").totalsegmentator
            try:
                made = run(
                    image, None, task=task, fast=fast, roi_subset=roi, device=device, quiet=True
                )
            except UnpicklingError:
                raise SetupError(
                    f"a checkpoint in {weights} holds more than numbers and was not loaded: "
                    "download TotalSegmentator's weights again"
                ) from None
    if made.shape != image.shape or not np.allclose(made.affine, affine, atol=1e-3):
        raise RuntimeError(
            f"TotalSegmentator returned another grid: {made.shape} for {image.shape}"
        )
    labels = np.asanyarray(made.dataobj).astype(np.uint8).transpose(2, 1, 0)
    return np.ascontiguousarray(labels)
