"""A killed training ends with the same weights to the bit; two processes share a training."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from survive import IN_TWO, SETTINGS, before_batch, network, without_batch_norm
from toy import toy_store

from pekit.checkpoint import load_hops, load_model
from pekit.common.files import read_json
from pekit.dataset.sampler import EpochSampler
from pekit.dataset.stacks import StackDataset, training_samples
from pekit.model.encoder import Encoder
from pekit.model.landmark_net import LandmarkNet
from pekit.training.fit import fit
from pekit.training.settings import ClusterSettings

BATCHES = 18


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The folder that tests/support/survive.py has filled."""
    folder = tmp_path_factory.mktemp("processes")
    script = Path(__file__).parents[2] / "support" / "survive.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            [sys.executable, script, folder], env=environment, stdout=log, stderr=log, timeout=600
        )
    assert done.returncode == 0, (folder / "log.txt").read_text()
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy"))


def train(toy, folder, settings=SETTINGS, action=lambda n: None):
    net = network()
    before_batch(net, action)
    history = fit(net, *toy, settings, folder, lambda row, epoch: None)
    return load_hops(folder)[0], history


@pytest.fixture(scope="module")
def undisturbed(toy, tmp_path_factory):
    return train(toy, tmp_path_factory.mktemp("undisturbed"))


def same(one, two):
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_epoch_at_random_batches(toy, undisturbed, tmp_path, workers):
    net, history = undisturbed
    # Only once with workers, which take seconds to start; every run kills at other batches.
    rng = np.random.default_rng()
    at = sorted(rng.choice(np.arange(2, BATCHES + 1), 5 if workers == 0 else 1, replace=False))
    done, seen = 0, []
    settings = SETTINGS.model_copy(update={"workers": workers})

    def run(stop):
        def action(n):
            if n == stop:
                raise Killed
            seen.append(n)

        return train(toy, tmp_path, settings, action)

    for batch in map(int, at):
        with pytest.raises(Killed):
            run(batch - done)
        # A step takes two batches: the first of a pair is computed again.
        done = batch - 1 - (batch - 1) % 2
    resumed, rows = run(None)
    assert same(resumed, net), f"killed before batches {at}"
    assert rows["train_loss"].tolist() == history["train_loss"].tolist()
    assert rows["validation_loss"].tolist() == history["validation_loss"].tolist()
    assert len(seen) == BATCHES + sum((int(b) - 1) % 2 for b in at), "nothing else was done twice"


def test_dropout_draws(undisturbed, toy, tmp_path):
    """Otherwise the tests above would not show that its random numbers are resumed."""
    settings = SETTINGS.model_copy(update={"epochs": 1, "samples_per_epoch": 8})
    without = network()
    without.encoders[0].net.drop_rate = 0.0
    fit(without, *toy, settings, tmp_path / "a", lambda row, epoch: None)
    without = load_hops(tmp_path / "a")[0]
    with_dropout, _ = train(toy, tmp_path / "b", settings)
    assert not same(without, with_dropout)


def test_without_saves_within_an_epoch_the_last_whole_epoch_is_resumed(toy, undisturbed, tmp_path):
    seldom = SETTINGS.model_copy(update={"save_every_s": 600})

    def kill(n):
        if n == 11:
            raise Killed

    with pytest.raises(Killed):
        train(toy, tmp_path, seldom, kill)
    seen = []
    net, _ = train(toy, tmp_path, seldom, seen.append)
    assert len(seen) == 12
    assert same(net, undisturbed[0])


def test_killed_by_sigkill(toy, undisturbed, processes):
    assert read_json(processes / "done.json")["exitcode"] == -9
    folder = processes / "killed"
    assert list(folder.glob("resume-*.ckpt"))
    assert not (folder / "model").exists()
    # The toy store lies elsewhere, but holds the same: the run's key is the same.
    seen = []
    net, _ = train(toy, folder, action=seen.append)
    assert len(seen) == BATCHES - 8, "nine batches were done, eight of them in whole steps"
    assert same(net, undisturbed[0])


