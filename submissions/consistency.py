"""Label rules of the competition: find the exams that break them, and repair at the lowest cost.

An exam is positive if at least one of its images is above 0.5. The exam labels above 0.5 must form
one of the patterns that the rules allow; `PATTERNS` lists them all.
"""

from itertools import product

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from submissions.metric import EXAM_WEIGHTS, IMAGE_WEIGHT, SUBMISSION_LABELS, cross_entropy

RV_LV = ("rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1")
LOCATION = ("leftsided_pe", "rightsided_pe", "central_pe")
CHRONICITY = ("chronic_pe", "acute_and_chronic_pe")
NO_PE = ("negative_exam_for_pe", "indeterminate")
IMAGE_COLUMNS = ("StudyInstanceUID", "SOPInstanceUID", "probability")

CUT = 0.5
# A value just above the cut that remains above it in float32 and with six printed digits.
ABOVE = CUT + 1e-6

# Rules for an exam with a positive image, then for one without: the rule in words, and whether
# `n(group)`, the number of the group's labels above the cut, obeys it.
POSITIVE_RULES = {
    "positive exam: exactly one RV/LV label": lambda n: n(RV_LV) == 1,
    "positive exam: at least one location": lambda n: n(LOCATION) >= 1,
    "positive exam: not both chronic and acute-and-chronic": lambda n: n(CHRONICITY) <= 1,
    "positive exam: neither negative nor indeterminate": lambda n: n(NO_PE) == 0,
}
NEGATIVE_RULES = {
    "negative exam: exactly one of negative, indeterminate": lambda n: n(NO_PE) == 1,
    "negative exam: no RV/LV, location or chronicity label": lambda n: (
        n(RV_LV) + n(LOCATION) + n(CHRONICITY) == 0
    ),
}


def inconsistencies(exam_probs: pd.DataFrame, image_probs: pd.DataFrame) -> pd.DataFrame:
    """All broken rules, one row per exam and rule; empty for a consistent submission.

    Args:
        exam_probs: the nine label columns, by StudyInstanceUID.
        image_probs: one row per slice: StudyInstanceUID, SOPInstanceUID, probability.

    Returns:
        Columns StudyInstanceUID, rule; in the order of `exam_probs`.

    Raises:
        UserError: studies that are in only one of the two tables, missing columns, or
            probabilities that are NaN or outside [0,1].
    """
    exam, images = _checked(exam_probs, image_probs)
    positive = _highest_image(exam, images) > CUT
    above = exam > CUT
    broken = []
    for rules, concerned in ((POSITIVE_RULES, positive), (NEGATIVE_RULES, ~positive)):
        for rule, obeys in rules.items():
            wrong = ~obeys(lambda group: above[list(group)].sum(axis=1)) & concerned
            broken += [(study, rule) for study in exam.index[wrong]]
    table = pd.DataFrame(broken, columns=["StudyInstanceUID", "rule"])
    place = {study: i for i, study in enumerate(exam.index)}
    return table.sort_values(
        "StudyInstanceUID", key=lambda s: s.map(place), kind="stable", ignore_index=True
    )


