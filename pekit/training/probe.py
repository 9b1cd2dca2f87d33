"""A few training steps on a copy of the network, to learn what they need: work, memory, time."""

import copy
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from pekit.common.errors import UserError
from pekit.training.recipe import batch_loss, build_optimizer
from pekit.training.settings import TrainSettings


class Probe:
    """A copy of the network, trained for a few steps on a few samples of the data set."""

    def __init__(
        self,
        net: nn.Module,
        task: str,
        settings: TrainSettings,
        dataset: Dataset,
        device: str,
    ):
        self.device, self.dataset = device, dataset
        self.mixed = settings.precision == "bf16-mixed"
        self.before = torch.cuda.memory_allocated() if device == "cuda" else 0
        self.net = copy.deepcopy(net).to(device, memory_format=net.memory_format).train()
        self.task = task
        self.optimizer = build_optimizer(self.net, settings)

    def batch(self, size: int) -> dict[str, Tensor]:
        """So many samples, spread over the data set, augmented."""
        spread = np.linspace(0, len(self.dataset) - 1, size).round().astype(int).tolist()
        samples = default_collate([self.dataset[(index, index)] for index in spread])
        return {name: value.to(self.device) for name, value in samples.items()}

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
            return batch_loss(self.net, batch, self.task)

    def step(self, batch: dict[str, Tensor]) -> None:
        """One step of training."""
        self.optimizer.zero_grad()
        self._loss(batch).backward()
        self.optimizer.step()

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> None:
        """One step of validation."""
        self.net.eval()
        self._loss(batch)
        self.net.train()

    def flops(self) -> float:
        """Work of a sample, forward and backward; also the first step, which is slower."""
        batch = self.batch(2)
        work = count_flops(lambda: self._loss(batch).backward()) / 2
        self.step(batch)
        return work

    def memory(self) -> tuple[float, float]:
        """Bytes that a step needs whatever the batch, and bytes a sample more; by two batches.

        On a GPU the allocator's peak; on a CPU weights, gradients, the optimiser's state and what
        is kept for the backward pass, without what a single operation uses in passing.
        """
        try:
            small, large = (self._peak(size) for size in (2, 6))
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                "the GPU's memory does not hold 6 samples: take a smaller image_size or encoder"
            ) from None
        each = max((large - small) / 4, 1.0)
        return max(small - 2 * each, 0.0), each

    def _peak(self, size: int) -> float:
        batch = self.batch(size)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.step(batch)
            return torch.cuda.max_memory_allocated() - self.before
        # A process keeps what it once had, so its size says little: count what training holds.
        held: dict[int, int] = {}

        def hold(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = self._loss(batch)
        loss.backward()
        for tensor in self.net.state_dict().values():
            hold(tensor)
        gradients = [p.grad.nbytes for p in self.net.parameters() if p.grad is not None]
        return sum(held.values()) + sum(gradients) + self.state_bytes()

    def free_memory(self) -> float:
        """Bytes that the training may take: what is free now, and what the probe holds there."""
        if self.device == "cuda":
            return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - self.before
        return psutil.virtual_memory().available + self._peak(2)

    def seconds(self, step: Callable[[dict[str, Tensor]], None], size: int, repeats: int) -> float:
        """Median time of `step` on a batch of `size`, after one that does not count."""
        batch, times = self.batch(size), []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            step(batch)
            if self.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return float(np.median(times[1:]))

    def state_bytes(self) -> int:
        """Size of the optimiser's state."""
        states = self.optimizer.state.values()
        return sum(t.nbytes for s in states for t in s.values() if isinstance(t, Tensor))


def seconds_per_stack(dataset: Dataset, at_least: float = 0.3) -> float:
    """Time that one worker needs for a stack: read, resized, augmented; on one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        dataset[(0, 0)]  # opens files, imports
        rng, n, start = np.random.default_rng(0), 0, time.perf_counter()
        while n < 4 or time.perf_counter() - start < at_least:
            dataset[(int(rng.integers(len(dataset))), n)]
            n += 1
        return (time.perf_counter() - start) / n
    finally:
        cv2.setNumThreads(threads)


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """The block may draw random numbers; afterwards all states are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of `work`, a multiplication and an addition being two."""
    # Torch's own count takes the backward pass of grouped convolutions for that of full ones.
    mapping = {torch.ops.aten.convolution_backward: _conv_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


def _conv_backward_flops(grad, x, weight, _bias, _stride, _pad, _dilation, transposed, *rest, **_):
    # As much as forward for the gradient of the input, and again for that of the weights.
    _output_padding, _groups, wanted = rest[:3]
    return conv_flop_count(x, weight, grad, transposed=transposed) * sum(wanted[:2])
