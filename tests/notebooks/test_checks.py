"""What would stop an experiment hours later stops it at once: `run.py batch` on bad experiments."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch.checks import check_files, first_problem
from batch.experiment import read_experiment

ROOT = Path(__file__).resolve().parents[2]


def batch(*arguments: str) -> tuple[subprocess.CompletedProcess, float]:
    command = [sys.executable, str(ROOT / "notebooks" / "run.py"), "batch", *arguments]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done, time.monotonic() - start


def test_the_rsna_recipe_without_data_says_what_to_set_within_seconds():
    if (ROOT / "data" / "rsna-str-pulmonary-embolism-detection").exists():
        pytest.skip("the data set is here")
    done, seconds = batch("rsna")
    assert done.returncode == 1
    assert done.stderr == (
        "rsna.yaml: stage audit: DATA: there is no data/rsna-str-pulmonary-embolism-detection: set "
        "DATA in notebooks/experiments/rsna.yaml (relative paths start in notebooks/)\n"
    )
    assert done.stdout == ""
    assert seconds < 5


def bad(folder: Path, content: str) -> Path:
    path = folder / "bad.yaml"
    base = os.path.relpath(ROOT / "notebooks" / "experiments" / "smoke.yaml", folder)
    path.write_text(f"extends: {base}\n{content}\n")
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "stages: {hop1: {params: {ENCODER: tf_efficientnet_lite}}}",
            "hop1: ENCODER: there is",
        ),
        ("disk_gb: 1.0e+9", "bad needs 1e.09 GB in .*bad, of which .* the disk has"),
    ],
)
def test_an_experiment_stops_before_its_first_stage(tmp_path, content, message):
    done, _ = batch(str(bad(tmp_path, content)))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert not (ROOT / "runs" / "bad").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "hop1: {needs: {INIT: null}, params: {INIT: pakage}}",
            "INIT = .* did you mean package",
        ),
        ("evaluate: {params: {REPORT_ON: tset}}", "REPORT_ON = 'tset': did you mean test"),
        ("predict: {params: {PARTS: [test, vali]}}", "PARTS = 'vali': did you mean validation"),
        ("report: {params: {METHOD: oclusion}}", "no attribution method .* occlusion"),
        ("hop2: {params: {TRAIN: {device: gpu, cluster: {devices: 99}}}}", "torch finds . GPUs"),
        ("hop2: {params: {ENCODER: resnest5d}}", "no encoder 'resnest5d'; did you mean resnest50d"),
        ("pretrain: {params: {TRAIN: {optimizer: adamm}}}", "pretrain: TRAIN: optimizer = 'adamm'"),
    ],
)
def test_bad_values_are_found(tmp_path, stages, message):
    experiment = read_experiment(bad(tmp_path, f"stages: {{{stages}}}"))
    check_files(experiment)
    assert re.search(message, first_problem(list(experiment.stages.items())))


@pytest.mark.parametrize("name", ["smoke", "demo", "demo_seeds", "ablations"])
def test_experiments_of_the_kit_pass(name):
    experiment = read_experiment(ROOT / "notebooks" / "experiments" / f"{name}.yaml")
    check_files(experiment)
    assert first_problem(list(experiment.stages.items())) == ""
