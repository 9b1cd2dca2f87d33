"""Equations 1 and 2: the vote of a study's slices, and the exact search for the best vote.

    equation 1   a study is positive if at least mu of its slices have a probability above delta
    equation 2   mu and delta are those that maximise F1 (or another criterion) over the studies

Equation 1 is the same as: the study's mu-th largest probability, its score, is above delta. So for
each mu a study has one score, each delta is a cut in the order of the scores, and one sort per mu
tries all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pekit.common.errors import UserError, nearest


@dataclass(frozen=True)
class Vote:
    """The two thresholds of equation 1.

    Args:
        mu: number of slices that must be above `delta`, at least 1.
        delta: probability that a slice must exceed, in [0,1].

    Raises:
        UserError: a threshold out of its range.
    """

    mu: int
    delta: float

    def __post_init__(self):
        if not isinstance(self.mu, int | np.integer) or self.mu < 1:
            raise UserError(f"mu={self.mu}: the vote needs a whole number of slices, at least 1")
        if not 0 <= self.delta <= 1:
            raise UserError(f"delta={self.delta}: the vote needs a probability in [0,1]")


def vote_study(probs: np.ndarray, vote: Vote) -> bool:
    """Equation 1: whether at least mu of the slice probabilities `(Z,)` are above delta.

    Raises:
        UserError: no slices, or a probability that is NaN or outside [0,1].
    """
    # In float64: NumPy would round delta to float32, possibly past a close probability.
    values, _ = _checked({"given": probs})
    return bool(np.count_nonzero(values > vote.delta) >= vote.mu)


def study_scores(probs: Mapping[str, np.ndarray], mu: int) -> pd.Series:
    """The mu-th largest slice probability of each study, 0 for a study of fewer than mu slices.

    `study_scores(probs, vote.mu) > vote.delta` is the vote of equation 1.

    Args:
        probs: slice probabilities `(Z,)` of each study.
        mu: as in `Vote`.

    Returns:
        Scores in [0,1] by StudyInstanceUID, in the order of `probs`.

    Raises:
        UserError: no studies, a bad probability (study named), or mu below 1.
    """
    mu = Vote(mu, 0.0).mu
    values, lengths = _checked(probs)
    ranked = _ranked(values, lengths, max(mu, int(lengths.max())))
    index = pd.Index(list(probs), name="StudyInstanceUID")
    return pd.Series(ranked[mu - 1].copy(), index=index, name="score")


def study_verdicts(probs: Mapping[str, np.ndarray], vote: Vote) -> pd.Series:
    """The vote of equation 1 for each study: bool by StudyInstanceUID, in the order of `probs`."""
    return (study_scores(probs, vote.mu) > vote.delta).rename("verdict")


def best_vote(
    probs: Mapping[str, np.ndarray],
    truth: Mapping[str, bool] | pd.Series,
    criterion: str = "f1",
    max_mu: int | None = None,
    at: float | None = None,
) -> Vote:
    """Equation 2: the vote that maximises a criterion over the studies, found exactly.

    Every delta between two neighbouring scores gives the same verdicts, so delta is the middle of
    that gap. Of several best votes, the smallest mu wins, because the shortest clot can pass it;
    then the widest gap, because new scores are least likely to cross it; then the largest delta.

    Args:
        probs: slice probabilities `(Z,)` of each study.
        truth: whether each study has PE, for the same studies in any order.
        criterion: one of `CRITERIA`: "f1" (the paper's), "youden" (sensitivity + specificity
            - 1), "sensitivity_at_specificity" or "specificity_at_sensitivity".
        max_mu: largest mu to try; the longest study's number of slices by default.
        at: the specificity or sensitivity that the last two must reach on these studies.

    Raises:
        UserError: no studies, a bad probability (study named), other studies in `truth`, one
            class only, a criterion that is unknown or lacks `at`, or an `at` that no vote reaches.
    """
    worth = named_criterion(criterion, at)
    values, lengths = _checked(probs)
    positive = _matching_truth(probs, truth)
    longest = int(lengths.max())
    depth = longest if max_mu is None else min(Vote(max_mu, 0.0).mu, longest)

    best = (-np.inf, 0.0, 0)
    for mu, scores in enumerate(_ranked(values, lengths, longest)[:depth], start=1):
        value, delta = _best_cut(scores, positive, worth)
        if value > best[0]:
            best = (value, delta, mu)
    if best[2] == 0:
        raise UserError(
            f"no vote reaches a sensitivity of {at}: some studies with PE have no slice above 0: "
            "lower AT"
        )
    return Vote(mu=best[2], delta=best[1])


@dataclass(frozen=True)
class Cuts:
    """Counts of studies for each cut in the order of the scores, and the totals of both classes.

    Args:
        tp, fp: studies with and without PE above each cut (positive verdicts).
        positives, negatives: all studies with and without PE.
    """

    tp: np.ndarray
    fp: np.ndarray
    positives: int
    negatives: int

    @property
    def tn(self) -> np.ndarray:
        """Studies without PE below each cut (negative verdicts)."""
        return self.negatives - self.fp


Criterion = Callable[[Cuts], np.ndarray]


def f1(cuts: Cuts) -> np.ndarray:
    """F1, the paper's criterion (equation 2)."""
    return 2 * cuts.tp / (cuts.tp + cuts.fp + cuts.positives)


def youden(cuts: Cuts) -> np.ndarray:
    """Sensitivity + specificity - 1."""
    gain = cuts.tp * cuts.negatives - cuts.fp * cuts.positives
    return gain / (cuts.positives * cuts.negatives)


