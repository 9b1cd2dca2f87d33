"""95 % intervals: Wilson's for proportions, the bootstrap over studies for all else.

A `Value` is (value, low, high, note). Slices of one study are not independent, so studies are
resampled with replacement, each with all of its slices. AUROC and AP are resampled as histograms
of the scores, so that the cost does not depend on the number of slices.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest

from pekit.common.errors import UserError

Value = tuple[float, float, float, str]
CONFIDENCE = 0.95
# Bins of the score histograms. With at most as many distinct scores the bootstrap is exact; with
# more, scores share bins of equal mass, which moves the ends of an interval by less than 0.001.
BINS = 1024
_BLOCK = 250  # resamples at a time, to bound memory


def proportion(hits: int, of: int, undefined: str) -> Value:
    """hits / of with Wilson's interval; NaN with the note "undefined: ..." if `of` is 0."""
    if of == 0:
        return np.nan, np.nan, np.nan, f"undefined: {undefined}"
    wilson = binomtest(int(hits), int(of)).proportion_ci(CONFIDENCE, method="wilson")
    return hits / of, wilson.low, wilson.high, ""


def percentiles(value: float, resampled: np.ndarray) -> Value:
    """A value with the 95 % percentile interval of its resamples.

    Raises:
        UserError: no resamples.
    """
    if not len(resampled):
        raise UserError("no resample of the studies has both classes: raise n_boot")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # A perfect metric is perfect in every resample: its interval says nothing about new studies.
    note = "every resample gives the same value" if low == high else ""
    return float(value), float(low), float(high), note


def draws(n: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """How often a bootstrap resample holds each of n studies, in blocks `(resamples, n)`.

    Raises:
        UserError: `n_boot` below 1.
    """
    if n_boot < 1:
        raise UserError(f"n_boot={n_boot}: an interval needs resamples, 2000 are usual")
    rng = np.random.default_rng(seed)
    for start in range(0, n_boot, _BLOCK):
        rows = min(_BLOCK, n_boot - start)
        drawn = rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def resampled_sums(table: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Column sums `(resamples, columns)` of a table `(studies, columns)` in each resample."""
    return np.concatenate([weights @ table for weights in draws(len(table), n_boot, seed)])


def resampled_counts(truth: np.ndarray, verdict: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Counts TN, FP, FN, TP `(4, resamples)` of each resample of the studies."""
    return resampled_sums(cells(truth, verdict), n_boot, seed).T


def cells(truth: np.ndarray, verdict: np.ndarray) -> np.ndarray:
    """The cell of the confusion table of each study: `(studies, 4)`, 1 for TN, FP, FN or TP."""
    of_study = [~truth & ~verdict, ~truth & verdict, truth & ~verdict, truth & verdict]
    return np.stack(of_study, axis=1).astype(np.float64)


def resampled_ranking(
    truth: np.ndarray,
    score: np.ndarray,
    cluster: np.ndarray,
    n_boot: int,
    seed: int,
    weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AP of each resample of the studies that has both classes.

    Args:
        truth, score: values `(rows,)`, bool and in [0,1].
        cluster: number of each row's study, 0 to n - 1.
        weight: weight of each row, at least 0; 1 by default.
    """
    weight = np.ones(len(truth)) if weight is None else weight
    bins, n_bins = _score_bins(score, truth * weight, ~truth * weight)
    n_clusters = int(cluster.max()) + 1
    cells = cluster * n_bins + bins
    histograms = [
        np.bincount(cells, of_class * weight, n_clusters * n_bins).reshape(-1, n_bins)
        for of_class in (truth, ~truth)
    ]
    auroc, ap = [], []
    for drawn in draws(n_clusters, n_boot, seed):
        # Highest scores first, so that a running sum counts the rows above a threshold.
        pos, neg = ((drawn @ histogram)[:, ::-1] for histogram in histograms)
        n_pos, n_neg = pos.sum(axis=1), neg.sum(axis=1)
        both = (n_pos > 0) & (n_neg > 0)
        pos, neg, n_pos, n_neg = pos[both], neg[both], n_pos[both], n_neg[both]
        tp, fp = np.cumsum(pos, axis=1), np.cumsum(neg, axis=1)
        below = n_neg[:, None] - fp + neg / 2  # ties count half
        auroc.append((pos * below).sum(axis=1) / (n_pos * n_neg))
        above = tp + fp
        precision = np.divide(tp, above, out=np.zeros_like(tp), where=above > 0)
        ap.append((pos * precision).sum(axis=1) / n_pos)
    return np.concatenate(auroc), np.concatenate(ap)


def _score_bins(score: np.ndarray, *weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Bin of each score, in increasing order of score, and the number of bins: at most BINS."""
    distinct, rank = np.unique(score, return_inverse=True)
    if len(distinct) <= BINS:
        return rank, len(distinct)
    # Bins of equal mass, with the same weight for both classes: positive slices are rare.
    mass = sum(
        np.bincount(rank, of_class, len(distinct)) / of_class.sum() / 2 for of_class in weights
    )
    bins = ((np.cumsum(mass) - mass / 2) * BINS).astype(np.int64).clip(0, BINS - 1)
    return bins[rank], BINS
