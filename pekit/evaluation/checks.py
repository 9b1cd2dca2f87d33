"""Checks of tables and vectors before they are evaluated: every error names the value or column.

Nothing is corrected here.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pekit.common.errors import UserError

Vector = np.ndarray | pd.Series


def require_columns(predictions: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse predictions without rows or without one of the columns.

    Raises:
        UserError: a column is missing, or there are no rows.
    """
    missing = [name for name in columns if name not in predictions]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(predictions)}")
    if predictions.empty:
        raise UserError("the predictions are empty: predict some studies first")


def checked(**vectors: Vector) -> list[np.ndarray]:
    """Vectors of the same rows in the same order, with one value per study or slice.

    The name says what the values are: truth and verdict (0 or 1) are returned as bool, score and
    prob (in [0,1]) as float64, study (any identifier) as numbers from 0. A suffix may tell two of
    a kind apart: score_a, score_b.

    Raises:
        UserError: Series with different indices, different lengths, no rows, or a bad value.
    """
    series = {name: a for name, a in vectors.items() if isinstance(a, pd.Series)}
    first = next(iter(series), None)
    for name, values in series.items():
        if not values.index.equals(series[first].index):
            raise UserError(
                f"{first} and {name} have other studies or another order: "
                f"reindex {name} like {first}"
            )
    lengths = {name: len(values) for name, values in vectors.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"lengths differ: {lengths}; give one value per row")
    if not min(lengths.values()):
        raise UserError("no studies to evaluate: the predictions are empty")
    kinds = {"truth": _binary, "verdict": _binary, "score": _in_unit_interval}
    kinds |= {"prob": _in_unit_interval, "study": _numbered}
    return [kinds[name.split("_")[0]](np.asarray(a), name) for name, a in vectors.items()]


def both_classes(truth: np.ndarray) -> None:
    """Refuse a truth of one class only.

    Raises:
        UserError: all values are positive, or all are negative.
    """
    if truth.all() or not truth.any():
        kind = "positive" if truth.all() else "negative"
        raise UserError(f"all {len(truth)} are {kind}: metrics need both classes")


def _binary(values: np.ndarray, name: str) -> np.ndarray:
    bad = values[~np.isin(values, (0, 1))]
    if len(bad):
        raise UserError(f"{name} has the value {bad[0]}: only 0 and 1 are allowed")
    return values.astype(bool)


def _in_unit_interval(values: np.ndarray, name: str) -> np.ndarray:
    values = values.astype(np.float64)
    bad = ~((values >= 0) & (values <= 1))  # NaN compares false
    if bad.any():
        raise UserError(f"{name} has the value {values[bad][0]}, not in [0,1]: predict again")
    return values


def _numbered(values: np.ndarray, name: str) -> np.ndarray:
    if pd.isna(values).any():
        raise UserError(f"a slice has no {name}: its StudyInstanceUID is missing")
    return np.unique(values, return_inverse=True)[1]
