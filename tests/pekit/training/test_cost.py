"""Cost of a training on a toy store, with times and sizes that can be worked out by hand."""

import copy
import dataclasses
import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toy import toy_store

from pekit.common.errors import UserError
from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.model.encoder3d import Encoder3D
from pekit.model.landmark_net import LandmarkNet
from pekit.training.cost import estimate_cost, timed
from pekit.training.settings import TrainSettings
from pekit.training.summary import model_table

SETTINGS = TrainSettings(
    image_size=32,
    batch_size=8,
    accumulate=2,
    epochs=3,
    samples_per_epoch=38,
    optimizer="adamw",
    workers=0,
    device="cpu",
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HopNet([Encoder("test_efficientnet")]).add_hop()


@pytest.fixture(scope="module")
def cost(toy, net, tmp_path_factory):
    return estimate_cost(net, *toy, SETTINGS, tmp_path_factory.mktemp("run") / "later")


def changed(**values):
    return SETTINGS.model_copy(update=values)


def test_counts_are_those_of_the_training(cost, net):
    """38 samples make 4 whole batches of 8, or 2 steps of 2 batches, in each of 3 epochs."""
    assert (cost.samples_per_epoch, cost.steps) == (32, 6)
    assert cost.parameters == sum(p.numel() for p in net.parameters())
    frozen = sum(p.numel() for p in net.encoders[0].parameters())
    assert cost.trained == cost.parameters - frozen
    assert cost.device.startswith("CPU")
    assert not any("too little" in line or "hours" in line for line in cost.advice)


def test_disk_holds_two_checkpoints_and_the_model(cost, net):
    weights = sum(t.nbytes for t in net.state_dict().values())
    adam = 2 * 4 * cost.trained  # two moments of float32
    assert cost.disk * 2**30 == pytest.approx(3 * weights + 2 * adam, rel=0.01)


def test_hours_are_those_of_steps_validation_and_start(toy, net, monkeypatch):
    """3 epochs of 4 batches of 0.1 + 0.4 s and 3 batches of 0.1 + 0.2 s; starts of 3 s and 2 s."""
    times = iter([(3.0, 0.1, 0.4), (2.0, 0.1, 0.2)])
    monkeypatch.setattr("pekit.training.cost.timed", lambda *_, **__: next(times))
    cost = estimate_cost(net, *toy, SETTINGS)
    assert cost.seconds_per_step == pytest.approx(2 * 0.5)
    assert cost.stacks_per_s == pytest.approx(8 / 0.5)
    assert cost.waiting == pytest.approx(0.2)
    assert cost.validation_s == pytest.approx(3 * 0.3)
    assert cost.hours * 3600 == pytest.approx(3 + 2 + 3 * (4 * 0.5 + 3 * 0.3))


class Clock:
    """Stands for a data loader whose batches take `waits` seconds each, and for the clock."""

    def __init__(self, waits, workers=0):
        self.now, self.waits = 0.0, waits
        self.num_workers, self.prefetch_factor = workers, 2 if workers else None

    def __call__(self):
        return self.now

    def __len__(self):
        return len(self.waits)

    def __iter__(self):
        for number, wait in enumerate(self.waits):
            self.now += wait
            yield number

    def step(self, number):
        self.now += 2.0 if number == 0 else 1.0


@pytest.mark.parametrize(
    ("waits", "workers", "expected"),
    [
        ([9.0, 0.5, 0.5, 0.5], 0, (9.0, 0.5, 1.0)),
        # With a worker two batches are ready when the first step ends: three are left out.
        ([9.0, 0.0, 0.0, 0.3, 0.5], 1, (9.0, 0.4, 1.0)),
        # Of few batches two count; a burst of batches of several workers is averaged.
        ([9.0, 0.0, 0.4], 4, (9.0, 0.2, 1.0)),
        ([9.0, 0.5], 0, (9.0, 0.5, 1.0)),
        ([9.0], 2, (9.0, 0.0, 2.0)),
    ],
)
def test_timed_steps_by_hand(monkeypatch, waits, workers, expected):
    clock = Clock(waits, workers)
    monkeypatch.setattr("pekit.training.cost.time.perf_counter", clock)
    assert timed(clock, clock.step) == pytest.approx(expected)


def test_timing_stops(monkeypatch):
    """2 + 4 x 1 seconds of steps do not pass the limit of 6 s, another second does."""
    clock = Clock([100.0] + [0.0] * 1000)
    monkeypatch.setattr("pekit.training.cost.time.perf_counter", clock)
    timed(clock, clock.step)
    assert clock.now == 107.0


def test_timing_takes_a_tenth_of_a_short_training(monkeypatch):
    """Two epochs of 20 steps, about 1 s each."""
    clock = Clock([0.0] * 20)
    monkeypatch.setattr("pekit.training.cost.time.perf_counter", clock)
    timed(clock, clock.step, epochs=2)
    assert clock.now == 6.0  # five steps, 2 s + 4 x 1 s: 40 steps would take 48 s
    clock = Clock([0.0] * 20)
    monkeypatch.setattr("pekit.training.cost.time.perf_counter", clock)
    timed(clock, clock.step, epochs=100)
    assert clock.now == 7.0, "a long one: 6 seconds"


def test_a_step_takes_as_long_as_estimated(toy):
    """A network that sleeps for 0.1 s in training, and its real loaders."""
    slow = HopNet([Encoder("test_resnet")])
    slow.windows.register_forward_hook(lambda *_: time.sleep(0.1) if slow.training else None)
    cost = estimate_cost(slow, *toy, changed(batch_size=4, accumulate=1))
    assert 0.1 < cost.seconds_per_step < 1.5
    assert cost.stacks_per_s < 40


def test_memory_by_hand(toy):
    """Weights, gradients and Adam's two moments; and what each sample keeps for backward."""
    net, side = HopNet([Encoder("test_resnet")]), 160  # no maps that are small
    small = estimate_cost(net, *toy, changed(batch_size=4, samples_per_epoch=4, image_size=side))
    large = estimate_cost(net, *toy, changed(batch_size=8, samples_per_epoch=8, image_size=side))
    weights = sum(t.nbytes for t in net.state_dict().values())
    fixed = (2 * small.memory - large.memory) * 2**30
    assert fixed == pytest.approx(weights + 3 * 4 * small.trained, rel=0.05)
    # By hooks: inputs and outputs of the convolutions, each kept once, are most of it.
    maps = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, x, y: maps.append(x[0].nbytes + y.nbytes))
    net.eval()(torch.zeros(1, 3, side, side))
    sample = (large.memory - small.memory) * 2**30 / 4
    assert 0.8 * sum(maps) < sample < 2 * sum(maps)


