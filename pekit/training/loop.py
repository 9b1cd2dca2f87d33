"""The training loop: steps, validation, speed, and the files written after each epoch."""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pandas as pd
import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pekit.checkpoint import load_model, save_model
from pekit.common.errors import UserError
from pekit.common.progress import progress, say
from pekit.dataset.store import Store
from pekit.model.prevalence import Prevalence
from pekit.training.finite import finite_losses
from pekit.training.loaders import Task, data_loaders, stop_workers
from pekit.training.recipe import batch_loss, build_optimizer, learning_rate
from pekit.training.resume import Checkpoint, Position, seed_step
from pekit.training.settings import TrainSettings
from pekit.training.small_maps import prepare_layout

Log = Callable[[dict[str, float], int], None]
SHOWN = ("train_loss", "validation_loss", "lr", "stacks_per_s", "peak_gib")  # in an epoch's line
GIB = 2**30


@dataclass
class Training:
    """A training; each of its processes calls `run`.

    Attributes:
        net: trained in place.
        store, split, settings, folder, log: as in `pekit.training.fit.fit`.
        task: what the network learns.
        key: of the training, see `pekit.training.resume`.
        logged: whether `log` was called. Processes that a notebook forks do not call it, since a
            W&B run does not survive a fork.
    """

    net: nn.Module
    task: Task
    store: Store
    split: pd.DataFrame
    settings: TrainSettings
    folder: Path
    key: str
    log: Log
    logged: bool = False
    process: int = field(default_factory=os.getpid)

    def run(self, fabric: Fabric) -> list[dict[str, float]]:
        """Train from the checkpoint (or the start) to the end; returns one row per epoch."""
        self.fabric = fabric
        self.loader, self.validation = data_loaders(
            self.store, self.split, self.task, self.settings, fabric.global_rank, fabric.world_size
        )
        try:
            return self._run()
        finally:
            stop_workers(self.loader, self.validation)

    def _run(self) -> list[dict[str, float]]:
        s, fabric = self.settings, self.fabric
        if self.task == "pe":
            natural = float(self.loader.dataset.label.mean())
            self.net.trained_at(Prevalence(self.loader.sampler.prevalence, natural))
            self.net.precision = s.precision
        self.batches = len(self.loader)
        self.updates = -(-self.batches // s.accumulate)
        # A loaded network is in evaluation mode.
        prepare_layout(self.net, fabric.device).train()
        optimizer = build_optimizer(self.net, s)
        self.file = Checkpoint(self.folder, self.key, self.net, optimizer)
        self.model, self.optimizer = fabric.setup(self.net, optimizer)
        position = self._resume()
        done = position.epoch * self.batches + position.batch
        stacks = s.batch_size * fabric.world_size
        self.meter = Meter(s.epochs * self.batches - done, stacks, fabric.device)
        while position.epoch < s.epochs:
            self._train_epoch(position)
            self._end_epoch(position)
        if fabric.is_global_zero:
            self._finish(position)
        fabric.barrier()
        return position.history

    def _resume(self) -> Position:
        position = self.file.load()
        if self.fabric.is_global_zero:
            self.file.announce(position)
            for row in position.history:
                self._log(row)
        self.saved = time.monotonic()
        return position

    def _finish(self, position: Position) -> None:
        if self.settings.keep == "best":
            self.net.load_state_dict(load_model(self.file.best)[0].state_dict())
        save_model(self.folder / "model", self.net, self.settings.image_size)
        self.file.end(self.folder / "model" / "model.safetensors", position.history)

    def _train_epoch(self, position: Position) -> None:
        s, accumulate = self.settings, self.settings.accumulate
        self.loader.sampler.set_epoch(position.epoch, done=position.batch * s.batch_size)
        self.meter.start_epoch()
        losses, drawn = [], []  # of the batches of a step
        batches = self._shown(
            self.loader, self.batches - position.batch, f"epoch {position.epoch + 1}/{s.epochs}"
        )
        for number, batch in enumerate(batches, start=position.batch):
            update, place = divmod(number, accumulate)
            # The last step of an epoch may have fewer batches.
            group = min(accumulate, self.batches - update * accumulate)
            last = place + 1 == group
            # Dropout depends on seed, step and process only, like the samples.
            seed_step(s.seed, position.epoch * self.batches + number, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                loss = batch_loss(self.model, self.fabric.to_device(batch), self.task)
                self.fabric.backward(loss / group)
            losses.append(loss.detach())
            drawn.append(batch["index"])
            position.batch = number + 1
            if last:
                data, epoch, first = self.loader.dataset, position.epoch + 1, number + 1 - group
                position.loss_sum += sum(
                    finite_losses(self.fabric, losses, drawn, data, epoch, first)
                )
                losses, drawn = [], []
                self._update(position.epoch * self.updates + update)
                self._save_sometimes(position)
            self.meter.count()

    def _shown(self, batches: DataLoader, total: int, name: str) -> Iterable[dict[str, Tensor]]:
        # A bar where there is one process, a line a minute elsewhere; the epoch's line stays.
        if not self.fabric.is_global_zero:
            return batches
        forked = os.getpid() != self.process
        return progress(batches, total, f"{name}, batches", every=60, passing=True, lines=forked)

    def _update(self, step: int) -> None:
        rate = learning_rate(step, self.settings.epochs * self.updates, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _save_sometimes(self, position: Position) -> None:
        # Within an epoch, after whole steps only: the file holds no gradients.
        due = time.monotonic() - self.saved >= self.settings.save_every_s
        if due and position.batch < self.batches and self.fabric.is_global_zero:
            self._save(position)

    def _save(self, position: Position) -> None:
        self.file.save(position)
        self.saved = time.monotonic()

    @torch.no_grad()
    def _validation_loss(self) -> float:
        self.model.eval()
        total = torch.zeros(2, device=self.fabric.device)
        for batch in self._shown(self.validation, len(self.validation), "validation"):
            n = len(batch["label"])
            loss = batch_loss(self.model, self.fabric.to_device(batch), self.task)
            total += torch.stack([loss * n, torch.full_like(loss, n)])
        self.model.train()
        loss_sum, n = self.fabric.all_reduce(total, reduce_op="sum").tolist()
        return loss_sum / n

    def _end_epoch(self, position: Position) -> None:
        s, done = self.settings, position.epoch + 1
        row = {
            "epoch": done,
            "train_loss": position.loss_sum / self.batches,
            "validation_loss": self._validation_loss(),
            "lr": learning_rate(done * self.updates, s.epochs * self.updates, s),
            **self.meter.read(),
        }
        if self.task == "pe":
            at = self.net.prevalence[-1]
            row |= {"prevalence": at.training, "natural_prevalence": at.natural}
        if not math.isfinite(row["validation_loss"]):
            raise UserError(f"the validation loss after epoch {done} is not finite: lower lr")
        better = row["validation_loss"] < position.best
        position.best = min(position.best, row["validation_loss"])
        position.history.append(row)
        position.epoch, position.batch, position.loss_sum = done, 0, 0.0
        if self.fabric.is_global_zero:
            if better and s.keep == "best":
                save_model(self.file.best, self.net, s.image_size)
            if done < s.epochs:  # the last one is followed by the model itself
                self._save(position)
            self._say(row)
            self._log(row)

    def _say(self, row: dict[str, float]) -> None:
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in SHOWN)
        left = timedelta(seconds=round(row["left_s"]))
        say(f"epoch {row['epoch']}/{self.settings.epochs}  {numbers}  {left} left")

    def _log(self, row: dict[str, float]) -> None:
        if os.getpid() == self.process:
            self.logged = True
            self.log(row, row["epoch"])


class Meter:
    """Speed, memory and remaining time, from the number of batches done.

    Args:
        batches_left: batches until the end of the training.
        stacks: 2.5D stacks per batch, over all processes.
        device: the network's device.
    """

    def __init__(self, batches_left: int, stacks: int, device: torch.device):
        self.left, self.stacks, self.device = batches_left, stacks, device
        self._process, self._rss = psutil.Process(), 0
        self._start, self._done = time.monotonic(), 0
        self.start_epoch()

    def start_epoch(self) -> None:
        """Measure the epoch's speed from here."""
        self._epoch_start, self._epoch_done = time.monotonic(), 0

    def count(self) -> None:
        """Note that a batch is done."""
        self._done += 1
        self._epoch_done += 1
        self._epoch_end = time.monotonic()
        if self.device.type != "cuda":
            self._rss = max(self._rss, self._process.memory_info().rss)

    def read(self) -> dict[str, float]:
        """stacks_per_s of the epoch's batches, peak_gib so far, left_s until the end."""
        seconds = self._epoch_end - self._epoch_start
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if on_gpu else self._rss
        each = (time.monotonic() - self._start) / self._done  # includes validation
        return {
            "stacks_per_s": self._epoch_done * self.stacks / seconds,
            "peak_gib": peak / GIB,
            "left_s": each * (self.left - self._done),
        }
