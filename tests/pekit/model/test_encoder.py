import pytest
import timm
import torch

from pekit.common.errors import UserError
from pekit.model.encoder import Encoder, packaged_weights
from pekit.model.landmark_net import LandmarkNet

LITE0 = "tf_efficientnet_lite0"


def test_encoder_gives_logits_and_a_pyramid():
    encoder = Encoder(LITE0).eval()
    logits, features = encoder(torch.rand(2, 9, 64, 64))
    assert logits.shape == (2, 2)
    assert tuple(f.shape[1] for f in features) == encoder.widths == (16, 24, 40, 112, 1280)
    assert [f.shape[-1] for f in features] == [64 // s for s in encoder.strides]


def test_the_papers_encoder():
    with torch.device("meta"):
        encoder = Encoder("tf_efficientnetv2_l")
    assert encoder.widths == (32, 64, 96, 224, 1280)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(117e6, rel=0.01)


def test_packaged_weights_are_imagenet_weights():
    """Three equal slices of a grey image give what the three-channel network gives."""
    original = timm.create_model(LITE0)
    original.load_state_dict(packaged_weights(LITE0))
    encoder = Encoder(LITE0, init="package")
    image = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        theirs = original.eval().forward_features(image.expand(-1, 3, -1, -1))
        ours = encoder.eval()(image.expand(-1, 9, -1, -1))[1][2]
        _, maps = original.forward_intermediates(image.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, maps[2], rtol=1e-4, atol=1e-4)
    assert theirs.std() > 0.1


def test_weights_from_a_file(tmp_path):
    torch.save(packaged_weights(LITE0), tmp_path / "lite0.pth")
    from_file = Encoder(LITE0, init=str(tmp_path / "lite0.pth")).net.state_dict()
    packaged = Encoder(LITE0, init="package").net.state_dict()
    same = [k for k in packaged if not k.startswith("classifier")]
    assert all(torch.equal(from_file[k], packaged[k]) for k in same)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=f"do not fit {LITE0}"):
        Encoder(LITE0, init=str(tmp_path / "resnet.pth"))


def test_weights_of_another_shape_name_the_layer(tmp_path):
    state = packaged_weights(LITE0)
    state["blocks.0.0.conv_dw.weight"] = torch.zeros(8, 1, 3, 3)
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(UserError, match=r"do not fit(.|\n)*blocks\.0\.0\.conv_dw\.weight"):
        Encoder(LITE0, init=str(tmp_path / "lite0.pth"))


@pytest.mark.parametrize("name", [LITE0, "vit_tiny_patch16_224"])
def test_new_channels_have_zero_weights(name):
    """The copy ignores the new channels; cutting them gives the original again."""
    encoder = Encoder(name, image_size=64).eval()
    wide = encoder.with_in_chans(18).eval()
    images = torch.rand(2, 18, 64, 64)
    with torch.inference_mode():
        expected = encoder(images[:, :9])[0]
        torch.testing.assert_close(wide(images)[0], expected)
        assert torch.equal(wide.with_in_chans(9).eval()(images[:, :9])[0], expected)


def test_networks_for_one_image_size_name_it():
    vit = Encoder("vit_tiny_patch16_224").eval()
    assert (vit.image_size, Encoder(LITE0, image_size=64).image_size) == (224, None)
    with pytest.raises(UserError, match="built for images of 224 pixels, not 64 x 64"):
        vit(torch.rand(1, 9, 64, 64))
    with pytest.raises(UserError, match="needs a multiple of 16"):
        Encoder("vit_tiny_patch16_224", image_size=70)
    with pytest.raises(UserError, match="needs a multiple of 32"):
        Encoder("coatnet_nano_rw_224", image_size=80)


def test_feature_maps_of_channels_last_networks():
    swin = Encoder("swin_tiny_patch4_window7_224", image_size=64).eval()
    with torch.inference_mode():
        _, features = swin(torch.rand(1, 9, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [
        (w, 64 // s, 64 // s) for w, s in zip(swin.widths, swin.strides, strict=True)
    ]


def test_unknown_names_suggest_similar_ones():
    with pytest.raises(UserError, match="tf_efficientnetv2_l"):
        Encoder("tf_efficientnet_v2_l")
    with pytest.raises(UserError, match="neither random, timm, package nor a file"):
        Encoder(LITE0, init="imagenet21k")
    with pytest.raises(UserError, match="packaged weights exist for"):
        Encoder("resnet18", init="package")


def test_landmark_net_gives_xyz_of_twenty_landmarks():
    net = LandmarkNet(Encoder(LITE0)).eval()
    assert net(torch.zeros(2, 3, 64, 64, dtype=torch.int16)).shape == (2, 20, 3)
    assert len(net.heads) == 3
