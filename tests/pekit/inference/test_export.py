"""Exported networks give the same probabilities as PyTorch; OpenVINO runs both files."""

import importlib
import json
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy import toy_store

from pekit.checkpoint import save_model
from pekit.common.errors import UserError
from pekit.common.files import hash_path
from pekit.dataset.stacks import middle_stacks, resize_slices
from pekit.hop import HopNet
from pekit.inference.export import export_model
from pekit.inference.openvino import OpenVinoPredictor
from pekit.inference.predict import predict_studies, predict_volume, predictor
from pekit.inference.pytorch import TorchPredictor
from pekit.model.encoder import Encoder
from pekit.model.landmark_net import LandmarkNet
from pekit.model.prevalence import Prevalence
from run import main

openvino = pytest.importorskip("openvino", reason="needs pip install 'pekit[export]'")
for name in ("onnx", "onnxscript"):
    pytest.importorskip(name, reason="needs pip install 'pekit[export]'")

SIZE = 64


def stacks(n: int) -> np.ndarray:
    """HU below, inside and above every window."""
    shape = (n, 3, SIZE, SIZE)
    return np.random.default_rng(n).integers(-1350, 1500, shape).astype(np.int16)


@pytest.fixture(scope="module")
def net():
    """Two hops of random weights whose probabilities differ by stack and by hop."""
    torch.manual_seed(0)
    net = HopNet([Encoder("test_efficientnet")]).add_hop()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    for encoder in net.encoders:
        nn.init.normal_(encoder.net.get_classifier().weight, std=0.1)
    nn.init.normal_(net.encoders[1].net.conv_stem.weight, std=0.3)
    net.frozen = 0
    with torch.no_grad():
        net.train()(torch.from_numpy(stacks(8)))
    net.trained_at(Prevalence(0.4, 0.1))
    return net.eval()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "hop2" / "model", net, SIZE)
    return export_model(folder / "hop2", folder / "out"), folder


@pytest.fixture(scope="module")
def by_openvino(exported, net):
    return OpenVinoPredictor(net, SIZE, exported=exported[1] / "out")


