"""Calibration of slice probabilities: Brier score, ECE, NLL, reliability curve, temperature.

Study scores are not calibrated: a study score is the mu-th largest probability of its slices, not
the network's probability that the study has PE.

Slices outside the crop box have probability 0 by rule, not from the network: the temperature is not
fitted on them and leaves them at 0. All metrics count them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, log_loss

from pekit.evaluation.bootstrap import CONFIDENCE, percentiles, resampled_sums
from pekit.evaluation.checks import Vector, both_classes, checked
from pekit.evaluation.metrics import metric_rows

BINS = 10
TEMPERATURES = (0.05, 20.0)  # range of the search
# The resolution of float32 below 1: closer values round to 1, where the logit is infinite.
_CLIP = 2.0**-24


@dataclass(frozen=True)
class Temperature:
    """T of p' = sigmoid(logit(p) / T): above 1 if the network is overconfident, else below 1.

    Args:
        value: T, within `TEMPERATURES`.
        note: says if T is an end of that range; empty otherwise.
    """

    value: float
    note: str = ""


def fit_temperature(truth: Vector, prob: Vector) -> Temperature:
    """The temperature with the least negative log likelihood on slices inside the crop box.

    Args:
        truth: 0 or 1 for each slice.
        prob: probability of PE, in [0,1]; slices at exactly 0 are outside the crop box, left out.

    Raises:
        UserError: one class only inside the crop box, different lengths or order, or bad values.
    """
    truth, prob = checked(truth=truth, prob=prob)
    inside = prob > 0
    truth, logits = truth[inside], _logits(prob[inside])
    both_classes(truth)
    sign = np.where(truth, -1.0, 1.0)

    def loss(log_t: float) -> float:
        return float(np.logaddexp(0, sign * logits / np.exp(log_t)).mean())

    ends = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=tuple(ends), method="bounded", options={"xatol": 1e-6})
    at_end = np.abs(found.x - ends).min() < 1e-3
    return Temperature(float(np.exp(found.x)), "at the end of the search range" if at_end else "")


def apply_temperature(prob: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit(p) / T) in float64 of probabilities in [0,1]; 0 (outside the box) stays 0."""
    (prob,) = checked(prob=prob)
    return np.where(prob > 0, expit(_logits(prob) / temperature), 0.0)


def calibration_metrics(
    truth: Vector, prob: Vector, study: Vector, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Brier score, ECE and negative log likelihood (NLL, nats) with 95 % intervals.

    ECE (expected calibration error) puts probabilities in 10 bins of equal width, and averages the
    gap between mean probability and share of positive slices over the slices. Resampling adds
    noise to every gap, so the interval of ECE is biased upwards. NLL clips probabilities at 2^-24
    from 0 and 1, the resolution of float32. Intervals are bootstrap intervals over studies.

    Args:
        truth, prob: 0 or 1, and probability in [0,1], of each slice.
        study: the study of each slice.

    Returns:
        Rows Brier, ECE, NLL; columns value, low, high, note.

    Raises:
        UserError: one class only, different lengths or order, or bad values.
    """
    truth, prob, cluster = checked(truth=truth, prob=prob, study=study)
    both_classes(truth)
    clipped = prob.clip(_CLIP, 1 - _CLIP)
    losses = (prob - truth) ** 2, -np.log(np.where(truth, clipped, 1 - clipped))
    n = np.bincount(cluster)
    brier, nll = (np.bincount(cluster, loss) for loss in losses)
    gaps = _by_study_and_bin(cluster, prob, prob - truth)
    sums = resampled_sums(np.column_stack([n, brier, nll, gaps]), n_boot, seed)
    # Mean gap of a bin times its share of the slices = sum of its gaps / number of all slices.
    ece = np.abs(sums[:, 3:]).sum(axis=1)
    value = float(np.abs(gaps.sum(axis=0)).sum() / n.sum())
    return metric_rows(
        {
            "Brier": percentiles(brier_score_loss(truth, prob), sums[:, 1] / sums[:, 0]),
            "ECE": percentiles(value, ece / sums[:, 0]),
            "NLL": percentiles(log_loss(truth, clipped), sums[:, 2] / sums[:, 0]),
        }
    )


def reliability(
    truth: Vector, prob: Vector, study: Vector, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The reliability curve: the share of slices that show PE, by predicted probability.

    Args:
        truth, prob, study: as in `calibration_metrics`.

    Returns:
        One row per bin of equal width: bin_low, bin_high, slices, predicted (mean probability),
        value (share with PE), low, high (95 % bootstrap interval over studies), note. Empty bins
        are NaN.

    Raises:
        UserError: as `calibration_metrics`.
    """
    truth, prob, cluster = checked(truth=truth, prob=prob, study=study)
    both_classes(truth)
    ones, hits, sums = (
        _by_study_and_bin(cluster, prob, weight) for weight in (np.ones(len(prob)), truth, prob)
    )
    n = ones.sum(axis=0)
    drawn = resampled_sums(np.column_stack([ones, hits]), n_boot, seed)
    tail = (1 - CONFIDENCE) / 2
    rows = []
    for k in range(BINS):
        row = {"bin_low": k / BINS, "bin_high": (k + 1) / BINS, "slices": int(n[k])}
        row |= dict.fromkeys(("predicted", "value", "low", "high"), np.nan)
        row["note"] = "" if n[k] else "no slice"
        if n[k]:
            any_drawn = drawn[:, k] > 0
            shares = drawn[any_drawn, BINS + k] / drawn[any_drawn, k]
            row["predicted"] = sums[:, k].sum() / n[k]
            row["value"] = hits[:, k].sum() / n[k]
            row["low"], row["high"] = np.quantile(shares, [tail, 1 - tail])
        rows.append(row)
    return pd.DataFrame(rows)


def _logits(prob: np.ndarray) -> np.ndarray:
    return logit(prob.clip(_CLIP**2, 1 - _CLIP))  # float32 is finer near 0 than near 1


def _by_study_and_bin(cluster: np.ndarray, prob: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sums of `weight` by study and bin of the probability, `(studies, BINS)`."""
    bins = (prob * BINS).astype(int).clip(max=BINS - 1)
    n = int(cluster.max()) + 1
    return np.bincount(cluster * BINS + bins, weight, n * BINS).reshape(n, BINS)
