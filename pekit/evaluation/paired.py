"""Two models on the same studies: is the difference more than chance?

McNemar's exact test compares verdicts, DeLong's test compares study AUROCs. F1 and slice metrics
have no such test: they get a bootstrap interval over studies, resampled for both models together.
Differences are b - a: positive where b is better.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from pekit.evaluation.bootstrap import (
    CONFIDENCE,
    percentiles,
    resampled_counts,
    resampled_ranking,
)
from pekit.evaluation.checks import Vector, both_classes, checked
from pekit.evaluation.metrics import count_metrics

NO_TEST = "no test: see the interval"
_Z = norm.ppf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Difference:
    """Model b against model a on the same studies.

    Args:
        difference: measure of b - measure of a.
        low, high: 95 % interval of the difference.
        p: two-sided p value; NaN where there is no test.
        note: why a value is NaN or of little use; empty otherwise.
    """

    difference: float
    low: float
    high: float
    p: float
    note: str = ""


def mcnemar(truth: Vector, verdict_a: Vector, verdict_b: Vector) -> Difference:
    """McNemar's exact test of the share of studies with the right verdict.

    On the studies with PE only, it compares sensitivities; on those without PE, specificities. The
    interval is Agresti and Min's (half a study added to each cell of the table).

    Args:
        truth, verdict_a, verdict_b: 0 or 1 for each study, in the same order.

    Raises:
        UserError: different lengths or order, values other than 0 and 1, or no studies.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    truth, a, b = checked(truth=truth, verdict_a=verdict_a, verdict_b=verdict_b)
    n, only_a, only_b = len(truth), int((a == truth)[a != b].sum()), int((b == truth)[a != b].sum())
    # The test does not use the diagonal: studies on which both are right or both are wrong.
    p = exact_test([[0, only_a], [only_b, 0]], exact=True).pvalue
    middle = (only_b - only_a) / (n + 2)
    half = _Z * np.sqrt(only_a + only_b + 1 - (only_b - only_a) * middle) / (n + 2)
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    note = "" if only_a + only_b else "both models give every study the same verdict"
    return Difference((only_b - only_a) / n, float(low), float(high), float(p), note)


def delong(truth: Vector, score_a: Vector, score_b: Vector) -> Difference:
    """DeLong's test of two AUROCs on the same studies (DeLong et al. 1988).

    Uses midranks, in n log n (Sun and Xu 2014): a study's rank among all studies minus its rank
    within its class is the number of studies of the other class below it.

    Args:
        truth: 0 or 1 for each study.
        score_a, score_b: in [0,1] for each study, in the same order.

    Returns:
        p and the interval are NaN where the variance is 0: both scores rank the studies in the
        same way, or both perfectly.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    truth, *scores = checked(truth=truth, score_a=score_a, score_b=score_b)
    both_classes(truth)
    scores = np.stack(scores)
    m, n = int(truth.sum()), int((~truth).sum())
    whole, positive, negative = (
        rankdata(s, axis=1) for s in (scores, scores[:, truth], scores[:, ~truth])
    )
    # DeLong's structural components: for each positive study the share of negatives below it
    # (2, m), for each negative study the share of positives above it (2, n); ties count half.
    v10 = (whole[:, truth] - positive) / n
    v01 = 1 - (whole[:, ~truth] - negative) / m
    difference = float(v10[1].mean() - v10[0].mean())
    variance = sum(
        np.var(v[1] - v[0], ddof=1) / v.shape[1] if v.shape[1] > 1 else np.nan for v in (v10, v01)
    )
    if np.isnan(variance):
        return Difference(difference, np.nan, np.nan, np.nan, "undefined: one study in a class")
    if variance < 1e-18:  # rounding of equal components
        reason = "undefined: no study is ranked differently by the two models"
        return Difference(difference, np.nan, np.nan, np.nan, reason)
    error = float(np.sqrt(variance))
    p = float(2 * norm.sf(abs(difference) / error))
    return Difference(difference, difference - _Z * error, difference + _Z * error, p)


def f1_difference(
    truth: Vector, verdict_a: Vector, verdict_b: Vector, n_boot: int = 2000, seed: int = 0
) -> Difference:
    """Difference of two F1, with a bootstrap interval over studies; no p value.

    Raises:
        UserError: one class only, different lengths or order, or values other than 0 and 1.
    """
    truth, a, b = checked(truth=truth, verdict_a=verdict_a, verdict_b=verdict_b)
    both_classes(truth)
    resampled_a, resampled_b = (
        count_metrics(*resampled_counts(truth, verdict, n_boot, seed))["F1"] for verdict in (a, b)
    )
    resampled = resampled_b - resampled_a
    value = _f1(truth, b) - _f1(truth, a)
    value, low, high, note = percentiles(value, resampled[~np.isnan(resampled)])
    return Difference(value, low, high, np.nan, note or NO_TEST)


def slice_differences(
    label: Vector, prob_a: Vector, prob_b: Vector, study: Vector, n_boot: int = 2000, seed: int = 0
) -> dict[str, Difference]:
    """Differences of slice AUROC and AP, with bootstrap intervals over studies; no p value.

    DeLong's test does not apply: it assumes that the slices of a study are independent.

    Args:
        label, prob_a, prob_b: 0 or 1, and both probabilities in [0,1], of each slice.
        study: the study of each slice.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    label, *probs, cluster = checked(truth=label, prob_a=prob_a, prob_b=prob_b, study=study)
    both_classes(label)
    values, resampled = [], []
    for prob in probs:
        values.append((roc_auc_score(label, prob), average_precision_score(label, prob)))
        resampled.append(resampled_ranking(label, prob, cluster, n_boot, seed))
    found = {}
    for k, name in enumerate(("slice AUROC", "slice AP")):
        between = percentiles(values[1][k] - values[0][k], resampled[1][k] - resampled[0][k])
        found[name] = Difference(*between[:3], np.nan, between[3] or NO_TEST)
    return found


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction of the p values of one family; NaN (no test) stays NaN.

    statsmodels' multipletests gives the same values, but runs the garbage collector in each call.
    """
    ordered = p.dropna().sort_values()
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)


def _f1(truth: np.ndarray, verdict: np.ndarray) -> float:
    return float(2 * (truth & verdict).sum() / (truth.sum() + verdict.sum()))
