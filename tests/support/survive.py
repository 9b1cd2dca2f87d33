"""Trainings of test_resume.py that are killed, in one process and in two.

    python tests/support/survive.py <folder>

One script, because the start of torch and Lightning takes longer than the trainings. It forks,
which a process that has trained before (pytest's) could not.
"""

import multiprocessing as mp
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import torch
from torch.multiprocessing import ProcessExitedException
from toy import toy_store

from pekit.common.errors import UserError
from pekit.common.files import write_json
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.model.landmark_net import LandmarkNet
from pekit.training.cost import estimate_cost
from pekit.training.settings import ClusterSettings, TrainSettings

SETTINGS = TrainSettings(
    image_size=32,
    batch_size=4,
    accumulate=2,
    epochs=3,
    samples_per_epoch=24,
    positive_fraction=0.4,
    optimizer="adamw",
    lr=2e-3,
    warmup_steps=4,
    workers=0,
    device="cpu",
    save_every_s=0,
)
IN_TWO = SETTINGS.model_copy(
    update={
        "cluster": ClusterSettings(devices=2, strategy="ddp_notebook"),
        "epochs": 1,
        "batch_size": 2,
    }
)


def fit(*arguments) -> pd.DataFrame:
    """`fit`, imported late: Lightning takes seconds, and the estimate of the cost needs none."""
    from pekit.training.fit import fit

    return fit(*arguments)


def network() -> HopNet:
    """A small network whose dropout draws from torch's generator."""
    torch.manual_seed(0)
    net = HopNet([Encoder("test_efficientnet")])
    net.encoders[0].net.drop_rate = 0.5
    return net


def without_batch_norm() -> HopNet:
    """A small network with layer norm only."""
    torch.manual_seed(0)
    return HopNet([Encoder("test_convnext")])


def before_batch(net: HopNet, action) -> None:
    """Call `action(n)` before the n-th training batch, from 1 on."""
    batches = iter(range(1, 10_000))

    def hook(module, inputs):
        if module.training:
            action(next(batches))

    net.register_forward_pre_hook(hook)


def train_until_killed(store: Store, split: pd.DataFrame, folder: Path) -> None:
    """Ends by SIGKILL in the second epoch."""
    net = network()
    before_batch(net, lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == 10 else None)
    fit(net, store, split, SETTINGS, folder, lambda row, epoch: None)


def train_in_two(store: Store, split: pd.DataFrame, folder: Path, kill_at: int = 0) -> None:
    """Train in two processes, which note the samples that they see and are killed at `kill_at`."""
    net = network()

    def note(module, inputs):
        if module.training:
            with (folder / f"seen-{os.getpid()}.txt").open("a") as file:
                file.writelines(f"{float(c)!r}\n" for c in inputs[1])

    folder.mkdir(exist_ok=True)
    net.register_forward_pre_hook(note)
    before_batch(net, lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == kill_at else None)
    rows = []
    history = fit(net, store, split, IN_TWO, folder, lambda row, epoch: rows.append(row))
    assert history.to_dict("records") == rows, "rows are logged in this process"
    history.to_csv(folder / "history.csv")


def landmarks_in_two(store: Store, split: pd.DataFrame, folder: Path) -> None:
    """Landmark pretraining in two processes."""
    torch.manual_seed(0)
    net = LandmarkNet(Encoder("test_efficientnet"))
    # The heads are large: few samples, and no checkpoint after each step.
    few = IN_TWO.model_copy(
        update={"samples_per_epoch": 8, "save_every_s": 600, "optimizer": "sgd"}
    )
    history = fit(net, store, split, few, folder, lambda row, epoch: None)
    history.to_csv(folder / "history.csv")


def alike_in_two(store: Store, split: pd.DataFrame, folder: Path) -> None:
    """A network without batch norm, so that a batch may be computed in two halves."""
    fit(without_batch_norm(), store, split, IN_TWO, folder, lambda row, epoch: None)


def kill_two(store: Store, split: pd.DataFrame, folder: Path) -> str:
    """Kill both processes before the fifth of six batches; returns the signal."""
    try:
        train_in_two(store, split, folder, kill_at=5)
    except ProcessExitedException as error:
        return str(error.signal_name)
    return "not killed"


def error_in_two(store: Store, split: pd.DataFrame, folder: Path) -> str:
    """The message where both processes fail."""
    settings = IN_TWO.model_copy(update={"batch_size": 20})
    try:
        fit(network(), store, split, settings, folder, lambda row, epoch: None)
    except UserError as error:
        return str(error)
    return "no error"


def nan_in_one(store: Store, split: pd.DataFrame, folder: Path) -> str:
    """The message where the loss of the second of two processes is not finite in its third batch.

    Each process notes the error that ends it.
    """
    from pekit.training.loop import Training

    net, run, batches = network(), Training.run, iter(range(1, 10_000))

    def spoil(module, inputs):
        if module.training and next(batches) == 3 and torch.distributed.get_rank() == 1:
            return inputs[0] * float("nan"), inputs[1]
        return None

    def note(training, fabric):
        try:
            return run(training, fabric)
        except BaseException as error:
            (folder / f"ended-{fabric.global_rank}.txt").write_text(f"{error!r}")
            raise

    folder.mkdir()
    net.register_forward_pre_hook(spoil)
    Training.run = note
    try:
        fit(net, store, split, IN_TWO, folder, lambda row, epoch: None)
    except UserError as error:
        return str(error)
    finally:
        Training.run = run
    return "no error"


def main(root: Path) -> None:
    toy = toy_store(root / "toy")
    killed = mp.get_context("fork").Process(target=train_until_killed, args=(*toy, root / "killed"))
    killed.start()
    killed.join()
    # As in the notebooks: the cost is estimated by a few steps, then processes are forked.
    cost = estimate_cost(network(), *toy, IN_TWO)
    train_in_two(*toy, root / "two")
    landmarks_in_two(*toy, root / "landmarks")
    alike_in_two(*toy, root / "alike")
    two_killed = kill_two(*toy, root / "two_killed")
    for file in (root / "two_killed").glob("seen-*.txt"):
        file.unlink()
    train_in_two(*toy, root / "two_killed")
    done = {
        "exitcode": killed.exitcode,
        "two_killed": two_killed,
        "error": error_in_two(*toy, root / "error"),
        "nan": nan_in_one(*toy, root / "nan"),
        "cost": [cost.samples_per_epoch, cost.steps],
    }
    write_json(root / "done.json", done)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
