"""Time, memory and disk that a training will take, from a few real steps before it starts.

cost = estimate_cost(net, store, split, settings, folder)
cost.table()        # one row per figure
cost.advice         # what does not fit, and what to set instead; empty if all fits
"""

import copy
import math
import pickle
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torch.utils.flop_counter import FlopCounterMode

from pekit.common.errors import UserError
from pekit.common.processors import processors
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.model.landmark_net import LandmarkNet
from pekit.training.loaders import Task, data_loaders, stop_workers
from pekit.training.recipe import batch_loss, build_optimizer
from pekit.training.settings import TrainSettings
from pekit.training.small_maps import prepare_layout

USABLE = 0.9  # of the free memory: allocators leave gaps
TIMED_S = 6.0  # seconds of training that are timed, and of validation: at most these
PART = 0.1  # of the training at most
WAITING = 0.2  # of the time; where the network waits longer for data, more workers are advised
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What a training costs on this machine. Memory and disk in GiB, times in seconds.

    `flops` are of one sample, forward; a multiplication and an addition count as two. `memory` is
    what training adds to the process: weights, gradients, optimiser and activations. `waiting` is
    the fraction of `seconds_per_step` (an optimiser step) in which the network waits for data.
    `validation_s` is the time per epoch.
    """

    device: str
    parameters: int
    trained: int
    flops: float
    memory: float
    memory_free: float
    samples_per_epoch: int
    steps: int
    seconds_per_step: float
    waiting: float
    stacks_per_s: float
    validation_s: float
    hours: float
    disk: float
    disk_free: float
    advice: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """One row per figure: name, value, unit."""
        rows = [
            ("device", self.device, ""),
            ("parameters", f"{self.parameters / 1e6:.2f}", "million"),
            ("trained parameters", f"{self.trained / 1e6:.2f}", "million"),
            ("work per sample, forward", f"{self.flops / 1e9:.2f}", "GFLOP"),
            ("memory", f"{self.memory:.2f} of {self.memory_free:.1f} free", "GiB"),
            ("samples per epoch", f"{self.samples_per_epoch}", ""),
            ("optimiser steps", f"{self.steps}", ""),
            ("time per optimiser step", f"{self.seconds_per_step:.3f}", "s"),
            ("of which waiting for data", f"{100 * self.waiting:.0f}", "%"),
            ("2.5D stacks per second", f"{self.stacks_per_s:.1f}", "1/s"),
            ("validation per epoch", f"{self.validation_s:.1f}", "s"),
            ("whole training", f"{self.hours:.2f}", "hours"),
            ("disk", f"{self.disk:.2f} of {self.disk_free:.1f} free", "GiB"),
        ]
        return pd.DataFrame(rows, columns=["name", "value", "unit"])

    def allow(self, limit_hours: float) -> None:
        """Stop before a training that takes longer than allowed; 0: no limit.

        Raises:
            UserError: the estimated hours are more than `limit_hours`.
        """
        if limit_hours and self.hours > limit_hours:
            raise UserError(
                f"this training takes about {self.hours:.1f} hours, more than LIMIT_HOURS = "
                f"{limit_hours:g}: set LIMIT_HOURS = {math.ceil(self.hours * 1.3)} to start it all "
                "the same (after a kill it resumes), or train less (see the advice on its cost)"
            )

    def metrics(self) -> dict[str, float]:
        """The figures as numbers, for a log."""
        return {k: v for k, v in asdict(self).items() if not isinstance(v, str | list)}


def estimate_cost(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    settings: TrainSettings,
    folder: Path = Path("."),
    limit_hours: float | None = 9.0,
) -> Cost:
    """Estimate what `fit` with the same arguments costs, by steps on a copy of `net`.

    The batches are those of the first epoch, from the real loaders with their workers: about 6
    seconds of training and of validation, a tenth of what these take in all if that is shorter, but
    at least 3 batches. Where a batch does not fit into
    memory, as many of its samples as fit are computed, and the time is scaled. Weights and random
    states stay as they are. Where several processes will train (`cluster`), the steps run in a
    process of their own, as if alone on the device: a notebook forks the training processes, which
    it could not do after it has trained.

    Args:
        folder: where the training will write.
        limit_hours: longest session (Kaggle's with a GPU is 9 hours); None: no limit.

    Raises:
        UserError: as `fit`: empty parts or classes, no GPU where one is asked; or too little
            memory on the GPU for 6 samples.
    """
    asked = (net, store, split, settings, Path(folder).absolute(), limit_hours)
    if settings.cluster.devices == 1:
        return _estimate(*asked)
    # As bytes: tensors that torch hands to a process would be shared with the forked ones.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_estimate_pickled, pickle.dumps(asked)).result()


def _estimate_pickled(asked: bytes) -> Cost:
    return _estimate(*pickle.loads(asked))


def _estimate(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    s: TrainSettings,
    folder: Path,
    limit_hours: float | None,
) -> Cost:
    if s.device == "gpu" and not torch.cuda.is_available():
        raise UserError("device = gpu, but torch finds no GPU: set device to auto or cpu")
    device = "cuda" if s.device != "cpu" and torch.cuda.is_available() else "cpu"
    task: Task = "landmarks" if isinstance(net, LandmarkNet) else "pe"
    world = s.cluster.devices
    train, validation = data_loaders(store, split, task, s, world=world)
    with torch.random.fork_rng(devices=[0] if device == "cuda" else []):
        trial = Trial(net, task, s, device)
        sample = train.dataset[(0, 0)]
        fixed, each = trial.memory(sample)
        flops = trial.flops(sample)
        room = int((USABLE * trial.memory_free - fixed) // each)
        trial.samples = min(s.batch_size, max(room, 2))
        try:
            start_s, wait_s, step_s = timed(train, trial.train, epochs=s.epochs)
            v_start_s, v_wait_s, v_step_s = timed(validation, trial.validate, epochs=s.epochs)
        finally:
            stop_workers(train, validation)
    scale = s.batch_size / trial.samples
    batches, batch_s = len(train), wait_s + step_s * scale
    validation_s = len(validation) * (v_wait_s + v_step_s * scale)
    epochs_s = s.epochs * (batches * batch_s + validation_s)
    weights = sum(t.nbytes for t in net.state_dict().values())
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    gpu = device == "cuda"
    cost = Cost(
        device=torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        parameters=sum(p.numel() for p in net.parameters()),
        trained=sum(p.numel() for p in net.parameters() if p.requires_grad),
        flops=flops,
        memory=(fixed + each * s.batch_size) / GIB,
        memory_free=trial.memory_free / GIB,
        samples_per_epoch=batches * s.batch_size * world,
        steps=s.epochs * -(-batches // s.accumulate),
        seconds_per_step=batch_s * s.accumulate,
        waiting=wait_s / batch_s,
        stacks_per_s=s.batch_size / batch_s,
        validation_s=validation_s,
        hours=(start_s + v_start_s + epochs_s) / 3600,
        # A checkpoint is written beside the last one; `model` and `best` hold the weights only.
        disk=((4 if s.keep == "best" else 3) * weights + 2 * trial.state_bytes()) / GIB,
        disk_free=shutil.disk_usage(existing).free / GIB,
    )
    cost.advice.extend(_advice(cost, s, room, limit_hours))
    return cost


class Trial:
    """A copy of the network for steps of training and validation, on `samples` of each batch."""

    samples: int | None = None

    def __init__(self, net: nn.Module, task: Task, settings: TrainSettings, device: str):
        self.task, self.device, self.before = task, device, 0
        self.mixed = settings.precision == "bf16-mixed"
        self.memory_free = psutil.virtual_memory().available
        if device == "cuda":
            self.before = torch.cuda.memory_allocated()
            cached = torch.cuda.memory_reserved() - self.before
            self.memory_free = torch.cuda.mem_get_info()[0] + cached
        self.net = prepare_layout(copy.deepcopy(net), device).train()
        self.optimizer = build_optimizer(self.net, settings)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        batch = {name: value[: self.samples].to(self.device) for name, value in batch.items()}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
            return batch_loss(self.net, batch, self.task)

    def train(self, batch: dict[str, Tensor]) -> None:
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> None:
        self.net.eval()
        self.loss(batch).item()

    def flops(self, sample: dict) -> float:
        with FlopCounterMode(display=False) as counter:
            self.loss(default_collate([sample] * 2))
        return counter.get_total_flops() / 2

    def memory(self, sample: dict) -> tuple[float, float]:
        """Bytes that a step needs whatever the batch, and bytes per sample.

        On a GPU the allocator's peak; on a CPU weights, gradients, the optimiser's state and what
        is kept for the backward pass, without the buffers of single operations.
        """
        small, large = (default_collate([sample] * size) for size in (2, 6))
        try:
            self.train(small)  # the optimiser has its state from here on
            low, high = self._peak(small), self._peak(large)
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                "the GPU's memory does not hold 6 samples: take a smaller image_size or encoder"
            ) from None
        each = max((high - low) / 4, 1.0)
        return max(low - 2 * each, 0.0), each

    def _peak(self, batch: dict[str, Tensor]) -> float:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.train(batch)
            return torch.cuda.max_memory_allocated() - self.before
        # The size of the process says little: count what the training holds, each storage once.
        held = {}

        def hold(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            self.loss(batch)
        for tensor in self.net.state_dict().values():
            hold(tensor)
        gradients = sum(p.nbytes for p in self.net.parameters() if p.requires_grad)
        return sum(held.values()) + gradients + self.state_bytes()

    def state_bytes(self) -> int:
        states = self.optimizer.state.values()
        return sum(t.nbytes for s in states for t in s.values() if isinstance(t, Tensor))


def timed(
    loader: DataLoader, step: Callable, seconds: float = TIMED_S, least: int = 3, epochs: int = 0
) -> tuple[float, float, float]:
    """Time a loop over `loader` for so many seconds, and at least so many batches if it has them.

    Where the number of epochs is given, no longer than a tenth of what they will take.

    The first step is slower, and meanwhile the workers prepare batches ahead: none of these counts
    as long as two others are left, and the first only where it is alone.

    Returns:
        Seconds until the first batch; mean seconds of waiting for a batch, and of a step.
    """
    waits, steps = [], []
    last = time.perf_counter()
    for batch in loader:
        waits.append(time.perf_counter() - last)
        step(batch)
        steps.append(time.perf_counter() - last - waits[-1])
        last += waits[-1] + steps[-1]
        spent = sum(waits[1:]) + sum(steps)
        whole = epochs * len(loader) * spent / len(steps) if epochs else math.inf
        if len(steps) >= least and spent > min(seconds, PART * whole):
            break
    start, waits[0] = waits[0], 0.0
    ahead, n = 1 + loader.num_workers * (loader.prefetch_factor or 0), len(steps)
    skip = min(ahead, max(n - 2, 1), n - 1)
    return start, sum(waits[skip:]) / (n - skip), sum(steps[skip:]) / (n - skip)


def _advice(cost: Cost, s: TrainSettings, room: int, limit_hours: float | None) -> list[str]:
    # `room` samples fit into memory.
    lines = []
    smaller = "take a smaller image_size or encoder"
    if room >= 2:
        accumulate = math.ceil(s.batch_size * s.accumulate / room)
        smaller = f"set batch_size = {room} and accumulate = {accumulate}"
    for what, needed, usable, remedy in (
        ("memory", cost.memory, USABLE * cost.memory_free, smaller),
        ("disk", cost.disk, cost.disk_free, "make room or write to another folder"),
    ):
        if needed > usable:
            sizes = f"{needed:.1f} GiB are needed, {usable:.1f} GiB can be used"
            lines.append(f"too little {what}: {sizes}: {remedy}")
    if limit_hours and cost.hours > limit_hours:
        share = limit_hours / cost.hours
        draws, epochs = max(1, int(cost.samples_per_epoch * share)), int(s.epochs * share)
        lines.append(
            f"{cost.hours:.1f} hours are more than a session's {limit_hours:g}: resume it over "
            f"{math.ceil(1 / share)} sessions, or set samples_per_epoch = {draws}"
            + (f" or epochs = {epochs}" if epochs else "")
        )
    # Workers load during the steps too; without workers the waiting is all of the loading.
    needed = math.ceil((s.workers or cost.waiting) / (1 - cost.waiting))
    workers = min(needed, processors())
    if cost.waiting > WAITING and workers > s.workers:
        share = f"{100 * cost.waiting:.0f} %"
        lines.append(f"the network waits for data {share} of the time: set workers = {workers}")
    return lines
