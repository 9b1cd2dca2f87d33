"""The competition's metric: log loss, weighted by label, and for images also by clot burden.

    score = [ sum_i sum_j w_j BCE_ij + sum_i w q_i sum_k BCE_ik ] / [ N + w sum_i m_i ]

over exams i, exam labels j and images k; N is the number of exams, m_i the number of positive
images of exam i and q_i their fraction, so images of an exam without PE have weight 0.
"""

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL

# In the order of sample_submission.csv.
EXAM_WEIGHTS = {
    "negative_exam_for_pe": 0.0736196319,
    "rv_lv_ratio_gte_1": 0.2346625767,
    "rv_lv_ratio_lt_1": 0.0782208589,
    "leftsided_pe": 0.06257668712,
    "chronic_pe": 0.1042944785,
    "rightsided_pe": 0.06257668712,
    "acute_and_chronic_pe": 0.1042944785,
    "central_pe": 0.1877300613,
    "indeterminate": 0.09202453988,
}
IMAGE_WEIGHT = 0.07361963
SUBMISSION_LABELS = tuple(EXAM_WEIGHTS)
# Kaggle's usual bound: a wrong 0 or 1 costs 34.5 instead of infinity.
EPSILON = 1e-15


def cross_entropy(target: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Binary cross-entropy in nats, elementwise; `target` may be a probability in [0,1]."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return -(target * np.log(p) + (1 - target) * np.log1p(-p))


def weighted_log_loss(truth: pd.DataFrame, submission: pd.DataFrame) -> float:
    """The official score of a submission; lower is better.

    Args:
        truth: one row per slice in the layout of train.csv, labels 0 or 1.
        submission: columns id and label (a probability), with `<study>_<label>` for each of the
            nine exam labels of each study and `<SOP>` for each slice, in any order.

    Raises:
        UserError: ids missing, unknown or repeated; a label that is NaN or outside [0,1]; exam
            labels that differ within a study; a column missing.
    """
    truth = _checked_truth(truth)
    exams = truth.drop_duplicates("StudyInstanceUID").set_index("StudyInstanceUID")
    exams = exams[list(SUBMISSION_LABELS)]
    predicted = checked_submission(submission, submission_ids(exams.index, truth.SOPInstanceUID))

    exam_ids = np.array([[f"{s}_{label}" for label in SUBMISSION_LABELS] for s in exams.index])
    exam_probability = predicted[exam_ids.ravel()].to_numpy().reshape(exam_ids.shape)
    weights = np.array(list(EXAM_WEIGHTS.values()))
    exam_loss = (weights * cross_entropy(exams.to_numpy(), exam_probability)).sum()

    image_truth = truth[SLICE_LABEL].to_numpy()
    fraction = truth.groupby("StudyInstanceUID")[SLICE_LABEL].transform("mean").to_numpy()
    image_probability = predicted[truth.SOPInstanceUID].to_numpy()
    image_loss = IMAGE_WEIGHT * (fraction * cross_entropy(image_truth, image_probability)).sum()

    return float((exam_loss + image_loss) / (len(exams) + IMAGE_WEIGHT * image_truth.sum()))


def submission_ids(studies: pd.Index, sops: pd.Series) -> pd.Index:
    """All ids of a submission as ordered in sample_submission.csv: exam labels by label, slices."""
    exam = [f"{study}_{label}" for label in SUBMISSION_LABELS for study in studies]
    return pd.Index([*exam, *sops], name="id")


def checked_submission(submission: pd.DataFrame, ids: pd.Index) -> pd.Series:
    """The probability of each id, if the submission has exactly these ids.

    Raises:
        UserError: ids missing, unknown or repeated, or a label that is NaN or outside [0,1].
    """
    if list(submission.columns) != ["id", "label"]:
        raise UserError(f"a submission needs the columns id,label, not {list(submission.columns)}")
    repeated = submission.id[submission.id.duplicated()]
    if len(repeated):
        raise UserError(f"{len(repeated)} ids occur twice, the first is {repeated.iloc[0]}")
    given = pd.Index(submission.id)
    for problem, names in (
        ("lacks", ids.difference(given, sort=False)),
        ("has unknown", given.difference(ids, sort=False)),
    ):
        if len(names):
            raise UserError(f"the submission {problem} {len(names)} ids, the first is {names[0]}")
    bad = submission[~submission.label.between(0, 1)]
    if len(bad):
        raise UserError(f"id {bad.id.iloc[0]}: label {bad.label.iloc[0]} is not in [0,1]")
    return submission.set_index("id").label.astype(np.float64)


def _checked_truth(truth: pd.DataFrame) -> pd.DataFrame:
    labels = [SLICE_LABEL, *SUBMISSION_LABELS]
    missing = [c for c in ("StudyInstanceUID", "SOPInstanceUID", *labels) if c not in truth]
    if missing or truth.empty:
        raise UserError(
            f"the truth is empty or lacks the columns {missing}: give rows as in train.csv"
        )
    if truth.SOPInstanceUID.duplicated().any():
        twice = truth.SOPInstanceUID[truth.SOPInstanceUID.duplicated()].iloc[0]
        raise UserError(f"the truth has the slice {twice} twice")
    for name in labels:
        if not truth[name].isin((0, 1)).all():
            raise UserError(f"the truth's {name} has values other than 0 and 1")
    varying = truth.groupby("StudyInstanceUID")[list(SUBMISSION_LABELS)].nunique().gt(1)
    if varying.any(axis=None):
        study, label = varying.stack().idxmax()
        raise UserError(
            f"study {study}: {label} differs between its rows; an exam label must be the same in "
            "all rows of a study"
        )
    return truth
