"""Verdicts on studies and contradictions between labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_prep.audit import audit_study, hu_problems, judge, label_problems
from data_prep.dicom import Volume
from pekit.store import LABELS, UIDS

SLICES = 8


def volume(**changes) -> Volume:
    """A chest-like volume: air around noisy tissue, and a bit of bone."""
    rng = np.random.default_rng(0)
    hu = rng.normal(40, 20, (SLICES, 60, 70)).astype(np.int16)
    hu[:, :10] = -1000
    hu[:, 30:35, 30:40] = 500
    made = Volume(hu, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "s", "t", tuple(map(str, range(SLICES))))
    return replace(made, **changes)


def labels(positive_slices=(), **exam) -> pd.DataFrame:
    """Rows of train.csv of one study: negative, or positive and consistent where slices are."""
    table = pd.DataFrame(0, index=range(SLICES), columns=[*UIDS, *LABELS])
    table[list(UIDS)] = [("s", "t", str(z)) for z in range(SLICES)]
    if positive_slices:
        table.loc[list(positive_slices), "pe_present_on_image"] = 1
        table[["rv_lv_ratio_lt_1", "leftsided_pe"]] = 1
    else:
        table["negative_exam_for_pe"] = 1
    for name, value in exam.items():
        table[name] = value
    return table


def test_a_sound_study_is_ok():
    verdict = judge(volume(), SLICES, labels())
    assert (verdict.verdict, verdict.reasons) == ("ok", ())
    assert judge(volume()).verdict == "ok"


def test_remarks_do_not_exclude():
    verdict = judge(volume(notes=("gap of 1 slices after z=3",), missing_slices=1), SLICES + 1)
    assert verdict.verdict == "ok"
    assert verdict.reasons == ("gap of 1 slices after z=3", "8 slices where the CSV lists 9")


def test_flipped_is_repaired():
    assert judge(volume(flipped=True)).verdict == "repaired"


@pytest.mark.parametrize(
    ("changes", "expected", "reason"),
    [
        ({"missing_slices": 3}, None, "3 slices missing between 8"),
        ({}, 20, "8 slices where the CSV lists 20"),
        ({"hu": np.full((SLICES, 60, 70), 40, np.int16)}, None, "no air"),
        ({"sop_uids": ("x", *"1234567")}, None, "1 slices have no row"),
    ],
)
def test_grave_defects_exclude(changes, expected, reason):
    verdict = judge(volume(**changes), expected, labels())
    assert verdict.verdict == "excluded"
    assert reason in " ".join(verdict.reasons)


def test_contradictory_labels_exclude():
    verdict = judge(volume(), SLICES, labels(indeterminate=1))
    assert verdict.verdict == "excluded"


def test_hu_that_cannot_be_a_chest():
    hu = volume().hu
    assert hu_problems(hu) == []
    assert "no air: the darkest voxels have 0 HU" in hu_problems(hu.clip(0))
    assert "nothing bright" in hu_problems(hu.clip(max=60))[0]
    # A slope forgotten: stored values 1024 too high.
    assert "no air" in hu_problems(hu + 1024)[0]
    hu[3] = 0
    assert "1 slices of one single value, the first z=3" in hu_problems(hu)


def test_unreadable_study_is_excluded_without_its_file_name(tmp_path):
    verdict, nothing = audit_study(tmp_path)
    assert nothing is None
    assert verdict.verdict == "excluded"
    assert "no DICOM file" in verdict.reasons[0]
    (tmp_path / "Jane Doe.dcm").write_text("x")
    verdict, _ = audit_study(tmp_path)
    assert "not a DICOM file" in verdict.reasons[0]
    assert "Jane" not in " ".join(verdict.reasons)


def test_a_real_study_is_read_and_ok(shared_data):
    verdict, read = audit_study(shared_data / "chest_dicom", expected_slices=79)
    assert verdict.verdict == "ok"
    assert read.hu.shape == (79, 64, 64)


@pytest.mark.parametrize(
    "consistent",
    [
        labels(),
        labels(negative_exam_for_pe=0, indeterminate=1, qa_motion=1),
        labels((2, 3)),
        labels((2,), chronic_pe=1, central_pe=1, rightsided_pe=1),
    ],
)
def test_consistent_labels(consistent):
    assert label_problems(consistent) == []


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (labels(negative_exam_for_pe=0), "not exactly one of negative, indeterminate"),
        (labels(indeterminate=1), "not exactly one of negative, indeterminate"),
        (labels(central_pe=1), "no PE on any slice, but central_pe"),
        (labels(rv_lv_ratio_lt_1=1), "but rv_lv_ratio_lt_1"),
        (labels((1,), rv_lv_ratio_gte_1=1), "2 RV/LV labels instead of 1"),
        (labels((1,), rv_lv_ratio_lt_1=0), "0 RV/LV labels instead of 1"),
        (labels((1,), leftsided_pe=0), "no location"),
        (labels((1,), chronic_pe=1, acute_and_chronic_pe=1), "at once"),
        (labels((1,), indeterminate=1), "called negative or indeterminate"),
        (labels(qa_motion=[0] * 7 + [1]), "differs between slices of one exam: qa_motion"),
        (labels(qa_motion=0.5), "neither 0 nor 1: qa_motion"),
        (labels(SOPInstanceUID="0"), "listed twice"),
        (labels().drop(columns="central_pe"), "lacks the columns central_pe"),
        (labels().iloc[:0], "no row"),
    ],
)
def test_contradictions_are_named(table, problem):
    assert problem in " ".join(label_problems(table))
