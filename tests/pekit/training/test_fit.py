import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from toy import toy_store

from pekit.checkpoint import load_hops
from pekit.common.errors import UserError
from pekit.common.files import write_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.inference.predict import predict_studies
from pekit.model.encoder import Encoder
from pekit.model.landmark_net import LandmarkNet
from pekit.training.fit import fit
from pekit.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[3]
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
def small():
    """A network for tests that do not depend on what it learns."""
    torch.manual_seed(0)
    return HopNet([Encoder("test_efficientnet")])


@pytest.fixture(scope="module")
def trained(toy, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    net = copy.deepcopy(start)
    rows = []
    history = fit(net, *toy, SETTINGS, folder, lambda row, epoch: rows.append(row))
    assert same(net, start), "fit leaves the network that it starts from"
    return load_hops(folder)[0], history, rows, folder


class Killed(Exception):
    """Stands for a kill in the second epoch."""


def kill_at(last):
    def kill(row, epoch):
        if epoch == last:
            raise Killed

    return kill


def train_until_killed(start, toy, folder):
    with pytest.raises(Killed):
        fit(start, *toy, SETTINGS, folder, kill_at(2))


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
    (at,) = card.prevalence
    assert (at.training, at.natural) == (0.4, history["natural_prevalence"].iloc[-1])
    assert not list(folder.glob("*.ckpt"))


def test_a_killed_run_ends_with_the_same_weights(trained, toy, start, tmp_path):
    train_until_killed(start, toy, tmp_path)
    assert len(list(tmp_path.glob("resume-*.ckpt"))) == 1
    rows = []
    history = fit(start, *toy, SETTINGS, tmp_path, lambda row, epoch: rows.append(row))
    assert same(load_hops(tmp_path)[0], trained[0])
    assert history["epoch"].tolist() == [1, 2, 3] == [r["epoch"] for r in rows]
    assert history["train_loss"].tolist() == trained[1]["train_loss"].tolist()


def test_other_settings_do_not_resume(toy, small, tmp_path):
    train_until_killed(small, toy, tmp_path)
    other = SETTINGS.model_copy(update={"lr": 5e-4, "epochs": 1})
    history = fit(copy.deepcopy(small), *toy, other, tmp_path, lambda row, epoch: None)
    assert history["epoch"].tolist() == [1]


def test_the_same_call_again_gives_the_result_and_trains_nothing(trained, toy, start, capsys):
    folder = trained[3]
    written, rows, seen = (folder / "model" / "model.safetensors").stat().st_mtime_ns, [], []
    net = copy.deepcopy(start)
    net.register_forward_pre_hook(lambda module, inputs: seen.append(module))
    history = fit(net, *toy, SETTINGS, folder, lambda row, epoch: rows.append(row))
    assert not seen
    assert history.equals(trained[1])
    assert rows == history.to_dict("records")
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == written
    told = capsys.readouterr().out
    assert "this training has ended already" in told
    assert f"to repeat it, delete {folder / 'training.json'}" in told


@pytest.mark.parametrize("changed", ["label", "weights", "result"])
def test_a_training_with_another_input_is_not_done(toy, small, tmp_path, changed):
    """A label of the same studies, a weight by its last bit; or the result was replaced."""
    store, split = toy
    shutil.copytree(store.root, tmp_path / "store")
    store, net = Store(tmp_path / "store"), copy.deepcopy(small)
    settings = SETTINGS.model_copy(update={"epochs": 1, "samples_per_epoch": 16})
    fit(net, store, split, settings, tmp_path / "run", lambda row, epoch: None)
    if changed == "label":
        slices = store.slices
        slices.loc[0, SLICE_LABEL] = 1 - slices.loc[0, SLICE_LABEL]
        write_table(store.root / "slices.parquet", slices)
    elif changed == "weights":
        with torch.no_grad():
            weight = net.encoders[0].net.conv_stem.weight.view(-1)
            weight[0] = torch.nextafter(weight[0], torch.tensor(1.0))
    else:
        shutil.copy(tmp_path / "store" / "store.json", tmp_path / "run/model/model.safetensors")
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(module))
    fit(net, store, split, settings, tmp_path / "run", lambda row, epoch: None)
    assert seen


