"""The nine exam labels that study heads predict: P(PE) beside the vote, AUROC of each label."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.evaluation.metrics import COLUMNS, ranking_metrics
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.voting import best_vote, study_scores, study_verdicts

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


def verdicts_beside_vote(
    chosen: pd.DataFrame,
    reported: pd.DataFrame,
    pe: Mapping[str, tuple[pd.Series, pd.Series]],
    criterion: str = "f1",
) -> dict[str, tuple[pd.Series, pd.Series]]:
    """Verdict and score of each reported study, by the vote and by each study head.

    The score of a head is P(PE), with one threshold; that of the vote is the mu-th largest
    probability. All thresholds are chosen on the same studies.

    Args:
        chosen, reported: slices of the studies to choose on and to report, with the network's
            probability `frozen` (`pekit.inference.study_head.predict_head`).
        pe: by head, P(PE) of the studies to choose on and of those to report.
        criterion: as `pekit.voting.best_vote` takes it.
    """
    truth, index = study_truth(chosen), study_truth(reported).index
    vote = best_vote(probs_by_study(chosen, "frozen"), truth, criterion)
    probs = probs_by_study(reported, "frozen")
    found = {"vote": (study_verdicts(probs, vote)[index], study_scores(probs, vote.mu)[index])}
    for head, (to_choose, score) in pe.items():
        alone = {study: [p] for study, p in to_choose.items()}
        threshold = best_vote(alone, truth, criterion).delta
        found[head] = (score[index] > threshold, score[index])
    return found


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
