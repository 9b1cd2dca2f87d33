"""Processors that a process was allotted."""

import os

import pytest

from pekit.common.processors import processors


def test_affinity_counts():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_slurm_counts(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert processors() == 1
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert processors() >= 1
