"""How fast a training runs, how much memory it takes and how long it will still take."""

import time

import psutil
import torch

GIB = 2**30


class Meter:
    """Counts batches from its making on.

    Args:
        batches_left: batches of the whole training that are still to come.
        stacks: stacks in a batch, over all processes.
        device: where the network is.
    """

    def __init__(self, batches_left: int, stacks: int, device: torch.device):
        self.left, self.stacks, self.device = batches_left, stacks, device
        self._process, self._rss = psutil.Process(), 0
        self._start, self._done = time.monotonic(), 0
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count the epoch's speed from here."""
        self._epoch_start, self._epoch_done = time.monotonic(), 0

    def count(self) -> None:
        """A batch is done."""
        self._done += 1
        self._epoch_done += 1
        self._epoch_end = time.monotonic()
        if self.device.type != "cuda":
            self._rss = max(self._rss, self._process.memory_info().rss)

    def read(self) -> dict[str, float]:
        """stacks_per_s of the epoch's batches, peak_gib so far, left_s of the whole training."""
        seconds = self._epoch_end - self._epoch_start
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if on_gpu else self._rss
        each = (time.monotonic() - self._start) / self._done  # validation included
        return {
            "stacks_per_s": self._epoch_done * self.stacks / seconds,
            "peak_gib": peak / GIB,
            "left_s": each * (self.left - self._done),
        }
