"""The samples of an epoch and their order; they depend only on random seed and epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from pekit.common.errors import UserError

# (index of the sample, random seed of its augmentation)
Draw = tuple[int, int]


class EpochSampler(Sampler[Draw]):
    """Sampler of an epoch; the epoch can be resumed at any sample.

    Args:
        label: `(N,)` slice labels.
        samples_per_epoch: samples per epoch; None: N.
        positive_fraction: fraction of positives, oversampled if needed; None: the natural one.
        seed: random seed.
        rank, world: process `rank` of `world` processes takes every `world`-th sample. The
            remainder at the end of the epoch is left out.

    Attributes:
        prevalence: fraction of positives among the samples of an epoch.

    Raises:
        UserError: `positive_fraction` is given and one class is empty.
    """

    def __init__(
        self,
        label: np.ndarray,
        samples_per_epoch: int | None = None,
        positive_fraction: float | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.label, self.seed = np.asarray(label), seed
        self.epoch = self.done = 0
        self.size = samples_per_epoch or len(self.label)
        self.positive_fraction, self.rank, self.world = positive_fraction, rank, world
        classes = np.bincount(self.label, minlength=2)
        if len(self.label) == 0 or (positive_fraction and not classes.all()):
            raise UserError(
                f"the training part has {classes[1]} positive and {classes[0]} negative slices: "
                "both are needed; check the split and the crop"
            )
        self.prevalence = positive_fraction or float(classes[1] / len(self.label))

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Choose the epoch, and skip the first `done` samples of this process."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        """Samples of this process in a whole epoch."""
        return self.size // self.world

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.positive_fraction is None:
            order = _cycled(rng, np.arange(len(self.label)), self.size)
        else:
            n_positive = round(self.size * self.positive_fraction)
            positive = _cycled(rng, np.flatnonzero(self.label == 1), n_positive)
            negative = _cycled(rng, np.flatnonzero(self.label == 0), self.size - n_positive)
            order = rng.permutation(np.concatenate([positive, negative]))
        seeds = rng.integers(2**63, size=self.size)
        shared = list(zip(order.tolist(), seeds.tolist(), strict=True))
        return iter(shared[self.rank :: self.world][self.done : len(self)])


def _cycled(rng: np.random.Generator, pool: np.ndarray, size: int) -> np.ndarray:
    # Every member occurs once before any is repeated.
    rounds = -(-size // len(pool)) if size else 0
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)] or [pool[:0]])[:size]
