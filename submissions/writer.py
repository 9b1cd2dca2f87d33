"""Exam probabilities from the study's verdict and label frequencies, and the submission file."""

from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import atomic
from pekit.evaluation.metrics import confusion
from submissions.consistency import IMAGE_COLUMNS, NO_PE, inconsistencies
from submissions.metric import SUBMISSION_LABELS, checked_submission


def label_frequencies(studies: pd.DataFrame) -> pd.Series:
    """Frequency of each exam label in training, among studies with or without PE.

    Args:
        studies: one row per study with the exam labels of train.csv, 0 or 1.

    Returns:
        By label: P(label | no PE) for negative_exam_for_pe and indeterminate, P(label | PE) for the
        other seven.

    Raises:
        UserError: missing label columns, or no study with PE, or none without.
    """
    missing = [label for label in SUBMISSION_LABELS if label not in studies]
    if missing:
        raise UserError(f"the training studies lack the columns {', '.join(missing)}")
    pe = ~studies[list(NO_PE)].any(axis=1)
    if pe.all() or not pe.any():
        raise UserError(
            f"label frequencies need training studies with and without PE, but {pe.sum()} of "
            f"{len(pe)} have it"
        )
    given_no_pe, given_pe = studies[~pe], studies[pe]
    return pd.Series(
        {
            label: (given_no_pe if label in NO_PE else given_pe)[label].mean()
            for label in SUBMISSION_LABELS
        },
        name="frequency",
    )


def verdict_probability(
    verdict: pd.Series, validation_truth: pd.Series, validation_verdict: pd.Series
) -> pd.Series:
    """P(PE) of each study: the frequency of PE among validation studies with the same verdict.

    One study of each class is added to each verdict (Laplace), so that a verdict that was never
    wrong on few studies does not count as certain.

    Args:
        verdict: of the studies to submit, by StudyInstanceUID, 0 or 1.
        validation_truth: 0 or 1, by StudyInstanceUID of the validation studies.
        validation_verdict: verdicts of the same vote on them.

    Raises:
        UserError: truth and verdict are of different studies or in different order, or a value is
            neither 0 nor 1.
    """
    (tn, fp), (fn, tp) = confusion(validation_truth, validation_verdict)
    if_positive, if_negative = (tp + 1) / (tp + fp + 2), (fn + 1) / (tn + fn + 2)
    if not verdict.isin((0, 1)).all():
        raise UserError("a verdict is neither 0 nor 1: vote on every study first")
    return pd.Series(np.where(verdict, if_positive, if_negative), verdict.index, name="pe")


def exam_probabilities(pe_probability: pd.Series, frequencies: pd.Series) -> pd.DataFrame:
    """Probabilities of exam labels by the law of total probability: P(label) = P(PE) P(label | PE).

    For negative_exam_for_pe and indeterminate, which exclude PE, it is (1 - P(PE)) P(label | no
    PE). The result may break the label rules: see `submissions.consistency.repair`.

    Args:
        pe_probability: P(PE) in [0,1] by StudyInstanceUID, as from `verdict_probability`.
        frequencies: by label, from `label_frequencies`.

    Returns:
        The nine labels of the submission as columns, by StudyInstanceUID.

    Raises:
        UserError: a probability that is NaN or outside [0,1], or frequencies of other labels.
    """
    bad = pe_probability[~pe_probability.between(0, 1)]
    if len(bad):
        raise UserError(f"study {bad.index[0]}: P(PE) = {bad.iloc[0]} is not in [0,1]")
    if set(frequencies.index) != set(SUBMISSION_LABELS):
        raise UserError(
            f"the frequencies are of the labels {list(frequencies.index)}: use label_frequencies"
        )
    return pd.DataFrame(
        {
            label: (1 - pe_probability if label in NO_PE else pe_probability) * frequencies[label]
            for label in SUBMISSION_LABELS
        }
    ).rename_axis("StudyInstanceUID")