def test_the_probabilities_of_the_network_differ(net):
    probability = TorchPredictor(net)(stacks(5))
    assert np.ptp(probability, axis=0).min() > 0.01
    assert np.abs(probability[:, 0] - probability[:, 1]).min() > 0.01
    assert 0.05 < probability.min() < probability.max() < 0.95


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("file", ["model.onnx", "model.xml"])
def test_both_files_equal_pytorch_at_any_batch(exported, net, file, n):
    compiled = openvino.Core().compile_model(
        exported[1] / "out" / file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    result = compiled({"stack_hu": stacks(n).astype(np.float32)})["probability"]
    assert result.shape == (n, 2)
    np.testing.assert_allclose(result, TorchPredictor(net)(stacks(n)), atol=1e-3)


def test_the_card_describes_input_and_output(exported):
    content, folder = exported
    out = folder / "out"
    assert json.loads((out / "export.json").read_text()) == content
    names = ["export.json", "model.bin", "model.onnx", "model.xml"]
    assert sorted(f.name for f in out.iterdir()) == names
    assert content["input"]["shape"] == ["batch", 3, SIZE, SIZE]
    assert content["output"]["shape"] == ["batch", 2]
    assert content["output_names"] == ["hop1", "hop2"]
    assert content["encoders"] == ["test_efficientnet"] * 2
    assert content["prevalence"] == [{"training": 0.4, "natural": 0.1}] * 2
    assert content["windows_hu"][2] == {"centre": -600, "width": 1500}
    assert content["weights"] == hash_path(folder / "hop2" / "model" / "model.safetensors")
    assert content["files"]["model.bin"] == hash_path(out / "model.bin")
    assert set(content["max_difference"]) == {"model.onnx", "model.xml"}
    assert max(content["max_difference"].values()) < 1e-3


def test_the_file_is_of_the_oldest_format_that_has_its_operators(exported):
    """ONNX Runtime refuses a file of a newer format than it knows, whatever is in it."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(exported[1] / "out" / "model.onnx")
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model)


def test_the_weights_are_kept_in_full(exported, net):
    """By default OpenVINO halves the precision of the weights."""
    parameters = sum(p.numel() for p in net.parameters())
    assert (exported[1] / "out" / "model.bin").stat().st_size > 3.5 * parameters


def test_prediction_by_openvino_equals_pytorch(net, by_openvino, tmp_path):
    store, split = toy_store(tmp_path)
    studies = split["StudyInstanceUID"].tolist()[:2]
    expected = predict_studies(net, store, studies, SIZE)
    actual = predict_studies(by_openvino, store, studies, SIZE, batch_size=4)
    np.testing.assert_allclose(actual[["hop1", "hop2"]], expected[["hop1", "hop2"]], atol=1e-3)
    hu = store.read_volume(studies[1])
    assert predict_volume(by_openvino, hu, SIZE, stride=3).shape == (len(hu), 2)


def test_prediction_converts_without_an_export(net, monkeypatch):
    """And OpenVINO's maker hears nothing of it."""
    first, started = HopNet(list(net.encoders[:1])), []
    monkeypatch.setattr(multiprocessing, "Process", lambda **given: started.append(given))
    result = OpenVinoPredictor(first, SIZE)(stacks(3))
    np.testing.assert_allclose(result, TorchPredictor(first)(stacks(3)), atol=1e-3)
    assert started == []


def test_an_export_of_another_network_is_refused(exported, net):
    first = HopNet(list(net.encoders[:1]))
    with pytest.raises(UserError, match="export of other weights or image size"):
        OpenVinoPredictor(first, SIZE, exported=exported[1] / "out")
    with pytest.raises(UserError, match="export of other weights or image size"):
        OpenVinoPredictor(net, 96, exported=exported[1] / "out")


def test_the_backend_is_chosen_and_named(net, monkeypatch):
    given = {"float32": "by OpenVINO", "bfloat16": "by OpenVINO, fast"}
    monkeypatch.setattr("pekit.inference.predict.OpenVinoPredictor", lambda *args: given[args[2]])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert predictor(net, SIZE, "torch").backend == "torch cpu"
    assert predictor(net, SIZE, "openvino") == "by OpenVINO"
    assert predictor(net, SIZE, "openvino-bf16") == "by OpenVINO, fast"
    # `auto` takes OpenVINO only if it is worth the conversion.
    assert predictor(net, 576) == predictor(net, SIZE, exported=Path("x")) == "by OpenVINO"
    assert predictor(net, SIZE).backend == "torch cpu"
    monkeypatch.setattr("pekit.inference.predict.has_openvino", lambda: False)
    assert predictor(net, 576).backend == "torch cpu"
    with pytest.raises(UserError, match="no backend 'onnx': did you mean openvino"):
        predictor(net, SIZE, "onnx")


def test_openvino_names_its_precision(by_openvino, net):
    assert by_openvino.backend == "openvino float32"
    assert by_openvino.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    with pytest.raises(UserError, match="no precision 'int4': choose one of bfloat16, float32"):
        OpenVinoPredictor(net, SIZE, "int4")


def test_missing_packages_say_how_to_get_them(exported, net, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"onnx is not installed: pip install 'pekit\[export\]'"):
        export_model(exported[1] / "hop2", tmp_path)
    with pytest.raises(UserError, match="openvino is not installed"):
        predictor(net, SIZE, "openvino")


def test_an_export_that_differs_from_pytorch_is_refused(tmp_path):
    """Weights that are not finite: NaN differs from everything."""
    net = HopNet([Encoder("test_resnet")])
    nn.init.constant_(net.encoders[0].net.get_classifier().bias, float("nan"))
    save_model(tmp_path, net, SIZE)
    with pytest.raises(UserError, match=r"model\.xml gives probabilities nan off PyTorch's"):
        export_model(tmp_path, tmp_path / "out", ("openvino",))
    assert not (tmp_path / "out" / "export.json").exists()


def test_a_landmark_model_is_refused(tmp_path):
    save_model(tmp_path, LandmarkNet(Encoder("test_efficientnet")), SIZE)
    with pytest.raises(UserError, match="landmarks model"):
        export_model(tmp_path, tmp_path / "out")


def test_the_command_writes_the_format_and_prints_the_difference(net, tmp_path, capsys):
    store, _ = toy_store(tmp_path / "toy")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("of another model")
    first = HopNet(list(net.encoders[:1]))
    save_model(tmp_path / "hop1" / "model", first, SIZE)
    given = {"--model": tmp_path / "hop1", "--out": tmp_path / "out", "--store": store.root}
    options = [str(word) for pair in given.items() for word in pair]
    assert main(["export", "--format", "openvino", *options]) == 0
    names = ["export.json", "model.bin", "model.xml"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == names
    content = json.loads((tmp_path / "out" / "export.json").read_text())
    assert sorted(content["files"]) == names[1:]
    told = capsys.readouterr().out
    said = re.search(r"model\.xml: at most (\S+) off PyTorch, on 6 stacks of", told)
    assert float(said[1]) == pytest.approx(content["max_difference"]["model.xml"], rel=0.01)
    # The same difference, computed here on the middle slices of the same studies.
    stacks_hu = middle_stacks(store, SIZE)
    study = store.studies["StudyInstanceUID"].iloc[1]
    hu = store.read_volume(study)
    expected = resize_slices(hu[len(hu) // 2 - 1 : len(hu) // 2 + 2], SIZE)
    assert (stacks_hu[1] == expected).all()
    by_openvino = OpenVinoPredictor(first, SIZE, exported=tmp_path / "out")(stacks_hu)
    difference = np.abs(by_openvino - TorchPredictor(first)(stacks_hu)).max()
    assert content["max_difference"]["model.xml"] == pytest.approx(difference, abs=1e-6)


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    assert main(["export", "--model", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"MODEL={tmp_path}: no experiment with a trained hop 2; ")


def test_an_unknown_format_is_named(exported):
    with pytest.raises(UserError, match="no format 'tflite': choose one of onnx, openvino"):
        export_model(exported[1] / "hop2", exported[1] / "other", ("tflite",))
