"""How far a training is, kept in one file so that a killed one goes on where it was.

Everything random in a training is a function of seed, step and process (`seed_step`,
`EpochSampler`), so no state of a generator or of the data loader need be kept: weights, optimiser
and position are all, and a resumed run ends with the same weights to the bit.
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

# What changes no weight: a run may be resumed with other values of these.
FREE = {"workers", "save_every_s"}


@dataclass
class Position:
    """How far a training is.

    Attributes:
        epoch: whole epochs done.
        batch: batches done of the epoch that is running.
        loss_sum: sum of their losses.
        best: lowest validation loss so far.
        history: a row for each whole epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """The file that holds a training: network, optimiser and position, written atomically."""

    def __init__(self, path: Path, net: nn.Module, optimizer: torch.optim.Optimizer):
        self.path, self.net, self.optimizer = Path(path), net, optimizer

    def load(self) -> Position:
        """Bring network and optimiser to where the file is, or leave them where there is none."""
        if not self.path.exists():
            return Position()
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])

    def save(self, position: Position) -> None:
        """Write the file anew; a kill meanwhile leaves the old one."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": asdict(position),
        }
        with atomic(self.path) as beside:
            torch.save(state, beside)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one batch (dropout), as a function of the run's seed, the step and process."""
    entropy = (seed % 2**32, step, rank)
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def run_key(net: nn.Module, store: Store, split: pd.DataFrame, settings: TrainSettings) -> str:
    """Hash of everything that a training depends on; a checkpoint of another key is not resumed."""
    parts = settings.model_dump_json(exclude=FREE), str(store.settings)
    return key_of(net, split, "pekit.training.fit", *parts)


def key_of(net: nn.Module, split: pd.DataFrame, module: str, *parts: str) -> str:
    """Hash of initial weights, a split, the code of the module that trains, and `parts`."""
    content = hashlib.sha256("".join(parts).encode())
    content.update(module_hash(module).encode())
    content.update(split.to_csv(index=False).encode())
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tuple(tensor.shape)} {tensor.double().sum().item()!r}".encode())
    return content.hexdigest()[:12]