def image_probabilities(predictions: pd.DataFrame, hop: str) -> pd.DataFrame:
    """Image probabilities for a submission: one hop of a predictions table.

    Returns:
        One row per slice: StudyInstanceUID, SOPInstanceUID, probability.

    Raises:
        UserError: the predictions lack a column.
    """
    missing = [c for c in (*IMAGE_COLUMNS[:2], hop) if c not in predictions]
    if missing:
        raise UserError(
            f"the predictions lack {', '.join(missing)}: choose from {list(predictions)}"
        )
    table = predictions[[*IMAGE_COLUMNS[:2], hop]].set_axis(list(IMAGE_COLUMNS), axis=1)
    return table.reset_index(drop=True)


def with_unpredicted(
    image_probs: pd.DataFrame, listed: pd.DataFrame, frequency: float
) -> pd.DataFrame:
    """All slices that the competition lists; those without a prediction get `frequency`.

    A study that could not be read must be in the submission, too.

    Args:
        image_probs: from `image_probabilities`.
        listed: test.csv, one row per slice with StudyInstanceUID and SOPInstanceUID.
        frequency: probability in [0,1], such as the share of positive slices in a labelled part.

    Raises:
        UserError: a prediction for a slice that is not listed.
    """
    unknown = set(image_probs["SOPInstanceUID"]) - set(listed["SOPInstanceUID"])
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(image_probs)} predicted slices are not in test.csv: prepare "
            "and predict the studies that this test.csv lists (stages prepare, predict)"
        )
    table = listed[list(IMAGE_COLUMNS[:2])].merge(
        image_probs[list(IMAGE_COLUMNS[1:])], on="SOPInstanceUID", how="left"
    )
    return table.fillna({"probability": frequency})


def write_submission(
    path: Path,
    image_probs: pd.DataFrame,
    exam_probs: pd.DataFrame,
    sample_submission: pd.DataFrame,
) -> None:
    """Write submission.csv in the order of sample_submission.csv, atomically and only if valid.

    The written file is read back and checked, since rounding to text must not undo a repair.

    Args:
        path: the CSV to write, columns id,label.
        image_probs: one row per slice: StudyInstanceUID, SOPInstanceUID, probability.
        exam_probs: the nine label columns, by StudyInstanceUID.
        sample_submission: columns id,label; the ids to write, in this order.

    Raises:
        UserError: ids missing or unknown, inconsistent labels, or probabilities that are NaN or
            outside [0,1]. `path` is then left as it was.
    """
    exam = exam_probs[list(SUBMISSION_LABELS)].melt(ignore_index=False, var_name="of")
    exam_rows = pd.Series(exam.value.to_numpy(), [f"{s}_{of}" for s, of in exam.of.items()])
    image_rows = image_probs.set_index("SOPInstanceUID").probability
    labels = pd.concat([exam_rows, image_rows])
    checked_submission(
        labels.rename_axis("id").reset_index(name="label"), pd.Index(sample_submission.id)
    )
    with atomic(path) as beside:
        ordered = labels[sample_submission.id].rename_axis("id").rename("label")
        ordered.to_csv(beside, float_format="%.7g")
        _check_file(beside, image_probs, exam_probs.index, pd.Index(sample_submission.id))


def _check_file(path: Path, image_probs: pd.DataFrame, studies: pd.Index, ids: pd.Index) -> None:
    written = checked_submission(pd.read_csv(path, dtype={"id": str}), ids)
    exam = pd.DataFrame(
        {
            label: written[[f"{study}_{label}" for study in studies]].to_numpy()
            for label in SUBMISSION_LABELS
        },
        index=studies,
    )
    images = image_probs.assign(probability=written[image_probs.SOPInstanceUID].to_numpy())
    broken = inconsistencies(exam, images)
    if len(broken):
        first = broken.iloc[0]
        raise UserError(
            f"{broken.StudyInstanceUID.nunique()} exams break the label rules, the first is study "
            f"{first.StudyInstanceUID} ({first.rule}): call submissions.consistency.repair first"
        )
