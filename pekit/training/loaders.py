"""Data loaders of a training, shared out among its processes and checked before the first step."""

import multiprocessing as mp
from typing import Literal

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Subset

from pekit.common.errors import UserError
from pekit.dataset.sampler import EpochSampler
from pekit.dataset.stacks import StackDataset, training_samples
from pekit.dataset.store import Store
from pekit.training.settings import TrainSettings

Task = Literal["pe", "landmarks"]


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
        UserError: a part is empty or lacks positive or negative slices where both are needed, or
            an epoch has fewer samples than a batch.
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
    keep = min(settings.validation_samples, len(validation))
    if keep < world:
        raise UserError(f"{keep} validation slices for {world} processes: use fewer devices")
    spread = np.linspace(0, len(validation) - 1, keep).round().astype(int).tolist()
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
        "multiprocessing_context": context,
        "worker_init_fn": _single_thread,
        "persistent_workers": True,
    }


def _single_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
