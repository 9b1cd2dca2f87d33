"""Training: landmark pretraining and PE detection, by Lightning Fabric.

    history = fit(net, store, split, TrainSettings(), folder=run.folder, log=run.log)
    trained, _ = load_model(run.folder)

`net` is where the training starts, and stays as it is. So the same call, made again, repeats the
training to the bit (on a CPU); after a kill or an interrupt, also within an epoch, it resumes it;
and once it has ended, it gives its history. Fabric gives devices, precision and processes; the loop
(`loop`) is written out, since a resume must restore its position.
"""

import copy
import logging
import sys
from pathlib import Path

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch.multiprocessing import ProcessRaisedException

from pekit.common.errors import UserError
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.model.landmark_net import LandmarkNet
from pekit.training.loop import Log, Training
from pekit.training.resume import ended, key_of, telling_what_follows
from pekit.training.settings import TrainSettings

# Settings that do not change the weights; a training may be resumed with other values.
FREE = {"workers", "save_every_s"}


def fit(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    settings: TrainSettings,
    folder: Path,
    log: Log,
) -> pd.DataFrame:
    """Train a copy of `net` on the split's training part and save it as `folder/model`.

    A HopNet learns PE, a LandmarkNet the landmarks. The result has the weights after the last
    epoch; the validation loss is logged and chooses nothing. With `keep = best` the weights with
    the lowest validation loss are the result: then the validation part has chosen them, and it is
    no longer held out.

    A training that was cut off resumes at its last checkpoint (`save_every_s`), and one that has
    ended is not repeated, if starting weights, data, settings and code are the same. With several
    processes (`cluster`) a step takes a batch from each, batch norm sees each batch by itself, and
    rows are logged at the end.

    Args:
        net: the start; it is not changed.
        split: StudyInstanceUID and part (train, validation).
        folder: where `model/` and `training.json` are written, and `resume-<key>.ckpt` until the
            end. The checkpoint of another training there is kept until this one has ended.
        log: takes a row of numbers and the epoch.

    Returns:
        One row per epoch: epoch, train_loss (of the first process's batches), validation_loss, lr
        (after the epoch), stacks_per_s (training), peak_gib (of the GPU, or of this process on a
        CPU), left_s; for PE also prevalence (of positives among the samples) and
        natural_prevalence (in the training part), see `pekit.model.prevalence`.

    Raises:
        UserError: an empty part or class, a loss that is not finite, no GPU where one is asked
            for, too little memory.
    """
    folder = Path(folder)
    fabric = _fabric(settings)
    shaping = settings.model_dump_json(exclude=FREE)
    key = key_of(net, store, split, "pekit.training.fit", shaping)
    if history := ended(folder, key, folder / "model" / "model.safetensors"):
        for row in history:
            log(row, row["epoch"])
        return pd.DataFrame(history)
    training = Training(
        copy.deepcopy(net),
        "landmarks" if isinstance(net, LandmarkNet) else "pe",
        store,
        split,
        settings,
        folder,
        key,
        log,
    )
    try:
        with telling_what_follows(folder, key):
            history = fabric.launch(training.run)
    except (RuntimeError, MemoryError, ProcessRaisedException) as error:
        if out_of_memory(error):
            raise UserError(memory_advice(settings)) from error
        if "DataLoader worker" in str(error):  # torch's words for one that ended
            raise UserError(_worker_advice(str(error), settings)) from error
        # The error of a forked process arrives as text.
        _, found, message = str(error).rpartition("UserError: ")
        if isinstance(error, ProcessRaisedException) and found:
            raise UserError(message.strip()) from error
        raise
    if fabric.is_global_zero and not training.logged:
        for row in history:
            log(row, row["epoch"])
    return pd.DataFrame(history)


def _fabric(settings: TrainSettings) -> Fabric:
    gpus, cluster = torch.cuda.device_count(), settings.cluster
    if settings.device == "gpu" and gpus < cluster.devices:
        raise UserError(
            f"device = gpu and devices = {cluster.devices}, but torch finds {gpus} GPUs: "
            "set devices to their number, or device to auto or cpu"
        )
    # Lightning's tips and notices would hide the line per epoch.
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    return Fabric(
        # Processes are started here, also within a session of SLURM, whose variables do not count.
        plugins=LightningEnvironment(),
        accelerator={"auto": "auto", "cpu": "cpu", "gpu": "cuda"}[settings.device],
        devices=cluster.devices,
        strategy=cluster.strategy,
        precision=settings.precision,
    )


def _worker_advice(error: str, settings: TrainSettings) -> str:
    """Why a process that loads data may have ended, and what to do."""
    if "exited unexpectedly" in error and hasattr(sys.modules["__main__"], "__file__"):
        return (
            "a worker that loads data could not start: it imports the script again, so put the "
            'script\'s calls under `if __name__ == "__main__":`, or set workers = 0'
        )
    return (
        "the system ended a worker that loads data, most often because memory ran out: set "
        f"workers = {settings.workers // 2}, or a smaller batch_size"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU or the machine did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return any(text in str(error) for text in texts)


def memory_advice(settings: TrainSettings) -> str:
    """What to set where memory did not suffice."""
    batch = max(1, settings.batch_size // 2)
    accumulate = -(-settings.batch_size * settings.accumulate // batch)
    tips = [f"batch_size = {batch} with accumulate = {accumulate} makes steps of the same size"]
    if batch == settings.batch_size:
        tips = []
    if settings.precision == "32-true":
        tips.append("precision = bf16-mixed takes about half on a GPU")
    tips.append(f"an image_size below {settings.image_size} or a smaller encoder takes less")
    return (
        f"out of memory at batch_size = {settings.batch_size}, image_size = "
        f"{settings.image_size}: " + "; ".join(tips)
    )
