"""Sensitivity and specificity by kind of study: clot burden, location, heart strain, image quality.

Studies with PE are grouped by number of slices with PE, location, RV/LV ratio and age of the clot
(sensitivity only); all studies by the quality flags of the RSNA labels. Subgroups are often small:
each row has its number of studies and Wilson's interval.
"""

import pandas as pd

from pekit.common.errors import UserError
from pekit.evaluation.bootstrap import proportion
from pekit.evaluation.metrics import COLUMNS

BURDEN = "slices with PE"
# subgroup -> level -> exam label. A study may have several locations.
_OF_PE = {
    "location": {"central": "central_pe", "left": "leftsided_pe", "right": "rightsided_pe"},
    "RV/LV ratio": {">= 1": "rv_lv_ratio_gte_1", "< 1": "rv_lv_ratio_lt_1"},
    "age of the clot": {"chronic": "chronic_pe", "acute and chronic": "acute_and_chronic_pe"},
}
_ACUTE = ("chronic_pe", "acute_and_chronic_pe")
_QUALITY = {
    "motion": "qa_motion",
    "poor contrast": "qa_contrast",
    "flow artifact": "flow_artifact",
    "filling defect, not PE": "true_filling_defect_not_pe",
}
LABELS = tuple(name for levels in (*_OF_PE.values(), _QUALITY) for name in levels.values())


def burden_terciles(positive_slices: pd.Series) -> pd.Series:
    """Thirds of the studies with PE by their number of positive slices, in words: "1 to 7".

    Studies with the same number stay together, so thirds may differ in size, or be fewer than
    three.

    Args:
        positive_slices: number of slices with PE of each study, at least 1.

    Raises:
        UserError: a study without a positive slice.
    """
    if (positive_slices < 1).any():
        study = positive_slices.index[positive_slices < 1][0]
        raise UserError(f"study {study} has no positive slice: clot burden needs studies with PE")
    below = positive_slices.rank(method="min") - 1
    third = 3 * below // len(below)
    ends = positive_slices.groupby(third).agg(["min", "max"])
    words = {
        k: f"{low} to {high}" if low < high else f"{low}"
        for k, (low, high) in zip(ends.index, ends.to_numpy().astype(int), strict=True)
    }
    return third.map(words).rename(BURDEN)


def subgroup_metrics(
    evaluated: pd.DataFrame, positive_slices: pd.Series, labels: pd.DataFrame
) -> pd.DataFrame:
    """Sensitivity, and specificity where it applies, of each subgroup of studies.

    Args:
        evaluated: by StudyInstanceUID: truth and verdict, bool (`Evaluated.studies`).
        positive_slices: number of slices with PE of each of these studies.
        labels: one row per study: StudyInstanceUID and the exam labels of train.csv; without rows,
            only all studies and clot burden are reported.

    Returns:
        Columns subgroup, level, measure, hits, n, value, low, high, note; a level without studies
        is NaN with its note.

    Raises:
        UserError: a label column is missing, or a study is missing, duplicated, or without labels.
    """
    rows = [*_both(evaluated, "all studies", "")]
    pe = evaluated[evaluated["truth"]]
    burden = burden_terciles(positive_slices.loc[pe.index])
    for level in burden.loc[positive_slices.loc[pe.index].sort_values().index].unique():
        rows.append(_sensitivity(pe[burden == level], BURDEN, level))
    if len(labels):
        exams = _exam_labels(labels, evaluated.index)
        for subgroup, levels in _OF_PE.items():
            for level, name in levels.items():
                rows.append(_sensitivity(pe[exams.loc[pe.index, name]], subgroup, level))
            if subgroup == "age of the clot":
                acute = ~exams.loc[pe.index, list(_ACUTE)].any(axis=1)
                rows.append(_sensitivity(pe[acute], subgroup, "acute"))
        for level, name in _QUALITY.items():
            rows += _both(evaluated[exams[name]], "image quality", level)
        clean = ~exams[list(_QUALITY.values())].any(axis=1)
        rows += _both(evaluated[clean], "image quality", "none of these")
    columns = ["subgroup", "level", "measure", "hits", "n", *COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def _both(evaluated: pd.DataFrame, subgroup: str, level: str) -> list[tuple]:
    without = evaluated[~evaluated["truth"]]
    right = int((~without["verdict"]).sum())
    value = proportion(right, len(without), "no study without PE in this subgroup")
    return [
        _sensitivity(evaluated[evaluated["truth"]], subgroup, level),
        (subgroup, level, "specificity", right, len(without), *value),
    ]


def _sensitivity(with_pe: pd.DataFrame, subgroup: str, level: str) -> tuple:
    found = int(with_pe["verdict"].sum())
    value = proportion(found, len(with_pe), "no study with PE in this subgroup")
    return (subgroup, level, "sensitivity", found, len(with_pe), *value)


def _exam_labels(labels: pd.DataFrame, studies: pd.Index) -> pd.DataFrame:
    """The labels of these studies as bool, by StudyInstanceUID."""
    missing = [name for name in ("StudyInstanceUID", *LABELS) if name not in labels]
    if missing:
        raise UserError(f"the studies lack {', '.join(missing)}: prepare them again")
    if labels["StudyInstanceUID"].duplicated().any():
        twice = labels.loc[labels["StudyInstanceUID"].duplicated(), "StudyInstanceUID"].iloc[0]
        raise UserError(f"study {twice} has two rows of exam labels: prepare the studies again")
    exams = labels.set_index("StudyInstanceUID")[list(LABELS)]
    if unknown := sorted(set(studies) - set(exams.index)):
        raise UserError(f"study {unknown[0]} has no exam labels: prepare the studies again")
    exams = exams.loc[studies]
    bad = ~exams.isin((0, 1)).all(axis=1)
    if bad.any():
        raise UserError(f"study {exams.index[bad][0]} has exam labels that are neither 0 nor 1")
    return exams.astype(bool)
