"""The nine exam labels that study heads predict: P(PE) beside the vote, AUROC of each label."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.evaluation.evaluate import EvaluationSettings, by_protocol
from pekit.evaluation.metrics import COLUMNS, ranking_metrics
from pekit.evaluation.predictions import cohort, probs_by_study
from pekit.evaluation.tables import study_tables

# The exam labels that exclude PE.
NO_PE = ("negative_exam_for_pe", "indeterminate")


def pe_probability(exams: pd.DataFrame) -> pd.Series:
    """P(PE) of each study: the probability that it is neither negative nor indeterminate.

    The two labels exclude each other, but a head predicts them as two separate probabilities, whose
    sum can exceed 1. P(PE) is therefore the product of 1 - p of both, which stays in [0,1].

    Args:
        exams: StudyInstanceUID and at least the labels of `NO_PE`.

    Raises:
        UserError: a label is missing.
    """
    missing = [name for name in NO_PE if name not in exams]
    if missing:
        raise UserError(f"P(PE) needs the exam labels {', '.join(missing)}: predict them too")
    neither = (1 - exams[list(NO_PE)]).prod(axis=1)
    return pd.Series(neither.to_numpy(), pd.Index(exams["StudyInstanceUID"]), name="pe")


def heads_beside_vote(
    slices: pd.DataFrame, pe: Mapping[str, pd.Series], settings: EvaluationSettings
) -> dict[str, pd.DataFrame]:
    """The vote and each study head by both protocols: tables of `study_tables`.

    The score of a head is P(PE), with one threshold; that of the vote is the mu-th largest
    probability. Thresholds of all are chosen on the same studies; where `choose_on` is `report_on`,
    the held-out protocol chooses them on the other half.

    Args:
        slices: one row per slice of the studies to choose on and to report: StudyInstanceUID, z,
            part, pe_present_on_image, and the network's probability `frozen`
            (`pekit.inference.study_head.predict_head`).
        pe: by head, P(PE) of these studies (`pe_probability`).
        settings: parts, criterion, resamples.

    Returns:
        Tables thresholds, study_metrics, optimism, summary, confusion, verdicts.

    Raises:
        UserError: as `pekit.evaluation.evaluate.by_protocol`.
    """
    probs = {"vote": probs_by_study(slices, "frozen")}
    probs |= {head: {study: np.array([p]) for study, p in of.items()} for head, of in pe.items()}
    evaluated = by_protocol(probs, cohort(slices), settings)
    return study_tables(evaluated, settings.n_boot, settings.seed)


def exam_metrics(
    truth: pd.DataFrame, exams: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUROC of each exam label, with its 95 % bootstrap interval over studies.

    Args:
        truth: StudyInstanceUID and the labels, 0 or 1; at least the studies of `exams`.
        exams: StudyInstanceUID and the probability of each label, from `predict_head`.

    Returns:
        One row per label: positives (studies that have it), value, low, high, note. A label that
        no study or every study has is NaN, and the note says so.

    Raises:
        UserError: a study without labels, or a label that is not 0 or 1.
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
