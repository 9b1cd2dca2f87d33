"""Checkpoint of a training, from which it resumes after a kill.

Everything random in a training depends on seed, step and process only (`seed_step`,
`EpochSampler`), so the checkpoint needs no state of a generator or of the data loader: it holds
weights, optimiser and position, and a resumed training ends with the same weights to the bit.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pekit.common.code_hash import module_hash
from pekit.common.files import atomic
from pekit.dataset.store import Store
from pekit.training.settings import TrainSettings

# Settings that do not change the weights; a run may be resumed with other values.
FREE = {"workers", "save_every_s"}


@dataclass
class Position:
    """Position in a training.

    Attributes:
        epoch: whole epochs done.
        batch: batches done of the current epoch.
        loss_sum: sum of their losses.
        best: lowest validation loss so far.
        history: one row per whole epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """File with network, optimiser and position of a training, written atomically."""

    def __init__(self, path: Path, net: nn.Module, optimizer: torch.optim.Optimizer):
        self.path, self.net, self.optimizer = Path(path), net, optimizer

    def load(self) -> Position:
        """Restore network, optimiser and position; without a file all stay at the start."""
        if not self.path.exists():
            return Position()
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])

    def save(self, position: Position) -> None:
        """Replace the file; a kill meanwhile leaves the old one."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": asdict(position),
        }
        with atomic(self.path) as beside:
            torch.save(state, beside)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one batch (dropout) from the run's seed, the step and the process."""
    entropy = (seed % 2**32, step, rank)
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def run_key(net: nn.Module, store: Store, split: pd.DataFrame, settings: TrainSettings) -> str:
    """Hash of all that a training depends on; only a checkpoint of the same key is resumed."""
    parts = settings.model_dump_json(exclude=FREE), str(store.settings)
    return key_of(net, split, "pekit.training.fit", *parts)


def key_of(net: nn.Module, split: pd.DataFrame, module: str, *parts: str) -> str:
    """Hash of initial weights, split, code of the training module, and `parts`."""
    content = hashlib.sha256("".join(parts).encode())
    content.update(module_hash(module).encode())
    content.update(split.to_csv(index=False).encode())
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tuple(tensor.shape)} {tensor.double().sum().item()!r}".encode())
    return content.hexdigest()[:12]
