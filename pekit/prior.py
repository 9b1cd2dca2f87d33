"""Probabilities of a network that was trained on more positives than there are.

probability = correct_prior(probability, trained_prevalence=0.4, true_prevalence=0.02)

Training on drawn slices (`positive_fraction`) shifts what the network says by a constant in the
log odds; the order of slices, and so AUROC, stays. The paper trains at natural prevalence.
"""

import numpy as np

from pekit.errors import UserError


def correct_prior(
    probability: np.ndarray | float, trained_prevalence: float, true_prevalence: float
) -> np.ndarray:
    """What `probability` is where positives are as frequent as `true_prevalence`.

    Bayes' rule with another prior: the odds are multiplied by the ratio of the two prior odds.
    It supposes that positives look alike in both places, and so do negatives.

    Args:
        probability: of PE, in [0, 1], any shape.
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
    if not ((probability >= 0) & (probability <= 1)).all():
        raise UserError("a probability is outside [0, 1]: give probabilities, not logits")
    positive = probability * (true_prevalence / trained_prevalence)
    negative = (1 - probability) * ((1 - true_prevalence) / (1 - trained_prevalence))
    return positive / (positive + negative)
