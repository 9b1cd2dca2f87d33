"""One arm of an ablation: metrics of its seeds on the same studies, and of their resamples."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pekit.evaluation.bootstrap import Value, cells, draws, percentiles
from pekit.evaluation.metrics import SUMMARY, count_metrics


@dataclass(frozen=True, eq=False)
class Arm:
    """One row of a table by one protocol: the verdicts of all seeds, and metrics over resamples.

    Metrics are those of `pekit.evaluation.metrics.SUMMARY`, in that order.

    Args:
        truth: `(studies,)` bool.
        verdict, score: `(seeds, studies)` bool, and in [0,1].
        n_boot, seed: bootstrap resamples and their random seed.
    """

    truth: np.ndarray
    verdict: np.ndarray
    score: np.ndarray
    n_boot: int
    seed: int

    @cached_property
    def by_seed(self) -> np.ndarray:
        """Metrics `(metrics, seeds)` on all studies."""
        return self._metrics(np.ones((1, len(self.truth))))[0]

    @cached_property
    def resampled(self) -> np.ndarray:
        """Metrics `(1 + n_boot, metrics)`, mean over seeds; the first row is not resampled."""
        studies, seeds = (
            np.concatenate([np.ones((1, n)), *draws(n, self.n_boot, self.seed + k)])
            for k, n in enumerate((len(self.truth), len(self.score)))
        )
        # A seed that a resample does not hold must not count, even if its metric is undefined.
        seeds = seeds[:, None]
        weighted = np.where(seeds > 0, self._metrics(studies) * seeds, 0)
        return weighted.sum(axis=2) / len(self.score)

    def _metrics(self, weights: np.ndarray) -> np.ndarray:
        """Metrics `(resamples, metrics, seeds)` for weights `(resamples, studies)`."""
        runs = zip(self.verdict, self.score, strict=True)
        return np.stack([_metrics(self.truth, *run, weights) for run in runs], axis=2)


def interval(values: np.ndarray) -> Value:
    """The first value, and the interval of the others without undefined ones."""
    if np.isnan(values[0]):
        return np.nan, np.nan, np.nan, "undefined: no verdict of this kind, in one seed at least"
    return percentiles(values[0], values[1:][~np.isnan(values[1:])])


def _metrics(
    truth: np.ndarray, verdict: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Metrics `(resamples, metrics)` of one seed; NaN where undefined."""
    counts = (weights @ cells(truth, verdict)).T
    above = score[truth][:, None] - score[~truth][None]
    wins = (above > 0) + 0.5 * (above == 0)
    pairs = ((weights[:, truth] @ wins) * weights[:, ~truth]).sum(axis=1)
    with np.errstate(invalid="ignore"):
        auroc = pairs / (weights[:, truth].sum(axis=1) * weights[:, ~truth].sum(axis=1))
    found = count_metrics(*counts) | {"AUROC": auroc}
    return np.stack([found[name] for name in SUMMARY], axis=1)
