"""What a training will cost, before it runs: from the network, the data and a short timed probe.

    plan = plan_training(net, store, split, settings, folder)
    plan.table()        # a row a figure
    plan.advice         # what does not fit, and what to set instead; empty if all is well

`pekit.training.summary.model_table` gives the shapes and parameters of the network's parts.
"""

import math
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from pekit.common.errors import UserError
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.model.landmark_net import LandmarkNet
from pekit.training.loaders import data_loaders
from pekit.training.probe import Probe, seconds_per_stack, untouched_random_state
from pekit.training.settings import TrainSettings

LIMIT_HOURS = 9.0  # of a session on a hosted notebook (Kaggle's, with a GPU)
USABLE = 0.9  # of the memory that is free: allocators leave gaps
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What a training costs on this machine. Memory and disk in GiB; rates in stacks a second.

    `flops` are of one sample, forward and backward, a multiplication and an addition being two.
    Memory is what training adds to the process: weights, gradients, optimiser and activations.
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
    device_rate: float
    loader_rate: float
    workers_needed: int
    hours: float
    disk: float
    disk_free: float
    advice: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """A row a figure: what, value, unit."""
        rows = [
            ("device", self.device, ""),
            ("parameters", f"{self.parameters / 1e6:.2f}", "million"),
            ("of these trained", f"{self.trained / 1e6:.2f}", "million"),
            ("work a sample, forward and backward", f"{self.flops / 1e9:.2f}", "GFLOP"),
            ("memory", f"{self.memory:.2f} of {self.memory_free:.1f} free", "GiB"),
            ("samples an epoch", f"{self.samples_per_epoch}", ""),
            ("optimiser steps", f"{self.steps}", ""),
            ("time an optimiser step", f"{self.seconds_per_step:.3f}", "s"),
            ("the network takes", f"{self.device_rate:.1f}", "stacks/s"),
            ("the workers give", f"{self.loader_rate:.1f}", "stacks/s"),
            ("workers that feed the network", f"{self.workers_needed}", ""),
            ("whole training", f"{self.hours:.2f}", "hours"),
            ("disk", f"{self.disk:.2f} of {self.disk_free:.1f} free", "GiB"),
        ]
        return pd.DataFrame(rows, columns=["what", "value", "unit"])

    def metrics(self) -> dict[str, float]:
        """The figures as numbers, for a log."""
        return {k: v for k, v in asdict(self).items() if not isinstance(v, str | list)}


def plan_training(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    settings: TrainSettings,
    folder: Path = Path("."),
    limit_hours: float | None = LIMIT_HOURS,
    probe_steps: int = 3,
) -> Plan:
    """Estimate what `fit` with the same arguments costs, by a few steps on a copy of `net`.

    Weights and random states are left as they are. Where several processes will train (`cluster`),
    it is done in a process of its own, as if alone on its device: a notebook forks them, which it
    could not after training. On a CPU the probe takes at most 4 samples a
    batch and its time is scaled, since a step's time is proportional to its samples there.

    Args:
        folder: where the training will write.
        limit_hours: longest session; None: no limit.
        probe_steps: steps to time, of which the median counts.

    Raises:
        UserError: as `fit`: empty parts or classes, no GPU where one is asked; or the GPU's memory
            does not even hold the probe.
    """
    asked = (net, store, split, settings, Path(folder), limit_hours, probe_steps)
    if settings.cluster.devices * settings.cluster.nodes == 1:
        return _plan(*asked)
    # As bytes: what torch hands to a process itself would be shared with those that are forked.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_plan_pickled, pickle.dumps(asked)).result()


def _plan_pickled(asked: bytes) -> Plan:
    return _plan(*pickle.loads(asked))


