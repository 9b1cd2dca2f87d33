"""Subgroups by hand: the studies in them, and their metrics."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pekit.common.errors import UserError
from pekit.evaluation.subgroups import LABELS, burden_terciles, subgroup_metrics

STUDIES = list("abcdefgh")
TRUTH = [1, 1, 1, 1, 1, 0, 0, 0]
VERDICT = [1, 1, 0, 1, 0, 0, 1, 0]
SLICES = [30, 12, 2, 5, 1, 0, 0, 0]


def evaluated():
    table = pd.DataFrame({"truth": TRUTH, "verdict": VERDICT}, index=STUDIES).astype(bool)
    return table.rename_axis("StudyInstanceUID")


def labels(**positive):
    table = pd.DataFrame(0, index=STUDIES, columns=list(LABELS))
    for name, studies in positive.items():
        table.loc[list(studies), name] = 1
    return table.rename_axis("StudyInstanceUID").reset_index()


EXAMS = {
    "central_pe": "ab", "leftsided_pe": "acd", "rightsided_pe": "ae", "rv_lv_ratio_gte_1": "ab",
    "rv_lv_ratio_lt_1": "cde", "chronic_pe": "c", "acute_and_chronic_pe": "d",
    "qa_motion": "cf", "qa_contrast": "g", "flow_artifact": "ceg",
}  # fmt: skip


def found(table, subgroup, level, measure="sensitivity"):
    row = table.query("subgroup == @subgroup and level == @level and measure == @measure")
    assert len(row) == 1, (subgroup, level, measure)
    return row.iloc[0]


def test_levels_by_hand():
    table = subgroup_metrics(evaluated(), pd.Series(SLICES, index=STUDIES), labels(**EXAMS))
    by_hand = {
        ("all studies", ""): (3, 5),
        ("slices with PE", "1 to 2"): (0, 2),
        ("slices with PE", "5 to 12"): (2, 2),
        ("slices with PE", "30"): (1, 1),
        ("location", "central"): (2, 2),
        ("location", "left"): (2, 3),
        ("location", "right"): (1, 2),
        ("RV/LV ratio", ">= 1"): (2, 2),
        ("RV/LV ratio", "< 1"): (1, 3),
        ("age of the clot", "chronic"): (0, 1),
        ("age of the clot", "acute and chronic"): (1, 1),
        ("age of the clot", "acute"): (2, 3),
        ("image quality", "motion"): (0, 1),
        ("image quality", "flow artifact"): (0, 2),
        ("image quality", "none of these"): (3, 3),
    }
    for (subgroup, level), (hits, n) in by_hand.items():
        row = found(table, subgroup, level)
        assert (row.hits, row.n, row.value) == (hits, n, pytest.approx(hits / n))
        wilson = binomtest(hits, n).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((wilson.low, wilson.high))
    specificity = {"": (2, 3), "motion": (1, 1), "poor contrast": (0, 1), "none of these": (1, 1)}
    for level, (hits, n) in specificity.items():
        subgroup = "image quality" if level else "all studies"
        row = found(table, subgroup, level, "specificity")
        assert (row.hits, row.n) == (hits, n)


def test_a_level_without_studies_says_so():
    table = subgroup_metrics(evaluated(), pd.Series(SLICES, index=STUDIES), labels(**EXAMS))
    row = found(table, "image quality", "filling defect, not PE")
    assert row.n == 0
    assert np.isnan(row.value)
    assert row.note == "undefined: no study with PE in this subgroup"
    assert (table["value"].isna() == (table["note"] != "")).all()


def test_without_labels_only_burden_and_all_studies():
    table = subgroup_metrics(evaluated(), pd.Series(SLICES, index=STUDIES), pd.DataFrame())
    assert table["subgroup"].unique().tolist() == ["all studies", "slices with PE"]


def test_terciles_of_many_studies_are_thirds_and_ties_stay_together():
    burden = burden_terciles(pd.Series(range(1, 31)))
    assert burden.value_counts().to_dict() == {"1 to 10": 10, "11 to 20": 10, "21 to 30": 10}
    ties = burden_terciles(pd.Series([1] * 8 + [2, 9]))
    assert ties.tolist() == ["1"] * 8 + ["2 to 9"] * 2
    assert burden_terciles(pd.Series([4])).tolist() == ["4"]
    with pytest.raises(UserError, match="study 1 has no positive slice"):
        burden_terciles(pd.Series([3, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="central_pe"), "lack central_pe"),
        (lambda t: t.iloc[1:], "study a has no exam labels"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "study a has two rows"),
        (lambda t: t.assign(qa_motion=np.nan), "study a has exam labels that are neither 0 nor 1"),
    ],
)
def test_bad_labels_are_named(change, message):
    table = change(labels(**EXAMS))
    with pytest.raises(UserError, match=message):
        subgroup_metrics(evaluated(), pd.Series(SLICES, index=STUDIES), table)
