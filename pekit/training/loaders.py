"""Data loaders of a training, shared out among its processes and checked before the first step."""

import math
import multiprocessing as mp
import shutil
from pathlib import Path
from typing import Literal

import cv2
import pandas as pd
import torch
from torch.utils.data import DataLoader, Subset

from pekit.common.errors import UserError
from pekit.dataset.sampler import EpochSampler
from pekit.dataset.stacks import StackDataset, evenly, training_samples
from pekit.dataset.store import Store
from pekit.training.settings import TrainSettings

Task = Literal["pe", "landmarks"]
PREFETCH = 2  # batches that each worker prepares ahead
SHARED_MEMORY = Path("/dev/shm")
GIB = 2**30


def data_loaders(
    store: Store,
    split: pd.DataFrame,
    task: Task,
    settings: TrainSettings,
    rank: int = 0,
    world: int = 1,
) -> tuple[DataLoader, DataLoader]:
    """Loaders of the training part (augmented) and of a fixed sample of the validation part.

    Process number `rank` of `world` processes gets its own share of both.

    Raises:
        UserError: a part is empty or lacks positive or negative slices where both are needed, an
            epoch has fewer samples than a batch, or the shared memory does not hold the batches of
            all workers.
    """
    parts = {part: _samples(store, split, part, task, settings) for part in ("train", "validation")}
    options = {
        "landmarks": task == "landmarks",
        "z_scale": settings.z_scale,
        "depth": settings.depth,
    }
    train = StackDataset(
        store, parts["train"], settings.image_size, augment=settings.augment, **options
    )
    validation = StackDataset(store, parts["validation"], settings.image_size, **options)
    sampler = EpochSampler(
        train.label,
        settings.samples_per_epoch,
        settings.positive_fraction if task == "pe" else None,
        settings.seed,
        rank,
        world,
    )
    if len(sampler) < settings.batch_size:
        shared = f" for each of {world} processes" if world > 1 else ""
        raise UserError(
            f"an epoch has {len(sampler)} samples{shared}, fewer than batch_size = "
            f"{settings.batch_size}: lower batch_size"
        )
    check_shared_memory(settings, train.nbytes + validation.nbytes)
    spread = evenly(len(validation), settings.validation_samples)
    keep = len(spread)
    if keep < world:
        raise UserError(f"{keep} validation slices for {world} processes: use fewer devices")
    # All processes take equally many batches, since they wait for each other in every one.
    spread = spread[: keep - keep % world][rank::world]
    loader = {
        "batch_size": settings.batch_size,
        "pin_memory": torch.cuda.is_available() and settings.device != "cpu",
        **worker_options(settings.workers),
    }
    return (
        DataLoader(train, sampler=sampler, drop_last=True, **loader),
        DataLoader(Subset(validation, spread), **loader),
    )


def _samples(
    store: Store, split: pd.DataFrame, part: str, task: Task, settings: TrainSettings
) -> pd.DataFrame:
    studies = sorted(split.loc[split["part"] == part, "StudyInstanceUID"])
    if not studies:
        raise UserError(f"the split has no study in its {part} part")
    samples = training_samples(store, studies, settings.stride)
    positive = int(samples["label"].sum())
    if task == "pe" and not 0 < positive < len(samples):
        raise UserError(
            f"the {part} part has {positive} positive and {len(samples) - positive} negative "
            "slices: both are needed; check the split, the crop and the stride"
        )
    return samples


def check_shared_memory(settings: TrainSettings, tables: int = 0) -> None:
    """Refuse workers whose batches do not fit into shared memory: there a process dies of SIGBUS.

    Workers hand batches over in /dev/shm, of which a container often has 64 MB. Each process of the
    machine needs room for the batches that its workers prepare ahead, one that is being read, and
    `tables` bytes.

    Raises:
        UserError: /dev/shm has too little free space; the message says what to set.
    """
    free = shared_memory_free()
    if settings.workers == 0 or free is None:
        return
    s, processes = settings, settings.cluster.devices
    stack = s.depth * s.image_size**2 * 2  # int16
    ahead = s.workers * PREFETCH + 1
    needed = processes * (ahead * s.batch_size * stack + tables)
    if needed <= free:
        return
    room = free / processes - tables
    workers = max(0, int((room / (s.batch_size * stack) - 1) / PREFETCH))
    batch = int(room / (ahead * stack))
    accumulate = math.ceil(s.batch_size * s.accumulate / max(batch, 1))
    smaller = f" or batch_size = {batch} with accumulate = {accumulate}" if batch else ""
    shared = f" and {processes} processes" if processes > 1 else ""
    raise UserError(
        f"{SHARED_MEMORY} has {free / GIB:.2f} GiB free; the batches of {s.workers} "
        f"workers{shared} take {needed / GIB:.2f} GiB: set workers = {workers}{smaller}, or start "
        f"the container with docker run --shm-size={math.ceil(1.5 * needed / GIB)}g"
    )


def shared_memory_free() -> int | None:
    """Free bytes of the shared memory; None where the system has no such folder (macOS)."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def worker_options(workers: int) -> dict:
    """DataLoader options for `workers` processes that are not forks of this one.

    A fork would inherit locks of OpenCV's and blosc2's thread pools and hang.
    """
    if workers == 0:
        return {"num_workers": 0}
    method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
    context = mp.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["pekit.dataset.stacks"])
    return {
        "num_workers": workers,
        "prefetch_factor": PREFETCH,
        "multiprocessing_context": context,
        "worker_init_fn": _single_thread,
        "persistent_workers": True,
    }


def stop_workers(*loaders: DataLoader) -> None:
    """End the worker processes of loaders now.

    After an error or an interrupt a notebook keeps the traceback, and with it the workers.
    """
    for loader in loaders:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()
            loader._iterator = None


def _single_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
