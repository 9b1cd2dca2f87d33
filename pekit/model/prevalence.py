"""Probabilities of a network that was trained on more positives than there are.

probability = correct_prevalence(probability, trained_prevalence=0.4, true_prevalence=0.02)
probability = correct_hops(probability, net.prevalence, "natural")

Training on drawn slices (`positive_fraction`) shifts what the network says by a constant in the
log odds; the order of slices, and so AUROC, stays. The paper trains at natural prevalence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pekit.common.errors import UserError


@dataclass(frozen=True)
class Prevalence:
    """Positives among the slices of a training part, as a fraction.

    Attributes:
        training: as they were drawn.
        natural: as they are.
    """

    training: float
    natural: float


def check_prevalence(target: str | float, known: Sequence[Prevalence | None]) -> str | float:
    """`target` as `correct_hops` takes it; a number may come as text.

    Raises:
        UserError: neither natural, training nor a fraction between 0 and 1; or a hop does not say
            at which prevalence it was trained.
    """
    if target not in ("natural", "training"):
        try:
            target = float(target)
        except (TypeError, ValueError):
            target = float("nan")
        if not 0 < target < 1:
            raise UserError(
                "the prevalence must be natural, training, or the fraction of slices with PE "
                "where the network is used, between 0 and 1"
            )
    if target != "training" and None in known:
        raise UserError(
            f"hop {list(known).index(None) + 1} does not say at which prevalence it was "
            "trained (an older kit saved it, or nothing has trained it): train it again, or take "
            "its probabilities as they are, PREVALENCE = training"
        )
    return target


def correct_hops(
    probability: np.ndarray, known: Sequence[Prevalence | None], target: str | float
) -> np.ndarray:
    """Slice probabilities of each hop at another prevalence than it was trained at.

    Args:
        probability: `(B, K)`, a column a hop.
        known: the prevalence that each hop was trained at.
        target: `training` leaves them; `natural` brings them to the prevalence of the training
            part; a number, as `check_prevalence` gives it, to that one.

    Returns:
        `(B, K)` float64, in which slices that differ still do.

    Raises:
        UserError: a probability outside [0, 1].
    """
    columns = np.asarray(probability, dtype=np.float64).T.copy()
    if target != "training":
        for hop, at in enumerate(known):
            true = at.natural if target == "natural" else target
            columns[hop] = correct_prevalence(columns[hop], at.training, true)
    return columns.T


def correct_prevalence(
    probability: np.ndarray | float, trained_prevalence: float, true_prevalence: float
) -> np.ndarray:
    """What `probability` is where positives are as frequent as `true_prevalence`.

    Bayes' rule: the odds are multiplied by the ratio of the prior odds at both prevalences.
    It supposes that positives look alike in both places, and so do negatives.

    Args:
        probability: of PE, in [0, 1], any shape; NaN stays.
        trained_prevalence: fraction of positives among the slices trained on (the column
            `prevalence` of the training log).
        true_prevalence: fraction of positives where the network is used (`natural_prevalence`).

    Returns:
        The corrected probabilities, in the same shape.

    Raises:
        UserError: a prevalence outside (0, 1), or a probability outside [0, 1].
    """
    for name, value in (
        ("trained_prevalence", trained_prevalence),
        ("true_prevalence", true_prevalence),
    ):
        if not 0 < value < 1:
            raise UserError(f"{name} = {value}: it must lie between 0 and 1")
    probability = np.asarray(probability)
    if ((probability < 0) | (probability > 1)).any():
        raise UserError("a probability is outside [0, 1]: give probabilities, not logits")
    positive = probability * (true_prevalence / trained_prevalence)
    negative = (1 - probability) * ((1 - true_prevalence) / (1 - trained_prevalence))
    return positive / (positive + negative)
