"""Plans of a training on a toy store, with rates and sizes that can be worked out by hand."""

import copy
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
from pekit.training.cost import plan_training
from pekit.training.probe import count_flops
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
def plan(toy, net, tmp_path_factory):
    return plan_training(net, *toy, SETTINGS, tmp_path_factory.mktemp("run") / "later")


def changed(**values):
    return SETTINGS.model_copy(update=values)


def test_counts_are_those_of_the_training(plan, net):
    """38 samples make 4 whole batches of 8, or 2 steps of 2 batches, in each of 3 epochs."""
    assert (plan.samples_per_epoch, plan.steps) == (32, 6)
    assert plan.parameters == sum(p.numel() for p in net.parameters())
    frozen = sum(p.numel() for p in net.encoders[0].parameters())
    assert plan.trained == plan.parameters - frozen
    assert plan.device.startswith("CPU")
    assert plan.advice == []


def test_disk_holds_two_checkpoints_and_the_model(plan, net):
    weights = sum(t.nbytes for t in net.state_dict().values())
    adam = 2 * 4 * plan.trained  # two moments of float32
    assert plan.disk * 2**30 == pytest.approx(3 * weights + 2 * adam, rel=0.01)


def test_time_follows_from_rates(plan):
    """Steps, and validation of 20 slices an epoch, which is no slower than training."""
    training = plan.steps * plan.seconds_per_step
    batch_s = 8 / plan.device_rate + 8 / plan.loader_rate
    assert plan.seconds_per_step == pytest.approx(2 * batch_s)
    assert training < plan.hours * 3600 < training * (1 + 2 * 20 / 32)


def test_a_step_takes_as_long_as_planned(toy):
    """A network that sleeps for 0.1 s in training, and batches of 4 that are all probed."""
    slow = HopNet([Encoder("test_resnet")])
    slow.windows.register_forward_hook(lambda *_: time.sleep(0.1) if slow.training else None)
    plan = plan_training(slow, *toy, changed(batch_size=4, accumulate=1))
    assert 0.1 < plan.seconds_per_step < 1.5
    assert plan.device_rate < 40


def test_memory_by_hand(toy):
    """Weights, gradients and Adam's two moments; and what each sample keeps for backward."""
    net = HopNet([Encoder("test_resnet")])
    small = plan_training(net, *toy, changed(batch_size=4, samples_per_epoch=4), probe_steps=1)
    large = plan_training(net, *toy, changed(batch_size=8, samples_per_epoch=8), probe_steps=1)
    weights = sum(t.nbytes for t in net.state_dict().values())
    fixed = (2 * small.memory - large.memory) * 2**30
    assert fixed == pytest.approx(weights + 3 * 4 * small.trained, rel=0.05)
    # By hooks: what the convolutions read and give, each kept once, is the better part of it.
    maps = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, x, y: maps.append(x[0].nbytes + y.nbytes))
    net.eval()(torch.zeros(1, 3, 32, 32))
    sample = (large.memory - small.memory) * 2**30 / 4
    assert 0.8 * sum(maps) < sample < 2 * sum(maps)


def test_weights_modes_and_random_states_are_left_alone(toy, net):
    before = copy.deepcopy(net.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    net.eval()
    plan_training(net, *toy, SETTINGS, probe_steps=1)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in net.parameters())
    assert not net.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_too_many_hours_say_what_fits(toy, net, plan):
    tight = plan_training(net, *toy, SETTINGS, limit_hours=plan.hours / 50)
    assert len(tight.advice) == 1
    assert "hours are more than a session's" in tight.advice[0]
    draws = int(tight.advice[0].split("samples_per_epoch = ")[1].split()[0])
    assert 0 < draws < 32 / 10
    assert plan_training(net, *toy, SETTINGS, limit_hours=None, probe_steps=1).advice == []


def test_too_little_memory_suggests_batch_and_accumulation(toy, net, monkeypatch):
    monkeypatch.setattr(
        "pekit.training.probe.Probe.memory", lambda self: (100.0 * 2**20, 50.0 * 2**20)
    )
    monkeypatch.setattr("pekit.training.probe.Probe.free_memory", lambda self: 400.0 * 2**20)
    # 100 + 50 x 8 MiB are needed, 360 of the 400 MiB may be used: 5 samples, 16 / 5 batches a step.
    (advice,) = plan_training(net, *toy, SETTINGS, probe_steps=1).advice
    assert advice.startswith("too little memory: 0.5 GiB are needed, 0.4 GiB are free")
    assert advice.endswith("set batch_size = 5 and accumulate = 4")
    monkeypatch.setattr(
        "pekit.training.probe.Probe.memory", lambda self: (400.0 * 2**20, 50.0 * 2**20)
    )
    (advice,) = plan_training(net, *toy, SETTINGS, probe_steps=1).advice
    assert advice.endswith("take a smaller image_size or encoder")


def test_slow_loading_and_a_full_disk_are_told(toy, net, monkeypatch):
    monkeypatch.setattr("pekit.training.cost.seconds_per_stack", lambda dataset: 10.0)
    monkeypatch.setattr(
        "pekit.training.cost.shutil.disk_usage", lambda path: pd.Series({"free": 0})
    )
    loading, disk = plan_training(net, *toy, SETTINGS, limit_hours=None, probe_steps=1).advice
    assert "set workers = " in loading
    assert int(loading.split("set workers = ")[1]) >= 10  # at least one stack a second
    assert disk.startswith("too little disk")


def test_a_plan_is_a_table_and_metrics(plan):
    table = plan.table().set_index("what")
    assert table.loc["optimiser steps", "value"] == "6"
    assert len(table) == 13
    assert plan.metrics()["steps"] == 6
    assert all(isinstance(value, int | float) for value in plan.metrics().values())


def test_landmark_training_is_planned_too(toy):
    net = LandmarkNet(Encoder("test_efficientnet"))
    plan = plan_training(net, *toy, changed(batch_size=2, optimizer="sgd"), probe_steps=1)
    assert plan.trained == sum(p.numel() for p in net.parameters())
    assert plan.flops > 0


def test_what_cannot_be_trained_is_refused(toy, net):
    store, split = toy
    with pytest.raises(UserError, match="no study in its train part"):
        plan_training(net, store, split.assign(part="test"), SETTINGS)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device = gpu"):
            plan_training(net, store, split, changed(device="gpu"))


@pytest.mark.parametrize(("groups", "forward"), [(1, 2 * 9 * 8 * 8 * 16), (8, 2 * 9 * 8 * 16)])
def test_work_of_a_convolution_by_hand(groups, forward):
    """8 to 8 channels, 3 x 3, 4 x 4 pixels; backward is twice forward where x has a gradient."""
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    x = torch.zeros(1, 8, 4, 4, requires_grad=True)
    assert count_flops(lambda: conv(x)) == forward
    assert count_flops(lambda: conv(x).sum().backward()) == 3 * forward
    assert count_flops(lambda: conv(x.detach()).sum().backward()) == 2 * forward


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
