import pytest
import timm
import torch

from pekit.errors import UserError
from pekit.model import Encoder, LandmarkNet, packaged_weights

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


def test_unknown_names_offer_near_ones():
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