def test_an_interrupted_training_says_how_it_goes_on(toy, small, tmp_path, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small, *toy, SETTINGS, tmp_path, interrupt)
    told = "interrupted: the same call goes on from its last checkpoint"
    assert told in capsys.readouterr().out
    net = copy.deepcopy(small)
    net.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(net, *toy, SETTINGS, tmp_path / "other", print)
    assert "goes on from its start, since none was saved yet" in capsys.readouterr().out


def test_an_error_leaves_no_worker(toy, small, tmp_path):
    """A notebook keeps the traceback, as this test does, and with it all that it refers to."""

    def fail(row, epoch):
        raise Killed

    mine = psutil.Process()
    with pytest.raises(Killed) as kept:
        fit(small, *toy, SETTINGS.model_copy(update={"workers": 1}), tmp_path, fail)
    workers = [p for p in mine.children(recursive=True) if p.ppid() != mine.pid]
    assert workers == []
    assert kept.tb is not None


def test_a_training_resumes_on_another_number_of_threads(toy, small, tmp_path, capsys):
    """Sums of floats, by which weights were once compared, depend on the number of threads."""
    net = copy.deepcopy(small)
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(2_000_000, generator=generator) for _ in range(2))
    net.register_buffer("large", next(parts) * torch.exp(8 * next(parts)))
    before, sums = torch.get_num_threads(), set()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            sums.add(net.large.double().sum().item())
            with pytest.raises(Killed):
                fit(net, *toy, SETTINGS, tmp_path, kill_at(threads))
    finally:
        torch.set_num_threads(before)
    assert len(sums) == 2
    assert "resuming: 1 epochs are done" in capsys.readouterr().out


def test_the_checkpoint_of_another_training_is_kept_until_this_one_has_ended(
    toy, small, tmp_path, capsys
):
    train_until_killed(small, toy, tmp_path)
    (old,) = tmp_path.glob("resume-*.ckpt")
    other = SETTINGS.model_copy(update={"lr": 5e-4, "epochs": 2})
    kept = []
    fit(small, *toy, other, tmp_path, lambda row, epoch: kept.append(old.exists()))
    assert kept == [True, True]
    assert not old.exists()
    told = capsys.readouterr().out
    assert f"{old.name} is of a training with other settings: it cannot be resumed here" in told
    assert f"{old.name}, of a training with other settings, is removed" in told


def test_second_hop_trains_on_a_frozen_first(trained, toy, tmp_path):
    one = trained[0]
    two = one.add_hop()
    settings = SETTINGS.model_copy(update={"epochs": 1})
    settings = settings.model_copy(update={"positive_fraction": 0.3})
    fit(two, *toy, settings, tmp_path, lambda row, epoch: None)
    two = load_hops(tmp_path)[0]
    assert same(two.encoders[0], one.encoders[0])
    assert [at.training for at in load_hops(tmp_path)[1].prevalence] == [0.4, 0.3]
    changed = two.encoders[1].net.conv_stem.weight[:, :9] - one.encoders[0].net.conv_stem.weight
    assert changed.abs().max() > 0
    predictions = predict_studies(two, toy[0], toy[1]["StudyInstanceUID"], 32)
    assert {"hop1", "hop2", SLICE_LABEL} <= set(predictions)


def test_landmarks_are_learnt(toy, tmp_path):
    torch.manual_seed(0)
    net = LandmarkNet(Encoder("tf_efficientnet_lite0", init="package"))
    settings = SETTINGS.model_copy(update={"z_scale": 10.0, "lr": 2e-3, "epochs": 1})
    history = fit(net, *toy, settings, tmp_path, lambda row, epoch: None)
    # The loss after the epoch against its mean; one epoch only, because these heads are large.
    assert history["validation_loss"].iloc[0] < 0.6 * history["train_loss"].iloc[0]
    assert "prevalence" not in history


