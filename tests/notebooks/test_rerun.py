"""Cells of a training notebook, run again in a live kernel in the ways in which people do it.

Each rerun repeats the same training to the bit, resumes it, gives its result, or says in a sentence
what to do.
"""

import hashlib
import json
import shutil
from pathlib import Path

import psutil
import pytest
from live_kernel import LiveNotebook
from toy import toy_store

from pekit.dataset.split import freeze_split

NOTEBOOK = next((Path(__file__).resolve().parents[2] / "notebooks").glob("21_*.ipynb"))
# Cells of the notebook, by number.
PARAMETERS, START, AUGMENTED, COST, TRAIN, LAST = 2, 3, 7, 11, 13, 15
ALL = [1, 2, 3, 4, 6, 7, 9, 11, 13, 14, 15]
NO_FIGURE = [number for number in ALL if number != AUGMENTED]  # which takes seconds
VALUES = """
PREPARED = "../runs/lab/prepare"
INIT = "random"
RUN = "../runs/lab/hop1"
ENCODER = "test_efficientnet"
IMAGE_SIZE = 32
DEPTH = 0
EPOCHS = 3
LIMIT_HOURS = 9.0
SEED = 0
TRAIN = {"batch_size": 4, "samples_per_epoch": 24, "positive_fraction": 0.4, "lr": 2e-3,
         "optimizer": "adamw", "workers": 0, "device": "cpu"}
"""


@pytest.fixture
def lab(tmp_path):
    """The notebook in a live kernel, on a prepared toy store."""
    prepared = tmp_path / "runs" / "lab" / "prepare"
    _, split = toy_store(prepared / "store")
    freeze_split(split.assign(shared=False), prepared / "split.csv")
    notebook = LiveNotebook(NOTEBOOK, tmp_path / "notebooks")
    notebook.cells[PARAMETERS] = VALUES
    yield notebook
    notebook.stop(now=True)


def model_hash(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def losses(run: Path) -> list[str]:
    """The training loss of each epoch in log.csv."""
    return [line.split(",")[2] for line in (run / "log.csv").read_text().splitlines()[1:]]


def test_every_rerun_repeats_resumes_or_says_what_to_do(lab, tmp_path):
    assert [number for number in ALL if number not in lab.cells] == []
    run = tmp_path / "runs" / "lab" / "hop1"
    told = lab.run(*ALL)
    assert "hop1 is done. ../runs/lab/hop1 holds" in told
    assert "Next: 22_train_hop2" in told
    first, rows, manifest = model_hash(run), losses(run), read(run / "manifest.json")
    assert len(rows) == 3

    # The training cell, the last cell, the cell of a figure, after the run has ended.
    told = lab.run(TRAIN, AUGMENTED, LAST)
    assert "this training has ended already" in told
    assert "Error" not in told
    assert (model_hash(run), losses(run)) == (first, rows)

    # The result is deleted: the same cell, whose network would be trained by now, repeats it.
    (run / "training.json").unlink()
    shutil.rmtree(run / "model")
    told = lab.run(TRAIN, LAST)
    assert "epoch 3/3" in told
    assert "Error" not in told
    assert (model_hash(run), losses(run)) == (first, rows)

    # The cells above, without the training: the last cell must not report the old training.
    told = lab.run(START, LAST)
    assert "UserError: ../runs/lab/hop1 was started again, and model was not made since" in told
    assert not (run / "metrics.json").exists()
    told = lab.run(TRAIN, LAST)
    assert "Error" not in told
    assert (model_hash(run), losses(run)) == (first, rows)

    # The whole notebook, in the same kernel.
    (run / "training.json").unlink()
    assert "Error" not in lab.run(*ALL)
    assert (model_hash(run), losses(run)) == (first, rows)
    assert read(run / "manifest.json")["inputs"] == manifest["inputs"]
    assert read(run / "manifest.json")["status"] == "finished"

    # Another value, without the cells below it: what is recorded is what was trained.
    lab.cells[PARAMETERS] = VALUES.replace("SEED = 0", "SEED = 1")
    lab.run(*NO_FIGURE)
    assert read(run / "manifest.json")["seed"] == 1
    assert model_hash(run) != first
    lab.cells[PARAMETERS] = VALUES
    assert "this training has ended already" in lab.run(PARAMETERS, TRAIN, LAST)
    assert read(run / "manifest.json")["seed"] == 1

    # The kernel ends: the runs that were abandoned write nothing.
    lab.stop()
    assert read(run / "manifest.json")["status"] == "finished"


def test_an_interrupt_or_a_killed_kernel_is_resumed(lab, tmp_path):
    run = tmp_path / "runs" / "lab" / "hop1"
    lab.cells[PARAMETERS] = VALUES.replace('"../runs/lab/hop1"', '"../runs/lab/whole"')
    lab.run(*NO_FIGURE)
    whole = tmp_path / "runs" / "lab" / "whole"

    lab.cells[PARAMETERS] = VALUES.replace('"workers": 0', '"workers": 1')
    lab.run(*(number for number in NO_FIGURE if number < TRAIN))
    told = lab.run(TRAIN, interrupt_at="epoch 1/3")
    assert "interrupted: the same call goes on from its last checkpoint" in told
    assert told.rstrip().endswith("KeyboardInterrupt:")
    processes = [" ".join(p.cmdline()) for p in psutil.Process(lab.process).children(True)]
    helpers = ("resource_tracker", "forkserver")
    assert [p for p in processes if not any(name in p for name in helpers)] == []
    alive = psutil.Process(lab.process).children(recursive=True)
    assert len(alive) <= len(helpers), "the loader's worker has ended"

    told = lab.run(TRAIN, interrupt_at="epoch 2/3")
    assert "resuming: 1 epochs are done" in told
    lab.restart()
    assert read(run / "manifest.json")["status"] == "unfinished"
    assert not (run / "metrics.json").exists()
    lab.cells[PARAMETERS] = VALUES
    told = lab.run(*NO_FIGURE)
    assert "resuming: 2 epochs are done" in told
    assert model_hash(run) == model_hash(whole)
    assert losses(run) == losses(whole)
    assert read(run / "manifest.json")["status"] == "finished"
    assert list(run.glob("resume-*")) == []
