"""How many 2.5D stacks per second a network trains on and predicts, alone and fed by the loader.

Each function measures one rate on the device that torch finds: a GPU, else the CPU.
"""

import itertools
import math
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from pekit.common.errors import first_line
from pekit.dataset.stacks import resize_slices
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.inference.predict import TorchPredictor, predict_studies
from pekit.model.encoder import make_encoder
from pekit.training.cost import Trial, timed
from pekit.training.loaders import PREFETCH
from pekit.training.settings import TrainSettings

AFTER = 10  # batches that count after those that the workers had prepared ahead
GIB = 2**30


@dataclass(frozen=True)
class Rate:
    """`stacks_per_s`, and `peak_gib` of the GPU, or of this process on a CPU."""

    stacks_per_s: float
    peak_gib: float = math.nan


def build_network(encoder: str, image_size: int, hops: int) -> HopNet:
    """A network with random weights; its first hops are frozen, as when the last one is trained."""
    net = HopNet([make_encoder(encoder, "random", image_size)])
    for _ in range(hops - 1):
        net = net.add_hop()
    return net


def training_flops(net: HopNet, forward: float, image_size: int) -> float:
    """FLOPs of a training step per stack, from those of its forward pass.

    The backward pass counts as two forward passes of the hops that are trained, as is usual.
    (PyTorch's counter takes a depthwise convolution for a full one in the backward pass.)
    """
    if not net.frozen:
        return 3 * forward
    images = torch.zeros(1, net.encoders[0].in_chans, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.hop_logits(images.to(next(net.parameters()).device), hops=net.frozen)
    return forward + 2 * (forward - counter.get_total_flops())


def matrix_rate(device: str, precision: str, seconds: float) -> float:
    """FLOP per second of a large matrix product in the same precision: the most to hope for.

    In float32 a GPU may use TF32, as PyTorch's convolutions do by default.
    """
    size, products = (8192, 10) if device == "cuda" else (1024, 1)
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")

    def multiply(_batch: Any) -> None:
        for _ in range(products):
            torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    try:
        _, _, step_s = timed(_Repeated(None), multiply, seconds)
    finally:
        torch.set_float32_matmul_precision(before)
    return products * 2 * size**3 / step_s


def compile_problem(device: str) -> str:
    """Why torch.compile cannot be used here, for instance no C compiler; empty if it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds, by what is missing
        return f"torch.compile is not usable: {first_line(error)}"
    return ""


def train_alone(trial: Trial, batch: dict[str, torch.Tensor], seconds: float) -> Rate:
    """Training steps on one batch that already lies on the device."""
    batch = {name: value.to(trial.device) for name, value in batch.items()}
    return _rate(_Repeated(batch), trial.train, len(batch["label"]), trial.device, seconds)


def train_fed(trial: Trial, loader: DataLoader, seconds: float) -> Rate:
    """Training steps on the batches of a loader, after those that were prepared ahead."""
    return _rate(loader, trial.train, loader.batch_size, trial.device, seconds)


def predict_alone(net: HopNet, stacks: np.ndarray, mixed: bool, seconds: float) -> Rate:
    """Prediction of one batch `(B, 3, H, W)` int16 HU, from and to the machine's memory."""
    predict = TorchPredictor(net, bf16=mixed)
    return _rate(_Repeated(stacks), predict, len(stacks), predict.device.type, seconds)


def predict_fed(
    net: HopNet,
    store: Store,
    studies: list[str],
    image_size: int,
    batch: int,
    mixed: bool,
    seconds: float,
) -> Rate:
    """Prediction of whole studies, as `predict_studies` does it."""
    predict = TorchPredictor(net, bf16=mixed)
    device = predict.device.type
    slices = [store.volume_shape(study)[0] for study in studies[:64]]

    def run(count: int) -> float:
        chosen = list(itertools.islice(itertools.cycle(studies[: len(slices)]), count))
        start = time.perf_counter()
        predict_studies(predict, store, chosen, image_size, batch)
        return time.perf_counter() - start

    run(1)  # the first batches are slower
    count = max(2, math.ceil(seconds / run(1)))
    _forget_peak(device)
    seconds = run(count)
    done = sum(itertools.islice(itertools.cycle(slices), count))
    return Rate(done / seconds, _peak_gib(device))


def one_loader(loader: DataLoader, seconds: float) -> float:
    """Training stacks per second of a loader with one worker (or none), without a network."""
    return _rate(loader, lambda batch: None, loader.batch_size, "cpu", seconds).stacks_per_s


def one_reader(store: Store, studies: list[str], image_size: int, seconds: float) -> float:
    """Slices per second that one core reads and resizes for prediction."""
    threads, done, start = cv2.getNumThreads(), 0, time.perf_counter()
    cv2.setNumThreads(1)
    try:
        for study in itertools.cycle(studies):
            done += len(resize_slices(store.read_volume(study), image_size))
            if time.perf_counter() - start > seconds:
                return done / (time.perf_counter() - start)
    finally:
        cv2.setNumThreads(threads)


def train_in_processes(
    encoder: str, hops: int, store: Store, split: pd.DataFrame, settings: TrainSettings
) -> Rate:
    """The second epoch of a real training, by `fit`, with `settings.cluster.devices` processes.

    It runs in a process of its own, since the training's processes are forked, which this one could
    not do after it has used a GPU.
    """
    asked = pickle.dumps((encoder, hops, store, split, settings))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return Rate(*pool.submit(_train_in_processes, asked).result())


def _train_in_processes(asked: bytes) -> tuple[float, float]:
    from pekit.training.fit import fit

    encoder, hops, store, split, settings = pickle.loads(asked)
    net = build_network(encoder, settings.image_size, hops)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(net, store, split, settings, Path(folder), lambda row, epoch: None)
    last = history.iloc[-1]
    return last["stacks_per_s"], last["peak_gib"]


class _Repeated:
    """A loader that gives one batch again and again."""

    num_workers, prefetch_factor = 0, None

    def __init__(self, batch: Any):
        self.batch = batch

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(self.batch)


def _rate(
    loader: DataLoader | _Repeated, step: Callable, size: int, device: str, seconds: float
) -> Rate:
    if isinstance(loader, _Repeated):
        for batch in itertools.islice(loader, 2):
            step(batch)  # compiling, and choosing algorithms, does not count
    _forget_peak(device)
    ahead = 1 + loader.num_workers * PREFETCH
    least = ahead + (AFTER if loader.num_workers else 2)
    _, wait_s, step_s = timed(loader, step, seconds, least)
    return Rate(size / (wait_s + step_s), _peak_gib(device))


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_gib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return psutil.Process().memory_info().rss / GIB
