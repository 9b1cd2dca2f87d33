"""The paper's recipe, in the classes and in the experiment file rsna.yaml."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pekit.training.recipe import build_optimizer, landmark_loss, learning_rate, pe_loss
from pekit.training.settings import LarsSettings, TrainSettings

EXPERIMENT = Path(__file__).resolve().parents[3] / "notebooks" / "experiments" / "rsna.yaml"


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


def test_the_warm_up_is_at_most_half_of_the_training():
    assert learning_rate(4, 10, TrainSettings()) == pytest.approx(0.003)
    assert learning_rate(0, 10, TrainSettings()) == pytest.approx(0.0006)
    assert learning_rate(0, 1, TrainSettings()) == 0.003


def test_lars_adapts_where_it_is_set_to():
    # |w| = 5, |g| = 1: the step is lr * trust * 5; without weight decay timm's LARS is SGD.
    assert torch.allclose(stepped(), torch.tensor(0.003), rtol=1e-3)
    adapted = stepped(lars=LarsSettings(always_adapt=True, trust=0.01), lr=1.0)
    assert torch.allclose(adapted, torch.tensor(0.05), rtol=1e-3)


def test_landmarks_by_sgd():
    one = stepped(optimizer="sgd", lr=0.1)
    # timm's SGD looks ahead (Nesterov): 1 + momentum at the first step.
    assert torch.allclose(one, torch.tensor(0.1 * 1.9), rtol=1e-4)


def test_frozen_parameters_are_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    free = build_optimizer(net, TrainSettings()).param_groups
    assert sum(len(group["params"]) for group in free) == 2


def test_the_experiment_is_the_papers():
    stages = yaml.safe_load(EXPERIMENT.read_text())["stages"]
    paper = {name.upper(): value for name, value in TrainSettings().model_dump().items()}
    for stage in ("hop1", "hop2", "pretrain"):
        params = dict(stages[stage]["params"])
        assert params.pop("AUGMENT") == {}, "unnamed settings have the paper's values"
        assert params.pop("SAMPLES_PER_EPOCH") == 0, "every slice once"
        assert params.pop("POSITIVE_FRACTION", 0) == 0, "natural prevalence"
        assert params.pop("ENCODER", "tf_efficientnetv2_l.in21k") == "tf_efficientnetv2_l.in21k"
        recipe = {k: v for k, v in params.items() if k in paper}
        for name in ("DEVICE", "CLUSTER", "PRECISION", "WORKERS", "BATCH_SIZE"):  # not the paper's
            recipe.pop(name)
        changed = {k: v for k, v in recipe.items() if v != paper[k]}
        assert changed == ({"OPTIMIZER": "sgd", "LR": 0.1} if stage == "pretrain" else {})


def test_the_loss_is_of_the_last_hop():
    logits = torch.tensor([[[9.0, -9.0], [0.0, 0.0]]])
    assert pe_loss(logits, torch.tensor([1])).item() == pytest.approx(0.693147, abs=1e-6)


def test_absent_landmarks_do_not_count():
    target = torch.tensor([[[0.5, 0.5, 0.0], [float("nan")] * 3]])
    predicted = torch.tensor([[[0.5, 0.7, 0.1], [9.0, 9.0, 9.0]]], requires_grad=True)
    loss = landmark_loss(predicted, target)
    assert loss.item() == pytest.approx((0.2**2 + 0.1**2) / 3)
    loss.backward()
    assert predicted.grad[0, 1].abs().max() == 0
