"""Processes for a segmenter that is a network: one per GPU, one in all on a CPU."""

import os

import pytest
import torch

from data_prep.anatomy import METHODS
from data_prep.anatomy.threshold import segment_by_threshold
from data_prep.phantom import CohortConfig, write_cohort
from data_prep.prepare.gpus import segmenter_gpus
from data_prep.prepare.studies import prepare
from data_prep.prepare.study import PrepareSettings


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    config = CohortConfig(n_train=3, n_test=0, broken_fraction=0, phantom={"shape": (16, 64, 64)})
    write_cohort(out, config)
    return out


@pytest.fixture
def gpus(monkeypatch):
    def set_gpus(count, visible=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return set_gpus


def test_on_a_cpu_one_process_does_all(cohort, gpus, tmp_path, monkeypatch, capsys):
    gpus(0)
    processes = []

    def network(hu, spacing_mm, weights=None, fast=True, airways=False, device=None):
        processes.append(os.getpid())
        return segment_by_threshold(hu, spacing_mm)

    options = METHODS["totalsegmentator"][1]
    monkeypatch.setitem(METHODS, "totalsegmentator", (network, options))
    settings = PrepareSettings(segmenter="totalsegmentator", on_failure="full")
    store = prepare(cohort, tmp_path, settings, sources=("train",), workers=8)
    assert processes == [os.getpid()] * 3
    assert not store.studies["reasons"].str.contains("unexpected").any()
    said = "totalsegmentator is a network: processes = 1, at most one per GPU"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("segmenter", "count", "asked", "workers", "names"),
    [
        ("totalsegmentator", 2, 8, 2, ["0", "1"]),
        ("lungmask", 2, 8, 2, ["0", "1"]),
        ("totalsegmentator", 4, 3, 3, ["0", "1", "2", "3"]),
        ("threshold", 2, 8, 8, []),
    ],
)
def test_one_process_per_gpu(
    cohort, gpus, tmp_path, monkeypatch, segmenter, count, asked, workers, names
):
    gpus(count)
    calls = []

    def pool(function, tasks, workers, on_death=None, apart=False, gpus=()):
        calls.append((len(tasks), workers, list(gpus)))
        return []

    monkeypatch.setattr("data_prep.parallel.records.run_pool", pool)
    monkeypatch.setattr("data_prep.prepare.studies.fit_workers", lambda workers, tasks: workers)
    settings = PrepareSettings(segmenter=segmenter)
    prepare(cohort, tmp_path, settings, sources=("train",), workers=asked)
    assert calls[0] == (3, workers, names)


def test_names_are_those_that_this_process_sees(gpus):
    gpus(2, "4, GPU-7f")
    assert segmenter_gpus("totalsegmentator", {}) == ["4", "GPU-7f"]
    assert segmenter_gpus("totalsegmentator", {"device": "gpu"}) == ["4", "GPU-7f"]
    gpus(1, "4,9")  # there is no GPU 9
    assert segmenter_gpus("lungmask", {"weights": "w"}) == ["4"]


def test_options_overrule(gpus):
    gpus(2)
    assert segmenter_gpus("totalsegmentator", {"device": "cpu"}) == []
    assert segmenter_gpus("totalsegmentator", {"device": "gpu:1"}) == []
    assert segmenter_gpus("lungmask", {"force_cpu": True}) == []
    assert segmenter_gpus("precomputed", {}) is None
