import pytest
import torch

from pekit.common.errors import UserError
from pekit.hop import Aggregator, HopNet
from pekit.model.encoder import Encoder

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
    with pytest.raises(UserError, match=r"no hop can follow.*EfficientNet, ResNet"):
        Aggregator((192, 192, 192), (16, 16, 16))


@pytest.mark.parametrize(
    ("name", "size"), [("regnety_002", 75), ("densenet121", 51), ("convnext_atto", 65)]
)
def test_aggregator_of_other_encoders_and_odd_sizes(name, size):
    encoder = Encoder(name).eval()
    with torch.inference_mode():
        _, features = encoder(torch.rand(1, 9, size, size + 10))
        aggregator = Aggregator(encoder.widths, encoder.strides).eval()
        assert aggregator(features, (size, size + 10)).shape == (1, 9, size, size + 10)


def test_a_new_hop_starts_as_the_last_one(hop1, stack):
    with torch.inference_mode():
        one = hop1(stack)
        two = hop1.add_hop().eval()(stack)
        four = hop1.add_hop().add_hop().add_hop().eval()(stack)
    assert torch.equal(two, one.expand(-1, 2, -1)), "to the bit"
    assert torch.equal(four, one.expand(-1, 4, -1))


def trained(net):
    """`net` with context weights and batch-norm shifts that are not zero, as after training."""
    with torch.no_grad():
        for encoder in net.encoders:
            if encoder.in_chans > 9 and encoder.name == LITE0:
                encoder.net.conv_stem.weight[:, 9:].normal_(std=0.1)
        for aggregator in net.aggregators:
            aggregator.steps[-1][1][1].bias.fill_(0.5)
    return net.eval()


def test_a_third_hop_is_the_second_once_more(hop1, stack):
    two = trained(hop1.add_hop())
    three = two.add_hop().eval()
    images = two.windows(stack)
    with torch.inference_mode():
        _, first = two.encoders[0](images)
        context = two.aggregators[0](first, (64, 64))
        _, second = two.encoders[1](torch.cat([images, context], dim=1))
        context = two.aggregators[0](second, (64, 64))
        expected, _ = two.encoders[1](torch.cat([images, context], dim=1))
        logits = three(stack)
        assert torch.equal(logits[:, :2], two(stack))
    assert torch.equal(logits[:, 2], expected)
    assert not torch.allclose(logits[:, 2], logits[:, 1])
    assert three.frozen == 2
    assert not any(p.requires_grad for p in three.aggregators[0].parameters())


def test_hops_of_different_encoders(hop1, stack):
    """Hop 2 starts as its encoder alone; so does hop 3 after it, as the features differ."""
    regnet = Encoder("regnety_002")
    two = hop1.add_hop(regnet).eval()
    assert [e.name for e in two.encoders] == [LITE0, "regnety_002"]
    with torch.inference_mode():
        alone = HopNet([regnet]).eval()(stack)[:, 0]
        logits = two(stack)
        assert torch.equal(logits[:, 0], hop1(stack)[:, 0])
        assert torch.equal(logits[:, 1], alone)
        two.encoders[1].net.stem.conv.weight[:, 9:].normal_(std=0.1)  # as after training
        logits = two.add_hop().eval()(stack)
    assert not torch.allclose(logits[:, 1], alone)
    assert torch.equal(logits[:, 2], alone)


def test_hops_that_share_weights(hop1, stack):
    """Equation 7 by hand, the same encoder and aggregator at each hop."""
    shared = trained(hop1.add_hop(shared=True).add_hop(shared=True))
    assert (shared.hops, shared.frozen, len(shared.encoders)) == (3, 0, 1)
    encoder, aggregator = shared.encoders[0], shared.aggregators[0]
    images = shared.windows(stack)
    context, expected = torch.zeros_like(images), []
    with torch.inference_mode():
        for _ in range(3):
            logits, features = encoder(torch.cat([images, context], dim=1))
            context = aggregator(features, (64, 64))
            expected.append(logits)
        logits = shared(stack)
        assert torch.equal(logits[:, 0], hop1(stack)[:, 0]), "the first pass sees no context"
    assert torch.equal(logits, torch.stack(expected, dim=1))
    assert not torch.allclose(logits[:, 1], logits[:, 0])
    assert not torch.allclose(logits[:, 2], logits[:, 1])


def test_shared_weights_are_stored_once_and_all_train(hop1, stack):
    two, four = hop1.add_hop(shared=True), HopNet([Encoder(LITE0, 18)], passes=4)
    assert two.state_dict().keys() == four.state_dict().keys()
    assert sum(p.numel() for p in two.parameters()) == sum(p.numel() for p in four.parameters())
    trained(two).train()(stack)[:, -1, 1].sum().backward()
    assert all(p.grad is not None for p in two.parameters())
    with torch.inference_mode():
        start = hop1.add_hop(shared=True).add_hop(shared=True).eval()(stack)
    assert torch.equal(start, start[:, :1].expand(-1, 3, -1))


def test_chains_that_do_not_fit_are_refused(hop1):
    with pytest.raises(UserError, match="hop 2, tf_efficientnet_lite0, takes 9 channels"):
        HopNet([Encoder(LITE0), Encoder(LITE0)])
    with pytest.raises(UserError, match=r"hop 1, tf_efficientnet_lite0, takes 9 .* of 18"):
        HopNet([Encoder(LITE0)], passes=2)
    with pytest.raises(UserError, match="sharing takes a single one"):
        HopNet([Encoder(LITE0), Encoder(LITE0, 18)], passes=2)
    with pytest.raises(UserError, match="shared by `passes`"):
        HopNet([Encoder(LITE0), *[Encoder("regnety_002", 18)] * 2])
    with pytest.raises(UserError, match="only a single hop can be shared"):
        hop1.add_hop().add_hop(shared=True)
    with pytest.raises(UserError, match="share weights can be followed only"):
        hop1.add_hop(shared=True).add_hop()


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
