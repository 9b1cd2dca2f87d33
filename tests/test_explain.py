import numpy as np
import pytest
import torch
from torch import nn

from pekit.explain import attribution_focus, integrated_gradients
from pekit.hop import HopNet
from pekit.model import Encoder
from pekit.windows import Windows


class Linear(nn.Module):
    """Two hops whose log-odds are known sums over the windowed image."""

    def __init__(self):
        super().__init__()
        self.windows = Windows()
        weight = torch.zeros(9, 8, 8)
        weight[:, 2:4, 5] = 1
        self.weight = nn.Parameter(weight)

    def hop_logits(self, images):
        score = (images * self.weight).sum((1, 2, 3))
        zero = torch.zeros_like(score)
        return torch.stack([torch.stack([zero, k * score], 1) for k in (1, 2)], 1)


def test_linear_score_is_attributed_exactly():
    net = Linear()
    stack = np.random.default_rng(0).integers(-1000, 600, (2, 3, 8, 8)).astype(np.int16)
    one = integrated_gradients(net, stack, hop=0, steps=5)
    two = integrated_gradients(net, stack, hop=-1, steps=5)
    images = net.windows(torch.from_numpy(stack)).sum(1).numpy()
    expected = np.zeros((2, 8, 8), np.float32)
    expected[:, 2:4, 5] = images[:, 2:4, 5]
    np.testing.assert_allclose(one.maps, expected, rtol=1e-4)
    np.testing.assert_allclose(two.maps, 2 * expected, rtol=1e-4)
    assert one.completeness_error.max() < 1e-4


def test_real_network_is_nearly_complete():
    torch.manual_seed(0)
    net = HopNet([Encoder("tf_efficientnet_lite0", init="package")]).add_hop()
    stack = np.random.default_rng(0).integers(-200, 400, (1, 3, 64, 64)).astype(np.int16)
    attribution = integrated_gradients(net, stack, steps=64, batch_size=16)
    assert attribution.maps.shape == (1, 64, 64)
    assert attribution.completeness_error.max() < 0.2
    assert all(p.grad is None for p in net.parameters())


def test_focus_against_chance():
    maps = np.ones((1, 4, 4))
    clot = np.zeros((1, 4, 4), bool)
    clot[0, 0] = True
    assert attribution_focus(maps, clot) == pytest.approx((0.25, 0.25))
    maps[0, 0] = 3
    assert attribution_focus(maps, clot) == pytest.approx((0.5, 0.25))
