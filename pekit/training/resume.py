"""What a folder remembers of a training: checkpoints to resume from, and that it has ended.

Everything random in a training depends on seed, step and process only (`seed_step`,
`EpochSampler`), so the checkpoint needs no state of a generator or of the data loader: it holds
weights, optimiser and position, and a resumed training ends with the same weights to the bit.

    resume-<key>.ckpt    a training that was cut off; with `keep = best` also resume-<key>-best/
    training.json        the training that has ended: key, hash of its weights, one row per epoch

A key is made of hashes of bytes, one for each of PARTS: a training is resumed only where all are
the same, and where one differs, its name is told.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pekit.checkpoint import state_hash
from pekit.common.code_hash import module_hash
from pekit.common.files import atomic, hash_path, read_json, remove_leftovers, write_json
from pekit.common.progress import say
from pekit.dataset.store import Store

PARTS = ("settings", "data", "code", "starting weights")
ENDED = "training.json"


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
    """File with network, optimiser and position of a training, written atomically.

    Args:
        folder: the training's folder.
        key: of the training (`key_of`).
    """

    def __init__(self, folder: Path, key: str, net: nn.Module, optimizer: torch.optim.Optimizer):
        self.folder, self.key, self.net, self.optimizer = Path(folder), key, net, optimizer
        self.path = checkpoint_path(folder, key)
        self.best = self.folder / f"resume-{key}-best"

    def load(self) -> Position:
        """Restore network, optimiser and position; without a file all stay at the start."""
        if not self.path.exists():
            return Position()
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])

    def announce(self, position: Position) -> None:
        """Say where the training starts, and which trainings in the folder it cannot resume."""
        remove_leftovers(self.folder)
        if position.epoch or position.batch:
            batches = f" and {position.batch} batches" if position.batch else ""
            say(f"resuming: {position.epoch} epochs{batches} are done")
        for other in self._others():
            say(
                f"{other.name} is of a training with {_difference(other, self.key)}: it cannot be "
                "resumed here, and is kept until this training has ended"
            )

    def save(self, position: Position) -> None:
        """Replace the file; a kill meanwhile leaves the old one."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": asdict(position),
        }
        with atomic(self.path) as beside:
            torch.save(state, beside)

    def end(self, weights: Path, history: Iterable[dict[str, float]]) -> None:
        """Note that the training has ended with this file of weights; remove all checkpoints."""
        ended = {"key": self.key, "weights": hash_path(weights), "history": list(history)}
        write_json(self.folder / ENDED, ended)
        for other in self._others():
            say(f"{other.name}, of a training with {_difference(other, self.key)}, is removed")
            other.unlink()
        self.path.unlink(missing_ok=True)
        for best in self.folder.glob("resume-*-best"):
            shutil.rmtree(best)

    def _others(self) -> list[Path]:
        return sorted({*self.folder.glob("resume-*.ckpt")} - {self.path})


def checkpoint_path(folder: Path, key: str) -> Path:
    """File of the checkpoint of a training."""
    return Path(folder) / f"resume-{key}.ckpt"


@contextmanager
def telling_what_follows(folder: Path, key: str) -> Iterator[None]:
    """Say on an interrupt where the same call will go on."""
    try:
        yield
    except KeyboardInterrupt:
        saved = checkpoint_path(folder, key).exists()
        where = "from its last checkpoint" if saved else "from its start, since none was saved yet"
        say(f"interrupted: the same call goes on {where}")
        raise


def ended(folder: Path, key: str, weights: Path) -> list[dict[str, float]] | None:
    """One row per epoch of the training with this key, if it has ended in `folder`; else None.

    `weights` is the file that it made; if that was changed since, the training counts as not done.
    """
    path = Path(folder) / ENDED
    if not path.exists() or not weights.exists():
        return None
    noted = read_json(path)
    if (noted["key"], noted["weights"]) != (key, hash_path(weights)):
        return None
    say(f"this training has ended already: its result is kept (to repeat it, delete {path})")
    return noted["history"]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one batch (dropout) from the run's seed, the step and the process."""
    entropy = (seed % 2**32, step, rank)
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def key_of(net: nn.Module, store: Store, split: pd.DataFrame, module: str, *settings: str) -> str:
    """Key of a training: hashes of all that it depends on, in the order of PARTS.

    Args:
        module: the training's; it counts with all that it imports.
        settings: texts, all of which count.
    """
    data = store.content_hash() + split.to_csv(index=False)
    parts = "\n".join(settings), data, module_hash(module), state_hash(net)
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:8] for part in parts)


def _difference(other: Path, key: str) -> str:
    """In what the training of a checkpoint differs from the one with this key."""
    theirs, ours = other.stem.split("-")[1:], key.split("-")
    if len(theirs) != len(ours):
        return "another version of the kit"
    names = [name for name, a, b in zip(PARTS, theirs, ours, strict=True) if a != b]
    return "other " + " and ".join(names)