def _plan(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    settings: TrainSettings,
    folder: Path,
    limit_hours: float | None,
    probe_steps: int,
) -> Plan:
    world = settings.cluster.devices * settings.cluster.nodes
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise UserError("device = gpu, but torch sees none: set device to auto or cpu")
    gpu = settings.device != "cpu" and torch.cuda.is_available()
    task = "landmarks" if isinstance(net, LandmarkNet) else "pe"
    train, validation = data_loaders(store, split, task, settings, world=world)
    batches, batch = len(train), settings.batch_size
    steps = settings.epochs * -(-batches // settings.accumulate)
    with untouched_random_state():
        stack_s = seconds_per_stack(train.dataset)
        probe = Probe(net, task, settings, train.dataset, "cuda" if gpu else "cpu")
        flops = probe.flops()
        fixed, each = probe.memory()
        free = probe.free_memory()
        fits = fixed + each * batch <= USABLE * free
        timed = batch if gpu and fits else min(batch, 4)
        step_s = probe.seconds(probe.step, timed, probe_steps) * batch / timed
        validate_s = probe.seconds(probe.validate, timed, probe_steps) / timed
        state = probe.state_bytes()
    workers = max(settings.workers, 1)
    loader_s = batch * stack_s / workers
    # A GPU works while the workers do; on a CPU both need the same processors.
    batch_s = max(step_s, loader_s) if gpu and settings.workers else step_s + loader_s
    epoch_s = batches * batch_s + len(validation.dataset) * (validate_s + stack_s / workers)
    weights = sum(t.nbytes for t in net.state_dict().values())
    plan = Plan(
        device=torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        parameters=sum(p.numel() for p in net.parameters()),
        trained=sum(p.numel() for p in net.parameters() if p.requires_grad),
        flops=flops,
        memory=(fixed + each * batch) / GIB,
        memory_free=free / GIB,
        samples_per_epoch=batches * batch * world,
        steps=steps,
        seconds_per_step=batch_s * settings.accumulate,
        device_rate=batch / step_s,
        loader_rate=batch / loader_s,
        workers_needed=math.ceil(batch / step_s * stack_s),
        hours=settings.epochs * epoch_s / 3600,
        # A checkpoint is written beside the one before; the model comes once more at the end.
        disk=(2 * (weights + state) + weights) / GIB,
        disk_free=shutil.disk_usage(_existing(folder)).free / GIB,
    )
    plan.advice.extend(_advice(plan, settings, fixed, each, free, limit_hours))
    return plan


def _advice(
    plan: Plan,
    settings: TrainSettings,
    fixed: float,
    each: float,
    free: float,
    limit_hours: float | None,
) -> list[str]:
    lines = []
    if plan.memory > USABLE * plan.memory_free:
        room = int((USABLE * free - fixed) // each)
        if room >= 2:
            accumulate = math.ceil(settings.batch_size * settings.accumulate / room)
            help_ = f"set batch_size = {room} and accumulate = {accumulate}"
        else:
            help_ = "take a smaller image_size or encoder"
        lines.append(
            f"too little memory: {plan.memory:.1f} GiB are needed, {plan.memory_free:.1f} GiB are "
            f"free: {help_}"
        )
    if limit_hours and plan.hours > limit_hours:
        epochs = int(settings.epochs * limit_hours / plan.hours)
        share = limit_hours / plan.hours
        draws = max(1, int(plan.samples_per_epoch * share))
        sessions = math.ceil(plan.hours / limit_hours)
        lines.append(
            f"{plan.hours:.1f} hours are more than a session's {limit_hours:g}: resume it over "
            f"{sessions} sessions, or set samples_per_epoch = {draws}"
            + (f" or epochs = {epochs}" if epochs else "")
        )
    if plan.loader_rate < plan.device_rate and plan.workers_needed > max(settings.workers, 1):
        lines.append(
            f"the workers give {plan.loader_rate:.0f} stacks/s, the network takes "
            f"{plan.device_rate:.0f}: set workers = {plan.workers_needed}"
        )
    if plan.disk > plan.disk_free:
        lines.append(
            f"too little disk: {plan.disk:.1f} GiB are needed, {plan.disk_free:.1f} GiB are free: "
            "make room or write to another folder"
        )
    return lines


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