def repair(
    exam_probs: pd.DataFrame, image_probs: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The consistent submission with the lowest expected loss under the given probabilities.

    For each exam and each allowed pattern, every probability on the wrong side of 0.5 is moved just
    to it; the version with the lowest expected loss is kept. The loss is the official metric,
    expected if the given probabilities are right (with q_i, the fraction of positive images, as
    their mean probability). Consistent exams are not changed.

    Args:
        exam_probs: the nine label columns, by StudyInstanceUID.
        image_probs: one row per slice: StudyInstanceUID, SOPInstanceUID, probability.

    Returns:
        New exam and image tables, in the same order.

    Raises:
        UserError: as for `inconsistencies`.
    """
    exam, images = _checked(exam_probs, image_probs)
    given = exam.to_numpy()
    versions = np.where(  # (patterns, exams, labels)
        PATTERNS[:, None, :], np.maximum(given, ABOVE), np.minimum(given, CUT)
    )
    weights = np.array(list(EXAM_WEIGHTS.values()))
    cost = (weights * cross_entropy(given, versions)).sum(axis=2)
    as_positive, as_negative, image_cost = _image_versions(exam, images)
    cost += np.where(PATTERN_IS_POSITIVE[:, None], *image_cost)

    chosen = cost.argmin(axis=0)
    repaired = pd.DataFrame(
        versions[chosen, np.arange(len(exam))], index=exam.index, columns=exam.columns
    )
    positive = pd.Series(PATTERN_IS_POSITIVE[chosen], index=exam.index)
    of_image = images.StudyInstanceUID.map(positive).to_numpy()
    return repaired, images.assign(probability=np.where(of_image, as_positive, as_negative))


def _image_versions(
    exam: pd.DataFrame, images: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Image probabilities of the positive and the negative version, and the costs per exam."""
    given = images.probability.to_numpy()
    study = images.StudyInstanceUID
    # The highest image is the cheapest to raise; it is not changed if it is above the cut.
    highest = images.groupby("StudyInstanceUID").probability.transform("idxmax") == images.index
    as_positive = np.where(highest, np.maximum(given, ABOVE), given)
    as_negative = np.minimum(given, CUT)
    fraction = images.groupby("StudyInstanceUID").probability.transform("mean").to_numpy()
    costs = tuple(
        pd.Series(IMAGE_WEIGHT * fraction * cross_entropy(given, version))
        .groupby(study.to_numpy())
        .sum()[exam.index]
        .to_numpy()
        for version in (as_positive, as_negative)
    )
    return as_positive, as_negative, costs


def _allowed_patterns() -> tuple[np.ndarray, np.ndarray]:
    """Allowed patterns `(patterns, 9)` of labels above the cut, and which are of positive exams."""
    patterns, positive = [], []
    for bits in product((False, True), repeat=len(SUBMISSION_LABELS)):
        above = dict(zip(SUBMISSION_LABELS, bits, strict=True))

        def count(group: tuple[str, ...], above: dict[str, bool] = above) -> int:
            return sum(above[label] for label in group)

        for rules, kind in ((POSITIVE_RULES, True), (NEGATIVE_RULES, False)):
            if all(obeys(count) for obeys in rules.values()):
                patterns.append(bits)
                positive.append(kind)
    return np.array(patterns), np.array(positive)


PATTERNS, PATTERN_IS_POSITIVE = _allowed_patterns()


def _highest_image(exam: pd.DataFrame, images: pd.DataFrame) -> pd.Series:
    return images.groupby("StudyInstanceUID").probability.max()[exam.index]


def _checked(
    exam_probs: pd.DataFrame, image_probs: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    missing = [c for c in SUBMISSION_LABELS if c not in exam_probs]
    missing += [c for c in IMAGE_COLUMNS if c not in image_probs]
    if missing:
        raise UserError(f"the exam or image probabilities lack the columns {', '.join(missing)}")
    exam = exam_probs[list(SUBMISSION_LABELS)].astype(np.float64)
    images = image_probs.reset_index(drop=True).astype({"probability": np.float64})
    if exam.index.has_duplicates:
        raise UserError(f"study {exam.index[exam.index.duplicated()][0]} has two rows of labels")
    alone = exam.index.symmetric_difference(pd.Index(images.StudyInstanceUID.unique()))
    if len(alone):
        raise UserError(f"study {alone[0]} has only exam labels or only images: give both")
    bad = images[~images.probability.between(0, 1)]
    if len(bad):
        raise UserError(
            f"slice {bad.SOPInstanceUID.iloc[0]}: probability {bad.probability.iloc[0]} is not in "
            "[0,1]"
        )
    wrong = exam[~((exam >= 0) & (exam <= 1)).all(axis=1)]
    if len(wrong):
        raise UserError(
            f"study {wrong.index[0]}: an exam label is not in [0,1]: {dict(wrong.iloc[0])}"
        )
    return exam, images