def test_two_processes_share_an_epoch(toy, processes):
    store, split = toy
    folder = processes / "two"
    seen = [set(map(float, f.read_text().split())) for f in sorted(folder.glob("seen-*.txt"))]
    assert [len(part) for part in seen] == [12, 12]
    assert not seen[0] & seen[1]
    # The contrast identifies a sample, since it depends on the sample's own seed.
    studies = sorted(split.loc[split["part"] == "train", "StudyInstanceUID"])
    samples = training_samples(store, studies)
    data = StackDataset(store, samples, 32, SETTINGS.augment)
    epoch = EpochSampler(data.label, SETTINGS.samples_per_epoch, 0.4, SETTINGS.seed)
    assert seen[0] | seen[1] == {float(data[draw]["contrast"]) for draw in epoch}
    assert not same(load_hops(folder / "model")[0], network())
    # 12 samples each, in 6 batches of 2: 3 steps of 2 batches.
    assert read_json(processes / "done.json")["cost"] == [24, 3]
    assert load_hops(folder / "model")[1].prevalence[0].training == 0.4


def test_landmarks_are_learnt_in_two_processes(processes):
    net, card = load_model(processes / "landmarks")
    assert card.kind == "landmarks"
    torch.manual_seed(0)
    assert not same(net, LandmarkNet(Encoder("test_efficientnet")))
    assert pd.read_csv(processes / "landmarks" / "history.csv")["validation_loss"].notna().all()


def test_two_processes_end_as_one(toy, processes, tmp_path):
    """A batch of 2 in each of two processes is a batch of 4 in one."""
    one = without_batch_norm()
    settings = IN_TWO.model_copy(update={"cluster": ClusterSettings(), "batch_size": 4})
    fit(one, *toy, settings, tmp_path, lambda row, epoch: None)
    one, _ = load_hops(tmp_path)
    two, _ = load_hops(processes / "alike")
    start = without_batch_norm().state_dict()
    moved = {name: value - start[name] for name, value in one.state_dict().items()}
    assert max(float(change.abs().max()) for change in moved.values()) > 1e-3
    for name, value in two.state_dict().items():
        torch.testing.assert_close(value - start[name], moved[name], rtol=0.02, atol=2e-5)


def test_two_processes_killed_in_mid_epoch(processes):
    assert read_json(processes / "done.json")["two_killed"] == "SIGKILL"
    two, killed = (processes / name for name in ("two", "two_killed"))
    seen = [len(file.read_text().split()) for file in killed.glob("seen-*.txt")]
    assert len(seen) == 2
    # Killed in the fifth of six batches of 2; one of the processes may not have saved the fourth.
    assert set(seen) <= {4, 8}, "only the rest of the epoch was computed"
    ours, theirs = (load_hops(folder)[0] for folder in (killed, two))
    assert same(ours, theirs)
    columns = ["train_loss", "validation_loss"]
    rows = [pd.read_csv(folder / "history.csv")[columns] for folder in (killed, two)]
    assert rows[0].equals(rows[1])


def test_errors_of_forked_processes_have_the_same_text(processes):
    error = read_json(processes / "done.json")["error"]
    assert error.startswith(
        "an epoch has 12 samples for each of 2 processes, fewer than batch_size"
    )
    assert error.endswith("lower batch_size")


def test_a_loss_that_is_not_finite_in_one_process_ends_both(toy, processes):
    """Both with the message that names the slices of the one: neither waits for the other."""
    error = read_json(processes / "done.json")["nan"]
    assert error.startswith("the loss is nan in epoch 1, batch 3 of process 2 of 2; it changed no")
    named = re.findall(r"([0-9a-f]{12}) z (\d+)", error)
    assert len(named) == IN_TWO.batch_size
    assert {study for study, _ in named} <= set(toy[1]["StudyInstanceUID"][:4])
    ended = [(processes / "nan" / f"ended-{rank}.txt").read_text() for rank in range(2)]
    assert all(error in text for text in ended)
