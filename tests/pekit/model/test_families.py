"""Encoder families of the paper (section III), small: training step, checkpoint, second hop."""

import pytest
import torch

from pekit.checkpoint import load_hops, save_model
from pekit.common.errors import UserError
from pekit.hop import HopNet
from pekit.model.encoder import make_encoder

SIZE = 64
PYRAMIDS = (
    "tf_efficientnetv2_b0", "ecaresnet26t", "densenet121", "coatnet_nano_rw_224", "regnety_002",
)  # fmt: skip
TRANSFORMERS = ("vit_tiny_patch16_224", "cait_xxs24_224")
VOLUMES = {"r3d_18": 5, "mc3_18": 3, "r2plus1d_18": 3, "x3d_s": 5, "x3d_l": 3}


def one_hop(name):
    torch.manual_seed(0)
    if name in VOLUMES:
        return HopNet([make_encoder(name, depth=VOLUMES[name])]), 32
    return HopNet([make_encoder(name, image_size=SIZE)]), SIZE


def stack_for(net, size):
    generator = torch.Generator().manual_seed(1)
    shape = (2, net.depth, size, size)
    return torch.randint(-1000, 600, shape, dtype=torch.int16, generator=generator)


@pytest.mark.parametrize("name", [*PYRAMIDS, *TRANSFORMERS, *VOLUMES])
def test_an_encoder_trains_is_restored_and_takes_a_hop(name, tmp_path):
    net, size = one_hop(name)
    stack = stack_for(net, size)
    net.to(memory_format=net.memory_format).train()
    torch.nn.functional.cross_entropy(net(stack)[:, 0], torch.tensor([0, 1])).backward()
    first, *_, last = (p.grad for p in net.parameters() if p.grad is not None)
    assert first.abs().sum() > 0
    assert last.abs().sum() > 0
    net.eval()
    save_model(tmp_path, net, size)
    loaded, card = load_hops(tmp_path)
    loaded.to(memory_format=net.memory_format)  # same memory layout, so equal to the bit
    assert (card.encoders, card.depth, loaded.depth) == ([name], net.depth, net.depth)
    with torch.inference_mode():
        logits = net(stack)
        assert torch.equal(loaded(stack), logits)
        _, features = net.encoders[0](net.windows(stack))
    assert logits.shape == (2, 1, 2)
    assert tuple(f.shape[1] for f in features) == net.encoders[0].widths
    if name in PYRAMIDS:
        two = net.add_hop().to(memory_format=net.memory_format).eval()
        with torch.inference_mode():
            assert torch.equal(two(stack), logits.expand(-1, 2, -1)), "hop 2 starts as hop 1"
    sides = [f.shape[2:] for f in features]
    assert sides == [(size // s, size // s) for s in net.encoders[0].strides]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "r3d_18"])
def test_a_hop_after_an_encoder_without_a_pyramid_is_refused(name):
    one, _ = one_hop(name)
    with pytest.raises(UserError, match=f"no hop can follow {name}.*EfficientNet, ResNet"):
        one.add_hop()


def test_a_vision_transformer_may_be_the_last_hop():
    one, size = one_hop("regnety_002")
    vit = make_encoder("vit_tiny_patch16_224", image_size=SIZE)
    two = one.add_hop(vit).eval()
    stack = stack_for(one, size)
    with torch.inference_mode():
        logits = two(stack)
        alone = HopNet([vit]).eval()(stack)
    assert torch.equal(logits[:, 1], alone[:, 0]), "before training it ignores the context"
