"""A preparation killed at random moments and resumed gives the same bytes as an undisturbed one."""

import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.phantom import CohortConfig, write_cohort
from data_prep.prepare.studies import prepare
from data_prep.prepare.study import PrepareSettings

KILLS = 20


def contents(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def prepare_until(seconds: float, data: Path, root: Path) -> bool:
    """Prepare in a fork that is killed after so many seconds of CPU time; whether it was killed."""
    process = os.fork()
    if not process:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal kills without cleaning up
        prepare(data, root, PrepareSettings())
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def cpu_times(data: Path, root: Path) -> list[float]:
    """CPU time in seconds from the call to each finished study."""
    start, times = time.process_time(), []

    def progress(studies, total, desc):
        for study in studies:
            times.append(time.process_time() - start)
            yield study

    prepare(data, root, PrepareSettings(), progress=progress)
    return times


@pytest.fixture
def _one_thread():
    """OpenCV's threads do not survive a fork."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_killed_at_random_moments(tmp_path):
    phantom = {"shape": (24, 96, 96)}
    config = CohortConfig(n_train=18, n_test=2, seed=5, broken_fraction=0.2, phantom=phantom)
    data, root = tmp_path / "cohort", tmp_path / "killed"
    write_cohort(data, config)
    first, *_, last = cpu_times(data, tmp_path / "whole")
    each = (last - first) / 19
    rng = np.random.default_rng(0)
    died = 0
    for _ in range(KILLS):
        # Before its first study is done or after, in reading, masks or writing.
        if prepare_until(rng.uniform(0.5 * first, first + 2 * each), data, root):
            died += 1
        else:  # it was quicker than the first time
            assert contents(root) == contents(tmp_path / "whole")
            shutil.rmtree(root)
    assert died >= KILLS / 2
    prepare(data, root, PrepareSettings())
    assert contents(root).keys() == contents(tmp_path / "whole").keys()
    assert contents(root) == contents(tmp_path / "whole")
