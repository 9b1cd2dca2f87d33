import os
import signal
import subprocess
import sys
import time

import pytest

from data_prep.parallel.pool import run_pool
from pekit.common.errors import UserError


def double(x):
    return 2 * x, os.getpid()


def die(x):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_of_all_tasks_from_several_processes():
    results = list(run_pool(double, range(6), workers=2))
    assert sorted(value for value, _ in results) == [0, 2, 4, 6, 8, 10]
    assert os.getpid() not in {pid for _, pid in results}


def gpu(seconds):
    time.sleep(seconds)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_worker_sees_its_own_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = set(run_pool(gpu, [0.3] * 8, workers=2, gpus=["3", "GPU-5"]))
    assert {name for _, name in seen} == {"3", "GPU-5"}
    assert len({process for process, _ in seen}) == 2
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_one_worker_is_this_process():
    assert list(run_pool(double, [3], workers=1)) == [(6, os.getpid())]


def test_a_killed_worker_is_named():
    with pytest.raises(UserError, match="one of 2 workers was killed"):
        list(run_pool(die, [1, 2], workers=2))


def test_workers_end_with_their_parent(tmp_path):
    """A killed caller leaves no waiting worker behind."""
    script = tmp_path / "caller.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from data_prep.parallel.pool import run_pool\n"
        "def wait(name):\n"
        "    pathlib.Path(name).write_text(str(os.getpid()))\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        f"    list(run_pool(wait, [r'{tmp_path}/a', r'{tmp_path}/b'], 2))\n"
    )
    caller = subprocess.Popen([sys.executable, str(script)])
    files = [tmp_path / "a", tmp_path / "b"]
    _until(lambda: all(f.exists() and f.read_text() for f in files))
    caller.kill()
    caller.wait()
    workers = [int(f.read_text()) for f in files]
    _until(lambda: not any(_alive(pid) for pid in workers))


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
