"""Estimates of the disk space and memory that a batch needs."""

from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from data_prep.phantom import CohortConfig, write_cohort
from data_prep.prepare.space import BYTES_PER_VOXEL, KEPT, WORKER_BYTES, check_space, fit_workers
from data_prep.rsna import StudyTask, find_studies
from pekit.common.errors import UserError


def absent(folder, slices):
    """A study with missing files, for which 512 x 512 is assumed."""
    return StudyTask("s", "train", folder / "none", pd.DataFrame(index=pd.RangeIndex(slices)))


def test_disk_is_estimated_from_slices_and_headers(tmp_path):
    batch = [absent(tmp_path, 200), absent(tmp_path, 300)]
    assert check_space(batch, "none", tmp_path) == 500 * 512 * 512 * 2 * KEPT["none"]
    config = CohortConfig(n_train=2, n_test=1, broken_fraction=0.0, phantom={"shape": (16, 64, 64)})
    write_cohort(tmp_path / "cohort", config)
    tasks = find_studies(tmp_path / "cohort")
    slices = sum(len(task.rows) for task in tasks)
    assert check_space(tasks, "box", tmp_path) == slices * 64 * 64 * 2 * KEPT["box"]
    with pytest.raises(UserError, match=r"GB left and needs about [\d.]+ GB: choose"):
        check_space([absent(tmp_path, 10**12)], "masked", tmp_path)


def test_workers_fit_the_memory(tmp_path, monkeypatch):
    batch = [absent(tmp_path, 100), absent(tmp_path, 1000)]
    each = WORKER_BYTES + BYTES_PER_VOXEL * 1000 * 512 * 512

    def available(memory):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))

    available(100 * each)
    assert fit_workers(8, batch) == 8
    available(4 * each)
    assert fit_workers(8, batch) == 3
    available(0.1 * each)
    assert fit_workers(8, batch) == 1
