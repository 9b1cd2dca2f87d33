"""The nine exam labels that study heads predict: P(PE), and AUROC by label."""

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.evaluation.metrics import COLUMNS, ranking_metrics

# The exam labels that exclude PE.
NO_PE = ("negative_exam_for_pe", "indeterminate")


def pe_probability(exams: pd.DataFrame) -> pd.Series:
    """P(PE) of each study: that it is neither negative nor indeterminate.

    The two labels exclude each other, but a head gives them as two separate probabilities: their
    product keeps the result in [0, 1], and studies that are surely negative apart.

    Args:
        exams: StudyInstanceUID and at least the labels of `NO_PE`.

    Raises:
        UserError: a label is missing.
    """
    missing = [name for name in NO_PE if name not in exams]
    if missing:
        raise UserError(f"P(PE) needs the exam labels {', '.join(missing)}")
    neither = (1 - exams[list(NO_PE)]).prod(axis=1)
    return pd.Series(neither.to_numpy(), pd.Index(exams["StudyInstanceUID"]), name="pe")


def exam_metrics(
    truth: pd.DataFrame, exams: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUROC of each exam label, with its 95 % interval over resampled studies.

    Args:
        truth: StudyInstanceUID and the labels, 0 or 1, of at least the studies of `exams`.
        exams: of `predict_head`.

    Returns:
        A row a label: positives (studies that have it), value, low, high, note. A label that
        none or all of the studies have is NaN, and the note says so.

    Raises:
        UserError: a study without a truth, or a label that is not 0 or 1.
    """
    labels = [name for name in exams if name != "StudyInstanceUID"]
    known = truth.set_index("StudyInstanceUID")
    absent = sorted(set(exams["StudyInstanceUID"]) - set(known.index))
    if absent:
        raise UserError(f"{len(absent)} studies have no exam labels, the first is {absent[0]}")
    known = known.loc[exams["StudyInstanceUID"], labels]
    rows = {}
    for label in labels:
        positives, n = int(known[label].sum()), len(known)
        if positives in (0, n):
            row = (np.nan, np.nan, np.nan, f"{'no' if positives == 0 else 'every'} study has it")
        else:
            score = exams[label].to_numpy(np.float64)
            table = ranking_metrics(known[label].to_numpy(), score, n_boot=n_boot, seed=seed)
            row = tuple(table.loc["AUROC", list(COLUMNS)])
        rows[label] = (positives, *row)
    columns = ["positives", *COLUMNS]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("label")
