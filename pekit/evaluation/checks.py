"""Vectors of truth, verdict and score, one value a study or slice, checked before they are judged.

Nothing is put right here: a value that cannot be judged is a `UserError` that names it.
"""

import numpy as np
import pandas as pd

from pekit.common.errors import UserError

Vector = np.ndarray | pd.Series


def aligned(**vectors: Vector) -> list[np.ndarray]:
    """The values of each vector, known to be of the same rows in the same order.

    Raises:
        UserError: Series of different indices, different lengths, or no rows.
    """
    series = {name: a for name, a in vectors.items() if isinstance(a, pd.Series)}
    first = next(iter(series), None)
    for name, values in series.items():
        if not values.index.equals(series[first].index):
            raise UserError(
                f"{first} and {name} are of other studies or in another order: "
                f"reindex {name} like {first}"
            )
    lengths = {name: len(values) for name, values in vectors.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"lengths differ: {lengths}; give one value a row")
    if not min(lengths.values()):
        raise UserError("no studies to judge: the predictions are empty")
    return [np.asarray(values) for values in vectors.values()]


def binary(values: np.ndarray, name: str) -> np.ndarray:
    """The values as bool; UserError unless each is 0 or 1."""
    if not np.isin(values, (0, 1)).all():
        bad = values[~np.isin(values, (0, 1))][0]
        raise UserError(f"{name} has the value {bad}: only 0 and 1 can be judged")
    return values.astype(bool)


def both_classes(truth: np.ndarray) -> np.ndarray:
    """The truth itself; UserError where all of it is one class."""
    if truth.all() or not truth.any():
        kind = "positive" if truth.all() else "negative"
        raise UserError(f"all {len(truth)} are {kind}: metrics need both classes")
    return truth


def in_unit_interval(score: np.ndarray) -> np.ndarray:
    """The scores in float64; UserError where one is NaN or outside [0,1]."""
    score = score.astype(np.float64)
    bad = ~((score >= 0) & (score <= 1))  # NaN compares false
    if bad.any():
        raise UserError(f"score {score[bad][0]} is not in [0,1]: predict these studies again")
    return score
