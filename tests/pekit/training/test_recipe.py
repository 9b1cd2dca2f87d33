"""The paper's recipe, on the real classes."""

import pytest
import torch
from torch import nn

from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.model.landmark_net import LandmarkNet
from pekit.training.recipe import build_optimizer, landmark_loss, learning_rate, pe_loss
from pekit.training.settings import TrainSettings


def stepped(**values):
    """Weights (3, 4) after two steps along the gradient (0.6, 0.8)."""
    weights = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        weights.weight.copy_(torch.tensor([[3.0, 4.0]]))
    optimizer = build_optimizer(weights, TrainSettings(**values))
    weights.weight.grad = torch.tensor([[0.6, 0.8]])
    optimizer.step()
    return (torch.tensor([[3.0, 4.0]]) - weights.weight).detach() / torch.tensor([[0.6, 0.8]])


def test_schedule_of_the_paper():
    steps = 11_000
    rates = {k: learning_rate(k, steps, TrainSettings()) for k in (0, 499, 500, 999, 1000)}
    assert rates == pytest.approx(
        {0: 0.003 / 1000, 499: 0.0015, 500: 0.003 * 0.501, 999: 0.003, 1000: 0.003}
    )
    middle, last, end = (learning_rate(k, steps, TrainSettings()) for k in (6000, 10_999, steps))
    assert middle == pytest.approx(0.0015)
    assert last == pytest.approx(0.003 / 10_000)
    assert end == 0


def test_a_short_training_warms_up_in_half_of_it():
    assert learning_rate(4, 10, TrainSettings()) == pytest.approx(0.003)
    assert learning_rate(0, 10, TrainSettings()) == pytest.approx(0.0006)
    assert learning_rate(0, 1, TrainSettings()) == 0.003


def test_lars_adapts():
    # You et al. 2017: the step is lr * trust * |w| / |g| along the gradient; |w| = 5, |g| = 1.
    adapted = stepped(lars_trust=0.01, lr=1.0)
    assert torch.allclose(adapted, torch.tensor(0.05), rtol=1e-3)
    assert torch.allclose(stepped(), torch.tensor(0.003 * 0.001 * 5), rtol=0.02)


def test_lars_leaves_biases_and_norms_out():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    optimizer = build_optimizer(net, TrainSettings(lr=0.1))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    steps = {name: (before[name] - p).detach() for name, p in net.named_parameters()}
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.allclose(steps[name], torch.tensor(0.1)), f"{name} takes a step of SGD"
    assert steps["0.weight"].max() < 0.001


def test_the_encoder_may_learn_more_slowly():
    net = LandmarkNet(Encoder("test_efficientnet"))
    settings = TrainSettings(optimizer="sgd", lr=0.1, encoder_lr=0.1)
    scale = {
        id(p): group["lr_scale"]
        for group in build_optimizer(net, settings).param_groups
        for p in group["params"]
    }
    free = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    assert len(free) == len(scale)
    assert {scale[id(p)] for name, p in free if name.startswith("encoder.")} == {0.1}
    assert {scale[id(p)] for name, p in free if name.startswith("heads.")} == {1.0}
    hop = HopNet([Encoder("test_efficientnet")])
    slow = build_optimizer(hop, settings).param_groups
    new = [p for g in slow if g["lr_scale"] == 1 for p in g["params"]]
    assert {id(p) for p in new} == {id(p) for p in hop.encoders[0].net.classifier.parameters()}


def test_landmarks_by_sgd():
    one = stepped(optimizer="sgd", lr=0.1)
    # timm's SGD looks ahead (Nesterov): 1 + momentum at the first step.
    assert torch.allclose(one, torch.tensor(0.1 * 1.9), rtol=1e-4)


def test_frozen_parameters_are_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    free = build_optimizer(net, TrainSettings()).param_groups
    assert sum(len(group["params"]) for group in free) == 2


def test_the_last_hop_is_what_is_learnt():
    logits = torch.tensor([[[9.0, -9.0], [0.0, 0.0]]])
    assert pe_loss(logits, torch.tensor([1])).item() == pytest.approx(0.693147, abs=1e-6)


def test_absent_landmarks_do_not_count():
    target = torch.tensor([[[0.5, 0.5, 0.0], [float("nan")] * 3]])
    predicted = torch.tensor([[[0.5, 0.7, 0.1], [9.0, 9.0, 9.0]]], requires_grad=True)
    loss = landmark_loss(predicted, target)
    assert loss.item() == pytest.approx((0.2**2 + 0.1**2) / 3)
    loss.backward()
    assert predicted.grad[0, 1].abs().max() == 0
