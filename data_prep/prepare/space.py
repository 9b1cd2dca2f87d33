"""Estimate the disk space and memory that preparing a data set needs."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from data_prep.dicom import open_series
from data_prep.errors import StudyError
from data_prep.rsna import StudyTask
from pekit.common.errors import UserError

# Bytes in the store per byte of int16 voxels as scanned; a real chest CT took 0.13, 0.22 and 0.48,
# and in others the body fills more of the image.
KEPT = {"masked": 0.2, "box": 0.3, "none": 0.6}
# Bytes of memory per voxel in a worker: volume, masks, hull, crop, finding landmarks; measured
# 0.91 GB for 250 x 512 x 512.
BYTES_PER_VOXEL = 11
WORKER_BYTES = 300e6  # bytes of the process itself


def check_space(tasks: Sequence[StudyTask], crop: str, root: Path) -> float:
    """Bytes that preparing `tasks` will take, estimated from slice counts and a few headers.

    Raises:
        UserError: the disk of `root` has less free space.
    """
    voxels = _plane_voxels(tasks) * sum(len(task.rows) for task in tasks)
    needed = 2 * voxels * KEPT[crop]
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root} has {free / 1e9:.1f} GB left and needs about {needed / 1e9:.1f} GB: "
            "choose another disk, or a tighter crop (masked takes the least space)"
        )
    return needed


def fit_workers(workers: int, tasks: Sequence[StudyTask]) -> int:
    """Number of workers, at most `workers`, that fit in memory with the longest study in each."""
    if workers == 1:  # fewer cannot be
        return 1
    longest = max((len(task.rows) for task in tasks), default=0)
    each = WORKER_BYTES + BYTES_PER_VOXEL * _plane_voxels(tasks) * longest
    return max(1, min(workers, int(0.8 * psutil.virtual_memory().available / each)))


def _plane_voxels(tasks: Sequence[StudyTask]) -> float:
    """Mean number of voxels per slice, from up to eight studies that can be read."""
    found = []
    for task in tasks[:: max(1, len(tasks) // 8)][:8]:
        try:
            _, rows, columns = open_series(task.folder).shape
        except StudyError:
            continue
        found.append(rows * columns)
    return sum(found) / len(found) if found else 512 * 512
