import numpy as np
import pytest
import torch
from torch import nn

from pekit.common.errors import UserError
from pekit.dataset.windows import Windows
from pekit.explain import METHODS, attribution_focus, explain, explain_volume
from pekit.hop import HopNet
from pekit.model.encoder import Encoder


class Linear(nn.Module):
    """Two hops whose log-odds are known sums over the windowed image."""

    def __init__(self):
        super().__init__()
        self.windows = Windows()
        weight = torch.zeros(9, 8, 8)
        weight[:, 2:4, 5] = 1
        self.weight = nn.Parameter(weight)

    hops, depth = 2, 3

    def hop_logits(self, images, hops=None):
        self.asked = hops
        score = (images * self.weight).sum((1, 2, 3))
        zero = torch.zeros_like(score)
        return torch.stack([torch.stack([zero, k * score], 1) for k in (1, 2)[:hops]], 1)


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(-1000, 600, (2, 3, 8, 8)).astype(np.int16)


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_shap", "input_x_gradient"])
def test_linear_score_is_attributed_exactly(stack, method):
    net = Linear()
    one = explain(net, stack, method, hop=0, steps=5)
    assert net.asked == 1  # the second hop is not computed
    two = explain(net, stack, method, hop=-1, steps=5)
    images = net.windows(torch.from_numpy(stack)).sum(1).numpy()
    expected = np.zeros((2, 8, 8), np.float32)
    expected[:, 2:4, 5] = images[:, 2:4, 5]
    np.testing.assert_allclose(one.maps, expected, rtol=1e-4)
    np.testing.assert_allclose(two.maps, 2 * expected, rtol=1e-4)
    if METHODS[method].complete:
        assert one.completeness_error.max() < 1e-4
    else:
        assert one.completeness_error is None


@pytest.mark.parametrize("method", ["saliency", "smoothgrad"])
def test_gradients_of_a_linear_score_are_its_weights(stack, method):
    found = explain(Linear(), stack, method, steps=3)
    expected = np.zeros((2, 8, 8))
    expected[:, 2:4, 5] = 2 * 9
    np.testing.assert_allclose(found.maps, expected, rtol=1e-5)
    assert found.completeness_error is None


def test_occlusion_finds_the_place(stack):
    found = explain(Linear(), stack, "occlusion", batch_size=7)
    away = found.maps.copy()
    away[:, 2:4, 5] = 0
    assert found.maps[:, 2:4, 5].min() > 0
    assert away.max() == 0  # at 8 pixels a square of 1/8 of the side is one pixel


def test_unknown_method_suggests_similar_names(stack):
    with pytest.raises(UserError, match=r"'oclusion': did you mean occlusion"):
        explain(Linear(), stack, "oclusion")


@pytest.mark.parametrize("method", METHODS)
def test_captions_state_the_baseline(method):
    caption = METHODS[method].caption
    assert ("no baseline" in caption) != ("zero (air)" in caption)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return HopNet([Encoder("tf_efficientnet_lite0", init="package")]).add_hop()


def test_real_network_is_nearly_complete(network):
    stack = np.random.default_rng(0).integers(-200, 400, (1, 3, 32, 32)).astype(np.int16)
    before, before_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    attribution = explain(network, stack, steps=32, batch_size=16)
    assert attribution.maps.shape == (1, 32, 32)
    assert attribution.completeness_error.max() < 0.2
    assert all(p.grad is None for p in network.parameters())
    # Batch size does not matter; samples repeat and leave the random states unchanged.
    smaller = explain(network, stack, steps=32, batch_size=5)
    np.testing.assert_allclose(smaller.maps, attribution.maps, rtol=1e-2, atol=1e-5)
    drawn = [explain(network, stack, "gradient_shap", steps=4).maps for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert (torch.random.get_rng_state() == before).all()
    assert (np.random.get_state()[1] == before_numpy).all()


def test_slices_of_a_volume_for_each_hop(network):
    hu = np.random.default_rng(0).integers(-200, 400, (5, 40, 30)).astype(np.int16)
    found = explain_volume(network, hu, [0, 3], 32, method="saliency")
    assert list(found) == ["hop1", "hop2"]
    assert all(of_hop.maps.shape == (2, 40, 30) for of_hop in found.values())
    other = explain_volume(network, hu, [3], 32, method="saliency")
    np.testing.assert_allclose(other["hop2"].maps[0], found["hop2"].maps[1], rtol=1e-4, atol=1e-6)


def test_focus_against_chance():
    maps = np.ones((1, 4, 4))
    clot = np.zeros((1, 4, 4), bool)
    clot[0, 0] = True
    assert attribution_focus(maps, clot) == pytest.approx((0.25, 0.25))
    maps[0, 0] = 3
    assert attribution_focus(maps, clot) == pytest.approx((0.5, 0.25))
