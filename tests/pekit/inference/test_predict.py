import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import BELOW, DEPTH, toy_store

from pekit.common.errors import UserError
from pekit.dataset.stacks import StackDataset, resize_slices, training_samples, volume_stacks
from pekit.hop import HopNet
from pekit.inference.predict import predict_studies, predict_volume, predictor
from pekit.inference.pytorch import TorchPredictor
from pekit.model.encoder import Encoder
from pekit.model.prevalence import Prevalence


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HopNet([Encoder("tf_efficientnet_lite0", init="package")]).add_hop().eval()


def test_stacks_are_those_of_training(toy, net):
    """Prediction resizes each slice only once and equals the network on the training dataset."""
    store, split = toy
    study = split["StudyInstanceUID"].iloc[1]
    dataset = StackDataset(store, training_samples(store, [study]), 32)
    stacks = np.stack([dataset[i]["stack_hu"] for i in range(len(dataset))])
    with torch.inference_mode():
        expected = net(torch.from_numpy(stacks)).softmax(2)[..., 1].numpy()
    actual = predict_volume(net, store.read_volume(study), 32, batch_size=4)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_slices_outside_the_box_get_zero(toy, net):
    store, split = toy
    studies = split["StudyInstanceUID"].tolist()[:3]
    table = predict_studies(net, store, studies, 32)
    assert len(table) == 3 * (DEPTH + BELOW)
    assert table["StudyInstanceUID"].unique().tolist() == studies
    outside = table["z"] < BELOW
    assert (table.loc[outside, ["hop1", "hop2"]] == 0).all(axis=None)
    assert (table.loc[~outside, ["hop1", "hop2"]] > 0).all(axis=None)


def test_stride_predicts_every_third_and_repeats(toy, net):
    store, split = toy
    hu = store.read_volume(split["StudyInstanceUID"].iloc[1])
    every = predict_volume(net, hu, 32)
    third = predict_volume(net, hu, 32, stride=3)
    np.testing.assert_allclose(third, every[[0, 0, 0, 3, 3, 3, 6, 6, 6, 9]], atol=1e-5)


def test_probabilities_at_another_prevalence(toy, net):
    """Odds times the ratio of the prior odds, for each hop; slices outside the crop box keep 0."""
    store, split = toy
    studies = split["StudyInstanceUID"].tolist()[:2]
    net.prevalence = [Prevalence(0.5, 0.1), Prevalence(0.5, 0.2)]
    try:
        at = predict_studies(predictor(net, 32, "torch", prevalence="natural"), store, studies, 32)
        plain = predict_studies(predictor(net, 32, "torch"), store, studies, 32)
    finally:
        net.prevalence = [None, None]
    for hop, ratio in (("hop1", 1 / 9), ("hop2", 1 / 4)):
        odds = plain[hop] / (1 - plain[hop]) * ratio
        np.testing.assert_allclose(at[hop], odds / (1 + odds), rtol=1e-5)
    assert (at.loc[at["z"] < BELOW, ["hop1", "hop2"]] == 0).all(axis=None)


def test_the_next_study_is_resized_while_the_network_works(toy, monkeypatch):
    resized, ahead = [], []

    def noted(hu, image_size):
        planes = resize_slices(hu, image_size)
        resized.append(len(planes))
        return planes

    class Waits:
        """Computes nothing, and returns once the next study is resized, or after 2 s."""

        backend, hops, depth, net = "waits", 1, 3, None

        def __call__(self, stack_hu, batch_size):
            wanted, end = min(len(ahead) + 2, 3), time.monotonic() + 2
            while len(resized) < wanted and time.monotonic() < end:
                time.sleep(0.01)
            ahead.append(len(resized) >= wanted)
            return np.zeros((len(stack_hu), 1))

    monkeypatch.setattr("pekit.inference.predict.resize_slices", noted)
    predict_studies(Waits(), toy[0], toy[1]["StudyInstanceUID"][:3], 32)
    assert ahead == [True] * 3


@pytest.mark.parametrize(
    ("device", "precision", "bf16"),
    [
        ("cuda", "bf16-mixed", True),
        ("cuda", "32-true", False),
        ("cuda", None, False),
        ("cpu", "bf16-mixed", False),
    ],
)
def test_a_gpu_predicts_in_the_precision_of_the_training(device, precision, bf16):
    weights = SimpleNamespace(device=torch.device(device))
    net = SimpleNamespace(hops=2, depth=3, precision=precision, parameters=lambda: iter([weights]))
    net.eval = lambda: net
    predict = TorchPredictor(net)
    assert (predict.bf16, predict.backend) == (bf16, f"torch {device}{' bf16' if bf16 else ''}")


def test_mixed_precision_computes_in_bfloat16(toy, net):
    """Autocast, as in training; weights stay float32, and bfloat16 keeps about three digits."""
    hu = toy[0].read_volume(toy[1]["StudyInstanceUID"].iloc[1])
    computed = set()
    layer = net.encoders[-1].net.conv_head
    hook = layer.register_forward_hook(lambda layer, given, out: computed.add(out.dtype))
    mixed = predict_volume(TorchPredictor(net, bf16=True), hu, 32)
    hook.remove()
    assert computed == {torch.bfloat16}
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, predict_volume(net, hu, 32), atol=0.02)
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}


def test_ends_are_repeated():
    stacks = volume_stacks(np.arange(4)[:, None, None])
    assert stacks[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


def test_unknown_study_and_bad_network_are_named(toy, net):
    with pytest.raises(UserError, match="nobody is not prepared"):
        predict_studies(net, toy[0], ["nobody"], 32)
    with pytest.raises(UserError, match="list is empty"):
        predict_studies(net, toy[0], [], 32)
    broken = HopNet([Encoder("tf_efficientnet_lite0")])
    with torch.no_grad():
        broken.encoders[0].net.classifier.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        predict_studies(broken, toy[0], toy[1]["StudyInstanceUID"][:1], 32)
    broken.prevalence = [Prevalence(0.4, 0.1)]
    with pytest.raises(UserError, match="not finite"):
        predict_studies(
            predictor(broken, 32, "torch", prevalence="natural"),
            toy[0],
            toy[1]["StudyInstanceUID"][:1],
            32,
        )
