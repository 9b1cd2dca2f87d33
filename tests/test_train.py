import copy

import pytest
import torch
from toy import toy_store

from pekit.checkpoint import load_hops
from pekit.config import TrainSettings
from pekit.errors import UserError
from pekit.hop import HopNet
from pekit.model import Encoder, LandmarkNet
from pekit.predict import predict_studies
from pekit.store import SLICE_LABEL
from pekit.recipe import landmark_loss
from pekit.train import fit

SETTINGS = TrainSettings(
    image_size=32,
    batch_size=16,
    epochs=3,
    samples_per_epoch=64,
    positive_fraction=0.4,
    optimizer="adamw",
    lr=4e-3,
    warmup_steps=4,
    workers=0,
    device="cpu",
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    return HopNet([Encoder("tf_efficientnet_lite0", init="package")])


@pytest.fixture(scope="module")
def trained(toy, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    net = copy.deepcopy(start)
    rows = []
    history = fit(net, *toy, SETTINGS, folder, lambda row, epoch: rows.append(row))
    return net, history, rows, folder


class Killed(Exception):
    """Stands for a kill in the second epoch."""


def train_until_killed(start, toy, folder):
    def kill(row, epoch):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(copy.deepcopy(start), *toy, SETTINGS, folder, kill)


def same(one, two):
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_training_lowers_the_loss_and_saves_the_model(trained, toy):
    net, history, rows, folder = trained
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]
    assert history["lr"].iloc[-1] == 0
    assert history.to_dict("records") == rows
    loaded, card = load_hops(folder / "model")
    assert same(loaded, net)
    assert card.image_size == 32
    assert not list(folder.glob("*.ckpt"))


def test_a_killed_run_ends_with_the_same_weights(trained, toy, start, tmp_path):
    train_until_killed(start, toy, tmp_path)
    assert len(list(tmp_path.glob("resume-*.ckpt"))) == 1
    net, rows = copy.deepcopy(start), []
    history = fit(net, *toy, SETTINGS, tmp_path, lambda row, epoch: rows.append(row))
    assert same(net, trained[0])
    assert history["epoch"].tolist() == [1, 2, 3] == [r["epoch"] for r in rows]
    assert history["train_loss"].tolist() == trained[1]["train_loss"].tolist()


def test_other_settings_do_not_resume(toy, start, tmp_path):
    train_until_killed(start, toy, tmp_path)
    other = SETTINGS.model_copy(update={"lr": 5e-4, "epochs": 1})
    history = fit(copy.deepcopy(start), *toy, other, tmp_path, lambda row, epoch: None)
    assert history["epoch"].tolist() == [1]


def test_workers_change_nothing(trained, toy, start, tmp_path):
    net = copy.deepcopy(start)
    fit(net, *toy, SETTINGS.model_copy(update={"workers": 1}), tmp_path, lambda row, epoch: None)
    assert same(net, trained[0])


def test_second_hop_trains_on_a_frozen_first(trained, toy, tmp_path):
    one = trained[0]
    two = one.add_hop()
    settings = SETTINGS.model_copy(update={"epochs": 1})
    fit(two, *toy, settings, tmp_path, lambda row, epoch: None)
    assert same(two.encoders[0], one.encoders[0])
    changed = two.encoders[1].net.conv_stem.weight[:, :9] - one.encoders[0].net.conv_stem.weight
    assert changed.abs().max() > 0
    predictions = predict_studies(two, toy[0], toy[1]["StudyInstanceUID"], 32)
    assert {"hop1", "hop2", SLICE_LABEL} <= set(predictions)


def test_landmarks_are_learnt(toy, tmp_path):
    torch.manual_seed(0)
    net = LandmarkNet(Encoder("tf_efficientnet_lite0", init="package"))
    settings = SETTINGS.model_copy(update={"z_scale": 10.0, "lr": 2e-3})
    history = fit(net, *toy, settings, tmp_path, lambda row, epoch: None)
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_absent_landmarks_do_not_count():
    target = torch.tensor([[[0.5, 0.5, 0.0], [float("nan")] * 3]])
    predicted = torch.tensor([[[0.5, 0.7, 0.1], [9.0, 9.0, 9.0]]], requires_grad=True)
    loss = landmark_loss(predicted, target)
    assert loss.item() == pytest.approx((0.2**2 + 0.1**2) / 3)
    loss.backward()
    assert predicted.grad[0, 1].abs().max() == 0


def test_empty_parts_and_too_large_batches_are_named(toy, start, tmp_path):
    store, split = toy
    only_test = split.assign(part="test")
    with pytest.raises(UserError, match="no study in its train part"):
        fit(start, store, only_test, SETTINGS, tmp_path, lambda row, epoch: None)
    large = SETTINGS.model_copy(update={"batch_size": 100})
    with pytest.raises(UserError, match="less than batch_size = 100"):
        fit(start, store, split, large, tmp_path, lambda row, epoch: None)


def test_no_positive_slice_is_named(toy, start, tmp_path):
    store, split = toy
    negative = split[split["StudyInstanceUID"].str[-1].isin(list("024"))]
    with pytest.raises(UserError, match="0 positive"):
        fit(
            start,
            store,
            negative.assign(part=["train", "train", "validation"]),
            SETTINGS,
            tmp_path,
            lambda row, epoch: None,
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_no_gpu_where_one_is_asked(toy, start, tmp_path):
    with pytest.raises(UserError, match="device = gpu"):
        fit(start, *toy, SETTINGS.model_copy(update={"device": "gpu"}), tmp_path, print)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(toy, start, tmp_path):
    net = copy.deepcopy(start)
    with torch.no_grad():
        net.encoders[0].net.conv_stem.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"epoch 1, batch 1; no weight.* z \d+"):
        fit(net, *toy, SETTINGS, tmp_path, lambda row, epoch: None)