def test_no_gpu_where_one_is_asked(toy, small, tmp_path):
    with pytest.raises(UserError, match="device = gpu and devices = 1, but torch finds 0 GPUs"):
        fit(small, *toy, SETTINGS.model_copy(update={"device": "gpu"}), tmp_path, print)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(toy, small, tmp_path):
    net, before, seen = copy.deepcopy(small), {}, []

    def break_third(module, inputs):
        if module.training:
            break_third.calls += 1
            if break_third.calls == 3:
                before.update(copy.deepcopy(module.state_dict()))
                seen.append(module)
                inputs[0][4] = 30_000
                return inputs[0].float() * float("inf"), inputs[1]
        return None

    break_third.calls = 0
    hook = net.register_forward_pre_hook(break_third)
    with pytest.raises(
        UserError, match=r"loss is nan in epoch 1, batch 3; it changed no weight"
    ) as caught:
        fit(net, *toy, SETTINGS, tmp_path, lambda row, epoch: None)
    hook.remove()
    named = re.findall(r"([0-9a-f]{12}) z (\d+)", str(caught.value))
    assert len(named) == SETTINGS.batch_size
    assert {study for study, _ in named} <= set(toy[1]["StudyInstanceUID"][:4])
    free = [name for name, _ in net.named_parameters()]
    after = seen[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in free)


def test_the_row_of_an_epoch_has_speed_memory_and_time_left(trained):
    history = trained[1]
    assert history.columns.tolist() == [
        "epoch", "train_loss", "validation_loss", "lr", "stacks_per_s", "peak_gib", "left_s",
        "prevalence", "natural_prevalence",
    ]  # fmt: skip
    assert (history["stacks_per_s"] > 0).all()
    assert history["peak_gib"].between(0.05, 100).all()
    assert history["left_s"].is_monotonic_decreasing
    assert history["left_s"].iloc[-1] == 0
    assert (history["prevalence"] == 0.4).all()
    assert (history["natural_prevalence"] == 6 / 40).all()


def worse_in_validation(net, from_call):
    """From validation batch `from_call` on, the network is overconfident that there is no PE."""
    calls = iter(range(10_000))

    def hook(module, inputs, output):
        if module.training:
            return output
        sure = 9.0 if next(calls) >= from_call else 0.0
        return output * 0 + torch.tensor([sure, -sure])

    net.register_forward_hook(hook)


def test_the_best_epoch_counts_where_asked(toy, small, tmp_path):
    after, modules = {}, []

    def note(row, epoch):
        after[keep, epoch] = copy.deepcopy(modules[-1].state_dict())

    for keep in ("last", "best"):
        settings = SETTINGS.model_copy(update={"keep": keep, "epochs": 2})
        net = copy.deepcopy(small)
        worse_in_validation(net, from_call=2)  # two batches per epoch
        net.register_forward_pre_hook(lambda module, inputs: modules.append(module))
        history = fit(net, *toy, settings, tmp_path / keep, note)
        # ln 2; then 18 for each of the 3 positives among 20 slices.
        assert history["validation_loss"].tolist() == pytest.approx([0.693147, 2.7], rel=1e-3)
        loaded = load_hops(tmp_path / keep)[0].state_dict()
        chosen = {"last": 2, "best": 1}[keep]
        assert all(torch.equal(loaded[name], after[keep, chosen][name]) for name in loaded)
        assert not list((tmp_path / keep).glob("resume-*")), "not twice on the disk"


def test_the_best_epoch_of_another_training_does_not_count(toy, small, tmp_path):
    """Two trainings with keep = best take turns in a folder: each has its own best epoch."""
    settings = SETTINGS.model_copy(update={"keep": "best", "epochs": 2})
    other = settings.model_copy(update={"lr": 1e-3})
    alone = copy.deepcopy(small)
    worse_in_validation(alone, from_call=2)
    fit(alone, *toy, settings, tmp_path / "alone", lambda row, epoch: None)

    def kill(row, epoch):
        raise Killed

    for each in (settings, other):
        with pytest.raises(Killed):
            fit(small, *toy, each, tmp_path / "both", kill)
    resumed = copy.deepcopy(small)
    worse_in_validation(resumed, from_call=0)
    fit(resumed, *toy, settings, tmp_path / "both", lambda row, epoch: None)
    assert same(load_hops(tmp_path / "both")[0], load_hops(tmp_path / "alone")[0])