def test_work_of_a_sample_by_hand(toy):
    """The convolutions' multiplications and additions, by hooks; the rest is little."""
    net, work = HopNet([Encoder("test_resnet")]), []

    def count(conv, _inputs, output):
        work.append(2 * conv.weight[0].numel() * output[0].numel())

    flops = estimate_cost(net, *toy, changed(samples_per_epoch=8)).flops
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    net.eval()(torch.zeros(1, 3, 32, 32))
    assert flops == pytest.approx(sum(work), rel=0.02)


def test_weights_modes_and_random_states_are_left_alone(toy, net):
    before = copy.deepcopy(net.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    net.eval()
    estimate_cost(net, *toy, SETTINGS)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in net.parameters())
    assert not net.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_a_training_that_takes_longer_than_allowed_does_not_start(cost):
    long = dataclasses.replace(cost, hours=30.2)
    long.allow(31)
    long.allow(0)
    with pytest.raises(UserError, match=r"30\.2 hours.*set LIMIT_HOURS = 40"):
        long.allow(9.0)


def test_too_many_hours_say_what_fits(toy, net, monkeypatch):
    """3 epochs of 4 batches of 300 s make an hour."""
    times = iter([(0.0, 0.0, 300.0), (0.0, 0.0, 0.0)] * 3)
    monkeypatch.setattr("pekit.training.cost.timed", lambda *_, **__: next(times))
    (advice,) = estimate_cost(net, *toy, SETTINGS, limit_hours=0.4).advice
    assert advice == (
        "1.0 hours are more than a session's 0.4: resume it over 3 sessions, or set "
        "samples_per_epoch = 12 or epochs = 1"
    )
    (advice,) = estimate_cost(net, *toy, SETTINGS, limit_hours=0.1).advice
    assert advice.endswith("over 10 sessions, or set samples_per_epoch = 3")
    assert estimate_cost(net, *toy, SETTINGS, limit_hours=None).advice == []


def test_too_little_memory_suggests_batch_and_accumulation(toy, net, monkeypatch):
    class Small:
        available = 400 * 2**20

    net, sizes = copy.deepcopy(net), []
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr("pekit.training.cost.psutil.virtual_memory", Small)
    monkeypatch.setattr(
        "pekit.training.cost.Trial.memory", lambda self, sample: (100 * 2**20, 50 * 2**20)
    )
    # 100 + 50 x 8 MiB are needed, 360 of the 400 MiB may be used: 5 samples, 16 / 5 batches a step.
    cost = estimate_cost(net, *toy, SETTINGS)
    assert cost.advice[0].startswith("too little memory: 0.5 GiB are needed, 0.4 GiB can be used")
    assert cost.advice[0].endswith("set batch_size = 5 and accumulate = 4")
    assert max(sizes) == 5, "no batch that does not fit is tried"
    monkeypatch.setattr(
        "pekit.training.cost.Trial.memory", lambda self, sample: (400 * 2**20, 50 * 2**20)
    )
    advice = estimate_cost(net, *toy, SETTINGS).advice[0]
    assert advice.endswith("take a smaller image_size or encoder")


