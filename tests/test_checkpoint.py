import json

import pytest
import torch
from safetensors.torch import load_file

from pekit.checkpoint import build_encoder, load_hops, load_model, save_model
from pekit.errors import UserError
from pekit.hop import HopNet
from pekit.model import Encoder, LandmarkNet

LITE0 = "tf_efficientnet_lite0"
STACK = torch.zeros(1, 3, 64, 64, dtype=torch.int16)


@pytest.fixture(scope="module")
def two_hops(tmp_path_factory):
    net = HopNet([Encoder(LITE0, init="package")]).add_hop().eval()
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, net, image_size=64)
    return net, folder


def test_a_model_comes_back_the_same(two_hops):
    net, folder = two_hops
    loaded, card = load_model(folder)
    assert (card.kind, card.encoders, card.frozen, card.image_size) == ("hops", [LITE0] * 2, 1, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(STACK), net(STACK), rtol=0, atol=0)
    assert not loaded.training


def test_a_model_is_json_and_safetensors_only(two_hops):
    _, folder = two_hops
    assert sorted(f.name for f in folder.iterdir()) == ["model.json", "model.safetensors"]
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(
        weights["encoders.0.net.conv_stem.weight"], two_hops[0].encoders[0].net.conv_stem.weight
    )


def test_landmark_encoder_starts_a_hop(tmp_path):
    net = LandmarkNet(Encoder(LITE0)).eval()
    save_model(tmp_path, net, image_size=64)
    encoder = build_encoder(LITE0, str(tmp_path))
    theirs, ours = net.encoder.state_dict(), encoder.state_dict()
    assert all(torch.equal(theirs[k], ours[k]) for k in theirs)
    with pytest.raises(UserError, match="landmarks model"):
        load_hops(tmp_path)
    with pytest.raises(UserError, match="not resnet18"):
        build_encoder("resnet18", str(tmp_path))


def test_other_versions_and_damage_are_named(two_hops, tmp_path):
    _, folder = two_hops
    card = json.loads((folder / "model.json").read_text())
    with pytest.raises(UserError, match=r"model\.json does not exist"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**card, "version": 7}))
    with pytest.raises(UserError, match="version 7"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="do not fit"):
        load_model(tmp_path)
