"""All rates of the table of speeds, one row after the other."""

import gc
import math
from collections.abc import Callable, Iterator
from typing import Literal

import pandas as pd
import torch
from pydantic import Field
from torch.utils.data import default_collate

from pekit.common.errors import UserError, first_line
from pekit.common.processors import processors
from pekit.common.progress import say
from pekit.common.settings import Settings
from pekit.dataset.store import Store
from pekit.hop import to_best_device
from pekit.training.cost import USABLE, Trial
from pekit.training.loaders import PREFETCH, data_loaders
from pekit.training.settings import ClusterSettings, TrainSettings
from pekit.training.speed import rates
from pekit.training.speed.table import speed_table

MAX_BATCH = 64  # larger ones are hardly faster
EPOCH = 2000  # batches, more than are ever measured


class SpeedSettings(Settings):
    """What is measured; `SpeedSettings.here()` has the defaults for this machine.

    Attributes:
        encoder, image_size, precision: of the network.
        batch_size: None: as large as the memory allows, at most MAX_BATCH.
        workers: processes that load training data.
        compile: also measure networks that torch.compile has compiled.
        devices: also train in so many processes, one per device; 1: do not.
        seconds: least duration of each measurement.
    """

    encoder: str
    image_size: int = Field(ge=32)
    batch_size: int | None = Field(None, ge=1)
    precision: Literal["32-true", "bf16-mixed"]
    workers: int = Field(ge=0)
    compile: bool
    devices: int = Field(1, ge=1)
    seconds: float = Field(6.0, gt=0)

    @classmethod
    def here(cls, **given) -> "SpeedSettings":
        """The paper's network on a GPU, a small one on a CPU; `given` values overrule."""
        if torch.cuda.is_available():
            defaults = {
                "encoder": "tf_efficientnetv2_l",
                "image_size": 576,
                "precision": "bf16-mixed",
                "workers": max(1, min(16, processors() - 1)),
                "compile": True,
                "devices": min(2, torch.cuda.device_count()),
            }
        else:
            defaults = {
                "encoder": "test_efficientnet",
                "image_size": 64,
                "batch_size": 8,
                "precision": "32-true",
                "workers": 1,
                "compile": False,
                "seconds": 1.0,
            }
        return cls(**defaults | given)