def sensitivity_at_specificity(cuts: Cuts, at: float) -> np.ndarray:
    """Rank by sensitivity where specificity >= `at`, else -inf; ties by specificity."""
    allowed = cuts.tn / cuts.negatives >= at
    # In counts: one more true positive is worth more than all true negatives.
    return np.where(allowed, cuts.tp * (cuts.negatives + 1.0) + cuts.tn, -np.inf)


def specificity_at_sensitivity(cuts: Cuts, at: float) -> np.ndarray:
    """Rank by specificity where sensitivity >= `at`, else -inf; ties by sensitivity."""
    allowed = cuts.tp / cuts.positives >= at
    return np.where(allowed, cuts.tn * (cuts.positives + 1.0) + cuts.tp, -np.inf)


FREE = {"f1": f1, "youden": youden}
BOUND = {
    "sensitivity_at_specificity": sensitivity_at_specificity,
    "specificity_at_sensitivity": specificity_at_sensitivity,
}
CRITERIA = (*FREE, *BOUND)


def named_criterion(name: str, at: float | None = None) -> Criterion:
    """The criterion with this name.

    Args:
        name: one of `CRITERIA`.
        at: the specificity or sensitivity to reach, in [0,1]; only for the names with "_at_".

    Raises:
        UserError: an unknown name, `at` missing or outside [0,1], or given where it has no meaning.
    """
    if name not in CRITERIA:
        raise UserError(f"no criterion {name!r}: {nearest(name, CRITERIA)}")
    if name in FREE:
        if at is not None:
            raise UserError(f"criterion {name} has no target: leave at={at} out")
        return FREE[name]
    if at is None or not 0 <= at <= 1:
        target = name.split("_at_")[1]
        raise UserError(f"criterion {name} needs a target {target} in [0,1], got {at}: set AT")
    return lambda cuts: BOUND[name](cuts, at)


def _best_cut(scores: np.ndarray, positive: np.ndarray, worth: Criterion) -> tuple[float, float]:
    """Best value of the criterion and its delta, for one score per study.

    Cut k gives the k highest scores a positive verdict.
    """
    order = np.argsort(-scores)
    # Delta lies in [0,1]: 1 and 0 are the outer neighbours of the first and the last score.
    bounds = np.concatenate([[1.0], scores[order], [0.0]])
    upper, lower = bounds[:-1], bounds[1:]
    gaps = upper - lower
    tp = np.concatenate([[0], np.cumsum(positive[order])])
    cuts = Cuts(tp, np.arange(len(tp)) - tp, int(tp[-1]), len(positive) - int(tp[-1]))
    values = worth(cuts)
    values[1:][gaps[1:] <= 0] = -np.inf  # no delta separates equal scores
    best = np.flatnonzero(values == values.max())
    k = best[np.argmax(gaps[best])]  # the first of equal gaps has the largest delta
    middle = lower[k] + gaps[k] / 2
    # Between adjacent floats the middle rounds to an end; only the lower end separates them.
    delta = middle if k == 0 or middle < upper[k] else lower[k]
    return float(values[k]), float(delta)


def _checked(probs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All probabilities in one float64 array, and the number of slices of each study."""
    if not len(probs):
        raise UserError("no studies to vote on: the predictions are empty")
    arrays = [np.asarray(values, dtype=np.float64) for values in probs.values()]
    for study, values in zip(probs, arrays, strict=True):
        if values.ndim != 1 or not len(values):
            raise UserError(
                f"study {study}: expected probabilities of shape (Z,), Z >= 1, got {values.shape}"
            )
    joined = np.concatenate(arrays)
    lengths = np.array([len(values) for values in arrays])
    bad = ~((joined >= 0) & (joined <= 1))  # NaN compares false
    if bad.any():
        first = int(np.argmax(bad))
        study = list(probs)[int(np.searchsorted(np.cumsum(lengths), first, side="right"))]
        raise UserError(
            f"study {study}: slice probability {joined[first]} is not in [0,1]; "
            "predict this study again"
        )
    return joined, lengths


def _ranked(values: np.ndarray, lengths: np.ndarray, depth: int) -> np.ndarray:
    """Probabilities by rank, `(depth, studies)`: the largest of each study first, 0 as padding."""
    table = np.zeros((len(lengths), depth))
    table[np.arange(depth) < lengths[:, None]] = values
    table.sort(axis=1)
    return np.ascontiguousarray(table[:, ::-1].T)


def _matching_truth(
    probs: Mapping[str, np.ndarray], truth: Mapping[str, bool] | pd.Series
) -> np.ndarray:
    """Truth as bool in the order of `probs`."""
    labels = dict(truth.items())
    differing = sorted(set(labels) ^ set(probs), key=str)
    if differing or len(labels) != len(truth):
        raise UserError(
            f"predictions and truth have other studies (first difference: {differing[:1]}): give "
            "both for the same studies, each once"
        )
    bad = [study for study, label in labels.items() if label not in (0, 1)]
    if bad:
        raise UserError(f"study {bad[0]}: truth {labels[bad[0]]!r} is neither 0 nor 1")
    positive = np.array([bool(labels[study]) for study in probs])
    if positive.all() or not positive.any():
        kind = "positive" if positive.all() else "negative"
        raise UserError(
            f"all {len(positive)} studies are {kind}: choosing a vote needs both classes"
        )
    return positive