def test_accumulated_batches_are_one_large_batch(toy, tmp_path):
    weights = {}
    for batch, accumulate in ((12, 1), (4, 3), (3, 4)):
        torch.manual_seed(0)
        net = HopNet([Encoder("test_vit")])
        settings = SETTINGS.model_copy(
            update={
                "image_size": 160,
                "batch_size": batch,
                "accumulate": accumulate,
                "samples_per_epoch": 24,
                "epochs": 1,
                "optimizer": "sgd",
                "lr": 0.05,
            }
        )
        fit(net, *toy, settings, tmp_path / str(batch), lambda row, epoch: None)
        trained = load_hops(tmp_path / str(batch))[0]
        weights[batch] = torch.cat([p.flatten() for p in trained.parameters()])
    torch.manual_seed(0)
    start = torch.cat([p.flatten() for p in HopNet([Encoder("test_vit")]).parameters()])
    moved = (weights[12] - start).abs().max()
    assert moved > 1e-3
    assert (weights[4] - weights[12]).abs().max() < 1e-3 * moved
    assert (weights[3] - weights[12]).abs().max() < 1e-3 * moved


def test_bf16(toy, small, tmp_path):
    losses = {}
    for precision in ("bf16-mixed", "32-true"):
        net = copy.deepcopy(small)
        settings = SETTINGS.model_copy(update={"precision": precision, "epochs": 1})
        history = fit(net, *toy, settings, tmp_path, lambda row, epoch: None)
        losses[precision] = history["train_loss"].iloc[0]
        trained = load_hops(tmp_path)[0]
        assert {p.dtype for p in trained.parameters()} == {torch.float32}
        assert trained.precision == precision
    assert 1e-7 < abs(losses["bf16-mixed"] - losses["32-true"]) < 0.05, "rounded, but little"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_says_what_to_set(toy, small, tmp_path, error):
    net = copy.deepcopy(small)

    def fail(module, inputs):
        raise error

    net.register_forward_pre_hook(fail)
    with pytest.raises(UserError, match="batch_size = 8 with accumulate = 2 makes steps of the"):
        fit(net, *toy, SETTINGS, tmp_path, lambda row, epoch: None)


def test_other_errors_stay_as_they_are(toy, small, tmp_path):
    net = copy.deepcopy(small)

    def fail(module, inputs):
        raise RuntimeError("shapes differ")

    net.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(net, *toy, SETTINGS, tmp_path, lambda row, epoch: None)


def test_a_session_of_slurm_with_one_device(toy, small, tmp_path, monkeypatch):
    """An interactive session has the variables of its job, such as four tasks."""
    for name, value in {"NTASKS": "4", "JOB_ID": "7", "PROCID": "0", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    brief = SETTINGS.model_copy(update={"epochs": 1, "samples_per_epoch": 16})
    history = fit(copy.deepcopy(small), *toy, brief, tmp_path, lambda row, epoch: None)
    assert len(history) == 1


def test_a_worker_that_the_system_killed(toy, small, tmp_path, monkeypatch):
    def run(training, fabric):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("pekit.training.fit.Training.run", run)
    four = SETTINGS.model_copy(update={"workers": 4})
    with pytest.raises(UserError, match=r"ended a worker.*set workers = 2"):
        fit(copy.deepcopy(small), *toy, four, tmp_path, lambda row, epoch: None)


SCRIPT = """
from pathlib import Path
from toy import toy_store
from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.training.fit import fit
from pekit.training.settings import TrainSettings
small = TrainSettings(image_size=32, batch_size=16, samples_per_epoch=16, workers=1, device="cpu")
store = toy_store(Path("store"))
fit(HopNet([Encoder("test_efficientnet")]), *store, small, Path("run"), print)
"""


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    """Workers import the script again, which would start the training again."""
    (tmp_path / "train.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError: a worker that loads data could not start" in done.stderr
    assert "__main__" in done.stderr.splitlines()[-1]
