import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pekit.checkpoint import build_encoder, load_hops, load_model, save_model
from pekit.common.errors import UserError
from pekit.hop import HopNet
from pekit.inference.predict import predictor
from pekit.model.encoder import Encoder
from pekit.model.encoder3d import Encoder3D
from pekit.model.landmark_net import LandmarkNet
from pekit.model.prevalence import Prevalence

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


def test_shared_hops_come_back_the_same(tmp_path):
    net = HopNet([Encoder(LITE0)]).add_hop(shared=True).add_hop(shared=True).eval()
    torch.nn.init.normal_(net.encoders[0].net.conv_stem.weight, std=0.1)
    save_model(tmp_path, net, image_size=64)
    loaded, card = load_hops(tmp_path)
    assert (card.encoders, card.passes, loaded.hops) == ([LITE0], 3, 3)
    with torch.inference_mode():
        assert torch.equal(loaded(STACK), net(STACK))
    assert not [k for k in load_file(tmp_path / "model.safetensors") if "encoders.1" in k]
    with pytest.raises(UserError, match="shared weights"):
        build_encoder(LITE0, str(tmp_path))


def test_hops_of_different_encoders_come_back_the_same(tmp_path):
    vit = Encoder("vit_tiny_patch16_224", image_size=64)
    net = HopNet([Encoder("regnety_002")]).add_hop(Encoder(LITE0)).add_hop(vit).eval()
    save_model(tmp_path, net, image_size=64)
    loaded, card = load_hops(tmp_path)
    assert card.encoders == ["regnety_002", LITE0, "vit_tiny_patch16_224"]
    with torch.inference_mode():
        assert torch.equal(loaded(STACK), net(STACK))


def test_prevalence_of_each_hop_is_kept(tmp_path):
    net = HopNet([Encoder("test_efficientnet")])
    net.trained_at(Prevalence(0.4, 0.1))
    two = net.add_hop()
    save_model(tmp_path, two, image_size=64)
    assert json.loads((tmp_path / "model.json").read_text())["prevalence"] == [
        {"training": 0.4, "natural": 0.1},
        None,
    ]
    loaded, card = load_hops(tmp_path)
    assert loaded.prevalence == card.prevalence == [Prevalence(0.4, 0.1), None]
    loaded.trained_at(Prevalence(0.3, 0.1))
    assert [at.training for at in loaded.prevalence] == [0.4, 0.3], "hop 1 is frozen"
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "prevalence": [{"train": 0.4}, None]}))
    with pytest.raises(UserError, match=r"did not write.*train"):
        load_model(tmp_path)


def test_precision_of_the_training_is_kept(tmp_path):
    net = HopNet([Encoder("test_efficientnet")])
    net.precision = "bf16-mixed"
    save_model(tmp_path, net, image_size=64)
    loaded, card = load_hops(tmp_path)
    assert loaded.precision == card.precision == "bf16-mixed"
    content = json.loads((tmp_path / "model.json").read_text())
    del content["precision"]
    (tmp_path / "model.json").write_text(json.dumps({**content, "version": 3}))
    assert load_hops(tmp_path)[0].precision is None, "not known"


@pytest.mark.parametrize("version", [1, 2])
def test_older_models_are_read_but_have_no_prevalence(two_hops, tmp_path, version):
    net, folder = two_hops
    card = json.loads((folder / "model.json").read_text())
    later = ("precision", "prevalence", *(("depth", "passes") if version == 1 else ()))
    old = {k: v for k, v in card.items() if k not in later}
    (tmp_path / "model.json").write_text(json.dumps({**old, "version": version}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(STACK), net(STACK))
    assert loaded.depth == 3
    assert predictor(loaded, 64, "torch", prevalence="training").hops == 2
    with pytest.raises(UserError, match="hop 1 does not say at which prevalence"):
        predictor(loaded, 64, "torch", prevalence="natural")


def test_weights_of_another_shape_name_the_layer(two_hops, tmp_path):
    _, folder = two_hops
    (tmp_path / "model.json").write_text((folder / "model.json").read_text())
    state = load_file(folder / "model.safetensors")
    key = "aggregators.0.steps.0.0.0.weight"
    save_file({**state, key: torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"do not fit(.|\n)*{key}"):
        load_model(tmp_path)


def test_an_encoder_of_another_size_or_depth_does_not_start_a_hop(tmp_path):
    save_model(tmp_path / "a", HopNet([Encoder("vit_tiny_patch16_224", image_size=64)]), 64)
    with pytest.raises(UserError, match="64 pixels, not 96"):
        build_encoder("vit_tiny_patch16_224", str(tmp_path / "a"), image_size=96)
    save_model(tmp_path / "b", HopNet([Encoder3D("x3d_s", depth=5)]), 64)
    assert build_encoder("x3d_s", str(tmp_path / "b")).depth == 5
    with pytest.raises(UserError, match="reads 5 slices, not 13"):
        build_encoder("x3d_s", str(tmp_path / "b"), depth=13)


def test_other_versions_and_damage_are_named(two_hops, tmp_path):
    _, folder = two_hops
    card = json.loads((folder / "model.json").read_text())
    with pytest.raises(UserError, match=r"model\.json does not exist"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**card, "version": 7}))
    with pytest.raises(UserError, match="version 7"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**card, "colour": "red"}))
    with pytest.raises(UserError, match=r"did not write.*colour"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="do not fit"):
        load_model(tmp_path)
