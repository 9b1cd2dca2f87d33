"""The landmark network: what it trains, and what hop 1 gets from it."""

import numpy as np
import pytest
import torch

from pekit.checkpoint import build_encoder, save_model
from pekit.model.encoder import Encoder, make_encoder
from pekit.model.landmark_net import LandmarkNet


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_convnext", "r3d_18"])
def test_every_trained_parameter_gets_a_gradient(name):
    """Distributed training stops at a trainable parameter without one."""
    net = LandmarkNet(make_encoder(name, depth=3 if name == "r3d_18" else None)).train()
    side = net.encoder.image_size or 64
    net(torch.randint(-1000, 600, (2, net.depth, side, side), dtype=torch.int16)).sum().backward()
    for label, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, label
    frozen = [label for label, p in net.encoder.named_parameters() if not p.requires_grad]
    assert any(label.startswith(net.encoder.classifiers) for label in frozen)


def test_heads_start_at_the_constant_that_they_are_compared_with():
    torch.manual_seed(0)
    net = LandmarkNet(Encoder("test_efficientnet"))
    mean = np.random.default_rng(0).uniform(-0.5, 1, (20, 3))
    mean[3] = np.nan
    net.start_at(mean)
    stacks = torch.randint(-1000, 600, (4, 3, 64, 64), dtype=torch.int16)
    found = net.train()(stacks).detach().numpy()
    spread = np.abs(found - np.nan_to_num(mean)).max()
    assert 0 < spread < 0.5, "the constant, and a little of the image"
    assert np.abs(found[:, 3]).max() < 0.5


def test_hop_1_trains_the_classifier_again(tmp_path):
    net = LandmarkNet(Encoder("test_efficientnet"))
    assert not net.encoder.net.classifier.weight.requires_grad
    save_model(tmp_path, net, 64)
    encoder = build_encoder("test_efficientnet", str(tmp_path))
    assert all(p.requires_grad for p in encoder.parameters())