def measure_speed(settings: SpeedSettings, store: Store, split: pd.DataFrame) -> pd.DataFrame:
    """Measure one hop and two; returns `speed_table`, with the matrix rate as attrs["matrix"].

    Args:
        store: prepared studies with slice labels.
        split: StudyInstanceUID and part (train, validation), each part with both labels.

    Raises:
        UserError: as `data_loaders`; too little memory on the GPU for 6 samples.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = rates.matrix_rate(device, settings.precision, settings.seconds)
    say(f"matrix rate: {matrix / 1e12:.3g} TFLOP/s in {settings.precision}")
    problem = rates.compile_problem(device) if settings.compile else "not asked for (--compile)"
    rows = []
    for hops in (1, 2):
        for row in _Network(settings, store, split, device, hops).rows(problem):
            say("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
            rows.append(row)
    table = speed_table(rows, matrix)
    table.attrs["matrix"] = matrix
    return table


class _Network:
    """The measurements of one network."""

    def __init__(self, s: SpeedSettings, store: Store, split: pd.DataFrame, device: str, hops: int):
        self.s, self.store, self.split, self.device, self.hops = s, store, split, device, hops
        self.net = rates.build_network(s.encoder, s.image_size, hops)
        self.studies = split["StudyInstanceUID"].tolist()
        self.mixed = s.precision == "bf16-mixed"
        self.batch_size = 1
        sample = self._loader().dataset[(0, 0)]
        trial = Trial(self.net, "pe", self._settings(), device)
        self.batch_size = s.batch_size or _fitting(*trial.memory(sample), trial.memory_free)
        self.batch = default_collate([sample] * self.batch_size)
        forward = trial.flops(sample)
        step = rates.training_flops(trial.net, forward, s.image_size)
        self.gflop = {"train": step / 1e9, "predict": forward / 1e9}
        self.core = {
            "train": rates.one_loader(self._loader(workers=min(s.workers, 1)), s.seconds),
            "predict": rates.one_reader(store, self.studies, s.image_size, s.seconds),
        }

    def _settings(self, **changes) -> TrainSettings:
        values = {
            "image_size": self.s.image_size,
            "depth": self.net.depth,
            "batch_size": self.batch_size,
            "samples_per_epoch": EPOCH * self.batch_size,
            "precision": self.s.precision,
            "workers": self.s.workers,
            "lr": 1e-6,  # random weights and labels: nothing is to be learnt
        }
        return TrainSettings(**values | changes)

    def _loader(self, **changes):
        return data_loaders(self.store, self.split, "pe", self._settings(**changes))[0]

    def rows(self, problem: str) -> Iterator[dict]:
        """Measure row after row; `problem`: why nothing can be compiled, or empty."""
        for mode in ("eager", "compiled"):
            for task, measures in (("train", self._train), ("predict", self._predict)):
                if mode == "compiled" and problem:
                    yield self._row(task, mode, "synthetic", problem)
                    yield self._row(task, mode, "loader", problem)
                else:
                    yield from self._pair(task, mode, measures(mode))
        yield self._in_processes()

    def _pair(
        self, task: str, mode: str, measures: tuple[Callable[[], rates.Rate], ...]
    ) -> Iterator[dict]:
        _free_memory()
        for source, measure in zip(("synthetic", "loader"), measures, strict=True):
            try:
                yield self._row(task, mode, source, measure())
            except torch.OutOfMemoryError:
                yield self._row(task, mode, source, f"out of memory: batch {self.batch_size}")
            except Exception as error:  # the compiler's are of many kinds
                if mode == "eager":
                    raise
                yield self._row(task, mode, source, first_line(error))

    def _train(self, mode: str) -> tuple[Callable[[], rates.Rate], ...]:
        trial = Trial(self.net, "pe", self._settings(), self.device)
        if mode == "compiled":
            torch.compiler.reset()
            trial.net.compile()
        seconds = self.s.seconds
        return (
            lambda: rates.train_alone(trial, self.batch, seconds),
            lambda: rates.train_fed(trial, self._loader(), seconds),
        )

    def _predict(self, mode: str) -> tuple[Callable[[], rates.Rate], ...]:
        s, stacks = self.s, self.batch["stack_hu"].numpy()
        net = to_best_device(rates.build_network(s.encoder, s.image_size, self.hops))
        if mode == "compiled":
            torch.compiler.reset()
            net.compile()
        fed = (self.store, self.studies, s.image_size, self.batch_size, self.mixed, s.seconds)
        return (
            lambda: rates.predict_alone(net, stacks, self.mixed, s.seconds),
            lambda: rates.predict_fed(net, *fed),
        )

    def _in_processes(self) -> dict:
        devices = self.s.devices
        if devices == 1:
            found = torch.cuda.device_count()
            return self._row("train", "eager", "loader", f"unseen: {found} GPUs found", 2)
        batches = 1 + self.s.workers * PREFETCH + 3 * rates.AFTER
        settings = self._settings(
            epochs=2,
            samples_per_epoch=devices * batches * self.batch_size,
            validation_samples=devices,
            cluster=ClusterSettings(devices=devices, strategy="ddp_notebook"),
        )
        _free_memory()  # the processes need the GPUs to themselves
        try:
            asked = (self.s.encoder, self.hops, self.store, self.split, settings)
            rate = rates.train_in_processes(*asked)
        except UserError as error:  # for instance too little memory: the other rows stand
            rate = first_line(error)
        return self._row("train", "eager", "loader", rate, devices)

    def _row(
        self, task: str, mode: str, source: str, rate: rates.Rate | str, devices: int = 1
    ) -> dict:
        seen = isinstance(rate, rates.Rate)
        return {
            "task": task,
            "hops": self.hops,
            "mode": mode,
            "input": source,
            "devices": devices,
            "batch": self.batch_size,
            "stacks_per_s": rate.stacks_per_s if seen else math.nan,
            "peak_gib": rate.peak_gib if seen else math.nan,
            "gflop_per_stack": self.gflop[task],
            "stacks_per_s_per_core": self.core[task],
            "note": "" if seen else rate,
        }


def _free_memory() -> None:
    """Give back what earlier networks took of the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fitting(fixed: float, each: float, free: float) -> int:
    """The largest batch that fits into `free` bytes, at most MAX_BATCH; above 8 a multiple of 8."""
    batch = max(1, min(MAX_BATCH, int((USABLE * free - fixed) // each)))
    return batch - batch % 8 if batch > 8 else batch