@pytest.mark.parametrize(
    ("workers", "cores", "advice"),
    [
        (0, 8, ["the network waits for data 75 % of the time: set workers = 3"]),
        (2, 8, ["the network waits for data 75 % of the time: set workers = 8"]),
        (2, 4, ["the network waits for data 75 % of the time: set workers = 4"]),
        (2, 2, []),
    ],
)
def test_slow_loading_needs_workers(toy, net, monkeypatch, workers, cores, advice):
    """3 s of waiting, 1 s of computing: 2 workers load a batch in 4 s, 8 workers in 1 s."""
    monkeypatch.setattr("pekit.training.cost.timed", lambda *_, **__: (0.0, 3.0, 1.0))
    monkeypatch.setattr("pekit.training.cost.processors", lambda: cores)
    assert estimate_cost(net, *toy, changed(workers=workers), limit_hours=None).advice == advice


def test_a_full_disk_is_told(toy, net, monkeypatch):
    monkeypatch.setattr("pekit.training.cost.shutil.disk_usage", lambda _: pd.Series({"free": 0}))
    assert estimate_cost(net, *toy, SETTINGS).advice[0].startswith("too little disk")


def test_a_cost_is_a_table_and_metrics(cost):
    table = cost.table().set_index("name")
    assert table.loc["optimiser steps", "value"] == "6"
    assert len(table) == 13
    assert cost.metrics()["steps"] == 6
    assert all(isinstance(value, int | float) for value in cost.metrics().values())


def test_cost_of_a_landmark_training(toy):
    net = LandmarkNet(Encoder("test_efficientnet"))
    few = changed(batch_size=2, samples_per_epoch=4, epochs=1, optimizer="sgd")
    cost = estimate_cost(net, *toy, few)
    assert cost.parameters == sum(p.numel() for p in net.parameters())
    classifier = sum(p.numel() for p in net.encoder.net.classifier.parameters())
    assert cost.trained == cost.parameters - classifier, "the classifier learns nothing here"
    assert cost.flops > 0


def test_what_cannot_be_trained_is_refused(toy, net):
    store, split = toy
    with pytest.raises(UserError, match="no study in its train part"):
        estimate_cost(net, store, split.assign(part="test"), SETTINGS)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device = gpu"):
            estimate_cost(net, store, split, changed(device="gpu"))


def test_table_of_the_papers_network():
    """EfficientNetV2-L at 576 pixels: section IV's features, and 117 million parameters."""
    with torch.device("meta"):
        net = HopNet([Encoder("tf_efficientnetv2_l"), Encoder("tf_efficientnetv2_l", 18)])
    table = model_table(net, 576)
    shapes = {part: rows["shape"].tolist() for part, rows in table.groupby("part")}
    assert shapes["windows"] == [(9, 576, 576)]
    pyramid = [(32, 288, 288), (64, 144, 144), (96, 72, 72), (224, 36, 36)]
    assert shapes["encoder 1"] == [*pyramid, (640, 18, 18), (1280, 18, 18), (2,)]
    assert shapes["encoder 2"] == shapes["encoder 1"]
    assert [shape[0] for shape in shapes["aggregator 1"]] == [224, 96, 64, 32, 9, 9]
    assert shapes["aggregator 1"][-1] == (9, 576, 576)
    total = table[table["layer"] == "all"].set_index("part")["parameters"]
    assert total["encoder 1"] == pytest.approx(117e6, rel=0.01)
    assert total.sum() == sum(p.numel() for p in net.parameters())


def test_table_of_hops_that_share_weights():
    net = HopNet([Encoder("test_efficientnet")]).add_hop(shared=True).add_hop(shared=True)
    table = model_table(net, 64)
    parts = table["part"].unique().tolist()
    assert parts == [
        "windows",
        *(f"{part} 1{turn}" for turn in ("", ", pass 2") for part in ("encoder", "aggregator")),
        "encoder 1, pass 3",
    ]
    counted = table.loc[table["layer"] == "all", "parameters"].sum()
    assert counted == sum(p.numel() for p in net.parameters())


def test_table_of_a_3d_network():
    net = HopNet([Encoder3D("x3d_s", depth=5)])
    table = model_table(net, 64).set_index("layer")
    assert table.loc["stride 32", "shape"] == (net.encoders[0].widths[0], 2, 2)
    assert table["shape"].iloc[0] == (15, 64, 64)
    assert table["parameters"].sum() == sum(p.numel() for p in net.parameters())


def test_table_leaves_the_network_alone(net):
    net.train()
    before = copy.deepcopy(net.state_dict())
    table = model_table(net, 64)
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert len(model_table(net, 64)) == len(table)  # no hook is left behind
    assert not any(module._forward_hooks for module in net.modules())
