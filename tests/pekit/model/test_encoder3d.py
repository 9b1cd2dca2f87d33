import pytest
import torch

from pekit.common.errors import UserError
from pekit.dataset.windows import Windows
from pekit.hop import HopNet
from pekit.model.encoder import Encoder, make_encoder
from pekit.model.encoder3d import Encoder3D
from pekit.model.landmark_net import LandmarkNet
from pekit.model.x3d import X3D


@pytest.mark.parametrize(
    ("name", "millions"),
    [("r3d_18", 33.2), ("mc3_18", 11.5), ("r2plus1d_18", 31.3), ("x3d_m", 2.98), ("x3d_l", 5.34)],
)
def test_sizes_of_the_networks(name, millions):
    """Published sizes minus the 400-class classifier (513 k; X3D 820 k) plus the two-class one."""
    with torch.device("meta"):
        encoder = Encoder3D(name)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert encoder.depth % 2 == 1


@pytest.mark.parametrize("name", ["r3d_18", "x3d_s"])
def test_channels_are_windows_and_depth_is_slices(name):
    """The clip that the network sees: `(B, windows, slices, H, W)`."""
    encoder = Encoder3D(name, depth=5).eval()
    stem = encoder.net.stem if name == "r3d_18" else encoder.net.blocks[0]
    seen = []
    stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = Windows()(torch.randint(-1000, 600, (1, 5, 32, 32)))
    with torch.inference_mode():
        encoder(images)
    assert seen[0].shape == (1, 3, 5, 32, 32)
    # Slice 4 in the second window is channel 3 * 4 + 1 of the images.
    assert torch.equal(seen[0][0, 1, 4], images[0, 13])


def test_every_slice_of_a_deep_stack_counts():
    net = HopNet([Encoder3D("r3d_18", depth=9)])
    stack = torch.zeros(1, 9, 32, 32, requires_grad=True)
    net.eval()(stack)[0, 0, 1].backward()
    assert (stack.grad.abs().sum((0, 2, 3)) > 0).all()


def test_any_image_size():
    encoder = Encoder3D("x3d_s", depth=3).eval()
    with torch.inference_mode():
        logits, (last,) = encoder(torch.rand(1, 9, 70, 45))
    assert logits.shape == (1, 2)
    assert last.shape == (1, 432, 3, 2)


def test_landmarks_from_a_deep_stack():
    net = LandmarkNet(Encoder3D("r3d_18", depth=5)).eval()
    assert net.depth == 5
    net.to(memory_format=net.memory_format)
    assert net(torch.zeros(1, 5, 32, 32, dtype=torch.int16)).shape == (1, 20, 3)


def test_weights_from_a_file(tmp_path):
    trained = Encoder3D("x3d_s", depth=3)
    state = dict(trained.net.state_dict())
    state["blocks.5.proj.weight"] = torch.zeros(400, 2048)  # for other classes: ignored
    torch.save({"model_state": state}, tmp_path / "x3d.pyth")
    start = Encoder3D("x3d_m", str(tmp_path / "x3d.pyth"), depth=3)
    key = "blocks.3.res_blocks.0.branch2.conv_b.weight"
    assert torch.equal(start.net.state_dict()[key], state[key])
    assert start.net.blocks[5].proj.weight.shape == (2, 2048)
    with pytest.raises(UserError, match=r"do not fit r3d_18(.|\n)*stem\.0"):
        Encoder3D("r3d_18", str(tmp_path / "x3d.pyth"))


@pytest.mark.parametrize(("factor", "parameters"), [(2.2, 3_794_274), (5.0, 6_153_384)])
def test_x3d_has_the_size_of_the_reference(factor, parameters):
    """PyTorchVideo's X3D-S or M, and L, with 400 classes."""
    with torch.device("meta"):
        assert sum(p.numel() for p in X3D(factor, classes=400).parameters()) == parameters


def test_bad_input_is_named():
    with pytest.raises(UserError, match="did you mean r3d_18"):
        make_encoder("r3d18")
    with pytest.raises(UserError, match="odd depth"):
        make_encoder("r3d_18", depth=16)
    with pytest.raises(UserError, match="deeper ones are for r3d_18"):
        make_encoder("resnet18", depth=15)
    with pytest.raises(UserError, match="neither random, torchvision nor a file"):
        make_encoder("r3d_18", init="timm")
    with pytest.raises(UserError, match="torchvision has no weights of x3d_s"):
        make_encoder("x3d_s", init="torchvision")
    with pytest.raises(UserError, match="r3d_18 takes no context"):
        make_encoder("r3d_18", context=9)
    with pytest.raises(UserError, match="hop 2, r3d_18, reads 15 slices and hop 1 3"):
        HopNet([Encoder("regnety_002"), Encoder3D("r3d_18")])
