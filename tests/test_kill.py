"""A preparation killed at random moments and resumed ends as an undisturbed one, to the byte."""

import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.phantom import CohortConfig, write_cohort
from data_prep.prepare import prepare
from data_prep.study import PrepareSettings

KILLS = 20


def contents(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def prepare_in_a_process(data: Path, root: Path) -> int:
    """Start preparing in a copy of this process, which has everything imported; its id."""
    process = os.fork()
    if process:
        return process
    prepare(data, root, PrepareSettings())
    os._exit(0)


def records(root: Path) -> int:
    return len(list((root / "records").glob("[!.]*.json")))


def wait_for(root: Path, count: int) -> None:
    end = time.monotonic() + 60
    while records(root) < count:
        assert time.monotonic() < end, "no study was prepared in a minute"
        time.sleep(0.002)


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
    config = CohortConfig(n_train=24, n_test=2, seed=5, broken_fraction=0.2, phantom=phantom)
    data, root = tmp_path / "cohort", tmp_path / "killed"
    write_cohort(data, config)
    start = time.monotonic()
    prepare(data, tmp_path / "whole", PrepareSettings())
    whole = time.monotonic() - start
    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        process = prepare_in_a_process(data, root)
        # Before its first study or after, and anywhere within one: reading, masks, writing.
        wait_for(root, records(root) + rng.integers(0, 2))
        time.sleep(rng.uniform(0.0, 1.5 * whole / 26))
        os.kill(process, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(process, 0)[1]), "it had ended before it was killed"
    assert 5 < records(root) < 26
    prepare(data, root, PrepareSettings())
    assert contents(root).keys() == contents(tmp_path / "whole").keys()
    assert contents(root) == contents(tmp_path / "whole")
