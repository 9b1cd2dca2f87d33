"""What a vote is chosen for: the value of each cut through the studies' order.

A cut calls some studies positive; its counts say what the choice is worth. Each value is made of
whole numbers by one division at most, so that equal values are equal as floats: ties are ties, and
the rule for them (`pekit.voting.best_vote`) holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pekit.errors import UserError


@dataclass(frozen=True)
class Cuts:
    """Counts of each cut, and the studies' totals of each class.

    Args:
        tp, fp: studies with and without PE that each cut calls positive.
        positives, negatives: all studies with and without PE.
    """

    tp: np.ndarray
    fp: np.ndarray
    positives: int
    negatives: int

    @property
    def tn(self) -> np.ndarray:
        """Studies without PE that each cut calls negative."""
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
    """Studies found where specificity >= `at`, else -inf; of equal ones the higher specificity."""
    allowed = cuts.tn / cuts.negatives >= at
    return np.where(allowed, cuts.tp * (cuts.negatives + 1.0) + cuts.tn, -np.inf)


def specificity_at_sensitivity(cuts: Cuts, at: float) -> np.ndarray:
    """Studies spared where sensitivity >= `at`, else -inf; of equal ones the higher sensitivity."""
    allowed = cuts.tp / cuts.positives >= at
    return np.where(allowed, cuts.tn * (cuts.positives + 1.0) + cuts.tp, -np.inf)


FREE = {"f1": f1, "youden": youden}
BOUND = {
    "sensitivity_at_specificity": sensitivity_at_specificity,
    "specificity_at_sensitivity": specificity_at_sensitivity,
}
CRITERIA = (*FREE, *BOUND)


def named_criterion(name: str, at: float | None = None) -> Criterion:
    """The criterion of a name.

    Args:
        name: one of `CRITERIA`.
        at: the specificity or sensitivity that must be kept, in [0,1], where the name has one.

    Raises:
        UserError: an unknown name, `at` missing or out of [0,1], or given where nothing is kept.
    """
    if name not in CRITERIA:
        raise UserError(f"criterion {name!r} is unknown: choose {' or '.join(CRITERIA)}")
    if name in FREE:
        if at is not None:
            raise UserError(f"criterion {name} keeps nothing: leave at={at} out")
        return FREE[name]
    if at is None or not 0 <= at <= 1:
        raise UserError(f"criterion {name} needs what must be kept, in [0,1]: at={at}")
    return lambda cuts: BOUND[name](cuts, at)
