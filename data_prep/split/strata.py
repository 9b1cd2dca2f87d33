"""Strata of studies (exam type and sides of the emboli), and even draws across them.

Studies are put in one row, stratum after stratum and shuffled within each; a part is then taken at
even steps along the row. So its size is exact, and it gets its share, to within one study, of every
stratum and of any strata that are next to each other (all positive exams, all central ones).
Neighbouring strata differ by one side, so strata too rare for a share of their own are drawn
together with the most similar ones, without a rule for merging.
"""

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import public_uid

SIDES = {"central_pe": "central", "leftsided_pe": "left", "rightsided_pe": "right"}
LABELS = ("negative_exam_for_pe", "indeterminate", *SIDES)

# In the order of the row. "no side" contradicts RSNA's label rules, but such studies need a place.
STRATA = (
    "negative",
    "indeterminate",
    *(
        f"positive, {sides}"
        for sides in (
            "no side",
            "right",
            "left+right",
            "left",
            "central+left",
            "central+left+right",
            "central+right",
            "central",
        )
    ),
)


def exam_type(studies: pd.DataFrame) -> pd.Series:
    """`negative`, `indeterminate` or `positive` for each row, from the exam labels."""
    kind = np.where(studies["negative_exam_for_pe"] == 1, "negative", "positive")
    return pd.Series(
        np.where(studies["indeterminate"] == 1, "indeterminate", kind), index=studies.index
    )


def stratum(studies: pd.DataFrame) -> pd.Series:
    """One of STRATA for each row: the exam type, and for a positive exam the sides.

    Raises:
        UserError: a label column is missing, or a label is neither 0 nor 1.
    """
    if missing := [name for name in LABELS if name not in studies]:
        raise UserError(f"the table of studies lacks the columns {', '.join(missing)}")
    for name in LABELS:
        wrong = ~studies[name].isin([0, 1])
        if wrong.any():
            row = studies[wrong].iloc[0]
            uid = public_uid(str(row["StudyInstanceUID"]))
            raise UserError(f"study {uid}: {name} is {row[name]}, neither 0 nor 1: label it first")
    sides = pd.Series("", index=studies.index)
    for name, side in SIDES.items():
        sides += np.where(studies[name] == 1, f"+{side}", "")
    kind = exam_type(studies)
    named = "positive, " + sides.str.removeprefix("+").replace("", "no side")
    return kind.where(kind != "positive", named)


def row_of_strata(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices into `strata`, stratum after stratum in the order of STRATA, shuffled within each."""
    rank = np.array([STRATA.index(name) for name in strata], dtype=int)
    shuffled = rng.permutation(len(strata))
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def draw_evenly(row: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` elements of `row` (at most its length), at even steps from a random start."""
    if size == 0:
        return row[:0]
    return row[np.floor((np.arange(size) + rng.random()) * len(row) / size).astype(int)]
