import pytest
import torch

from pekit.errors import UserError
from pekit.hop import Aggregator, HopNet
from pekit.model import Encoder

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def hop1():
    return HopNet([Encoder(LITE0, init="package")]).eval()


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return torch.randint(-1000, 600, (2, 3, 64, 64), dtype=torch.int16)


@pytest.mark.parametrize("size", [(96, 64), (70, 54)])
def test_aggregator_returns_to_the_size_of_the_input(size):
    encoder = Encoder(LITE0).eval()
    images = torch.rand(1, 9, *size)
    _, features = encoder(images)
    aggregator = Aggregator(encoder.widths, encoder.strides).eval()
    assert aggregator(features, size).shape == (1, 9, *size)


def test_aggregator_has_the_papers_widths():
    aggregator = Aggregator((32, 64, 96, 224, 1280), (2, 4, 8, 16, 32))
    convolutions = [m for m in aggregator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions[::2]] == [224, 96, 64, 32, 9]
    # Every step but the first takes its own width and the encoder's of the same stride.
    assert [c.in_channels for c in convolutions[::2]] == [1280, 448, 192, 128, 64]


def test_aggregator_refuses_features_of_one_stride():
    with pytest.raises(UserError, match="no hop can follow.*EfficientNet, ResNet"):
        Aggregator((192, 192, 192), (16, 16, 16))


def test_a_new_hop_starts_as_the_last_one(hop1, stack):
    with torch.inference_mode():
        one = hop1(stack)
        two = hop1.add_hop().eval()(stack)
        three = hop1.add_hop().add_hop().eval()(stack)
    assert two.shape == (2, 2, 2)
    torch.testing.assert_close(two[:, 0], one[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(two[:, 1], one[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(three[:, 2], one[:, 0], rtol=1e-5, atol=1e-5)


def test_the_second_hop_sees_the_first(hop1, stack):
    """Once its new weights are not zero, the second hop depends on the first hop's features."""
    two = hop1.add_hop().eval()
    with torch.no_grad():
        two.encoders[1].net.conv_stem.weight[:, 9:].fill_(0.1)
    with torch.inference_mode():
        before = two(stack)[:, 1]
        two.aggregators[0].steps[-1][1][1].bias.fill_(1.0)  # the last batch norm's shift
        assert not torch.allclose(before, two(stack)[:, 1])


def test_frozen_hops_do_not_change_in_training(hop1, stack):
    two = hop1.add_hop()
    before = {k: v.clone() for k, v in two.encoders[0].state_dict().items()}
    optimizer = torch.optim.SGD([p for p in two.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        two.train()
        optimizer.zero_grad()
        two(stack)[:, -1].sum().backward()
        optimizer.step()
    after = two.encoders[0].state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "batch-norm statistics included"
    assert all(p.grad is None for p in two.encoders[0].parameters())
    assert two.aggregators[0].steps[0][0][0].weight.grad.abs().sum() > 0
    assert not torch.equal(
        two.encoders[1].net.conv_stem.weight[:, :9], hop1.encoders[0].net.conv_stem.weight
    )


def test_adding_a_hop_leaves_the_original_free(hop1):
    hop1.add_hop()
    assert all(p.requires_grad for p in hop1.parameters())


def test_all_hops_frozen_is_refused(hop1):
    with pytest.raises(UserError, match="last one must be free"):
        HopNet(list(hop1.encoders), frozen=1)
