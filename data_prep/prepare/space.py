"""What preparing a data set needs of disk and memory, before it begins."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from data_prep.dicom import open_series
from data_prep.errors import StudyError
from data_prep.rsna import StudyTask
from pekit.common.errors import UserError

# Bytes in the store for a byte of int16 voxels as scanned; 0.13, 0.22 and 0.48 were seen on a real
# chest CT, and others fill more of their images.
KEPT = {"masked": 0.2, "box": 0.3, "none": 0.6}
# Bytes of memory that a worker needs for a voxel: the volume, masks, hull, crop, and what finding
# landmarks takes; 0.91 GB were seen for 250 x 512 x 512.
BYTES_PER_VOXEL = 11
WORKER_BYTES = 300e6  # of the process itself


def check_space(tasks: Sequence[StudyTask], crop: str, root: Path) -> float:
    """The bytes that preparing `tasks` will take, estimated from slice counts and a few headers.

    Raises:
        UserError: the disk of `root` has less room.
    """
    voxels = _plane_voxels(tasks) * sum(len(task.rows) for task in tasks)
    needed = 2 * voxels * KEPT[crop]
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root} has {free / 1e9:.1f} GB left and needs about {needed / 1e9:.1f} GB more: "
            "choose another disk, or a tighter crop (masked keeps the least)"
        )
    return needed


def fit_workers(workers: int, tasks: Sequence[StudyTask]) -> int:
    """As many workers, at most `workers`, as the free memory holds with the longest study each."""
    longest = max((len(task.rows) for task in tasks), default=0)
    each = WORKER_BYTES + BYTES_PER_VOXEL * _plane_voxels(tasks) * longest
    return max(1, min(workers, int(0.8 * psutil.virtual_memory().available / each)))


def _plane_voxels(tasks: Sequence[StudyTask]) -> float:
    """Mean number of voxels of a slice, from up to eight studies that can be read."""
    found = []
    for task in tasks[:: max(1, len(tasks) // 8)][:8]:
        try:
            _, rows, columns = open_series(task.folder).shape
        except StudyError:
            continue
        found.append(rows * columns)
    return sum(found) / len(found) if found else 512 * 512
