"""Convolutions of small maps: quicker on a CPU, and convolutions all the same."""

import copy

import pytest
import torch
from torch import nn

from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.training.small_maps import SmallMapConv, SmallMapDepthwise, prepare_layout

RESNET = [(7, 2, 3), (3, 1, 1), (3, 2, 1), (1, 2, 0)]  # kernel, stride, padding
EFFICIENTNET = [(3, 1, 1), (5, 1, 2), (5, 2, 2), ((5, 3), (2, 1), (2, 0))]


@pytest.mark.parametrize("side", [(1, 1), (2, 2), (3, 4), (7, 7)])
@pytest.mark.parametrize(
    ("kind", "groups", "geometry"),
    [(SmallMapConv, 1, g) for g in RESNET] + [(SmallMapDepthwise, 6, g) for g in EFFICIENTNET],
)
def test_convolutions_of_small_maps_are_convolutions(side, kind, groups, geometry):
    torch.manual_seed(0)
    kernel, stride, padding = geometry
    if kernel == (5, 3) and side[1] < 3:
        pytest.skip("the kernel is wider than the map")
    plain = nn.Conv2d(6, 6, kernel, stride, padding, groups=groups, bias=False)
    quick = copy.deepcopy(plain)
    quick.__class__ = kind
    results = []
    for conv in (plain, quick):
        x = torch.arange(12 * side[0] * side[1]).reshape(2, 6, *side) / 40.0
        x.requires_grad_()
        y = conv(x)
        y.square().sum().backward()
        results.append((y, x.grad, conv.weight.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_network_keeps_its_weights_and_its_outputs():
    torch.manual_seed(0)
    net = HopNet([Encoder("test_efficientnet")]).eval()
    stacks = torch.randint(-1000, 600, (2, 3, 32, 32), dtype=torch.int16)
    before, logits = net.state_dict(), net(stacks)
    prepare_layout(net, "cpu")
    assert any(isinstance(part, SmallMapDepthwise) for part in net.modules())
    assert net.state_dict().keys() == before.keys()
    torch.testing.assert_close(net(stacks), logits)
