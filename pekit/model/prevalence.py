"""Correct the probabilities of a network trained at another prevalence than the natural one.

probability = correct_prevalence(probability, trained_prevalence=0.4, true_prevalence=0.02)
probability = correct_hops(probability, net.prevalence, "natural")

Sampling more positives for training (`positive_fraction`) shifts the log odds by a constant. The
order of slices, and so AUROC, does not change. The paper trains at natural prevalence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pekit.common.errors import UserError


@dataclass(frozen=True)
class Prevalence:
    """Fraction of positives among the slices of a training part.

    Attributes:
        training: among the sampled slices.
        natural: among all slices.
    """

    training: float
    natural: float


def check_prevalence(target: str | float, known: Sequence[Prevalence | None]) -> str | float:
    """Check `target` and return it as `correct_hops` takes it; a number may come as text.

    Raises:
        UserError: neither natural, training nor a fraction between 0 and 1; or the prevalence
            that a hop was trained at is unknown.
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
            "trained (an older kit saved it, or it is untrained): train it again, or set "
            "PREVALENCE = training to use its probabilities uncorrected"
        )
    return target


def correct_hops(
    probability: np.ndarray, known: Sequence[Prevalence | None], target: str | float
) -> np.ndarray:
    """Correct the slice probabilities of each hop to another prevalence.

    Args:
        probability: `(B, K)`, one column per hop.
        known: the prevalence that each hop was trained at.
        target: `training` changes nothing; `natural` corrects to the natural prevalence of the
            training part; a number, as `check_prevalence` returns it, to that prevalence.

    Returns:
        `(B, K)` float64, so that slices with different probabilities stay different.

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
    """Correct `probability` from one prevalence to another.

    Bayes' rule: the odds are multiplied by the ratio of the prior odds. It assumes that positives
    look alike at both prevalences, and so do negatives.

    Args:
        probability: of PE, in [0, 1], any shape; NaN stays NaN.
        trained_prevalence: fraction of positives among the slices used for training (the
            column `prevalence` of the training log).
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
