"""Audits of single studies, and contradictions between labels."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from data_prep.audit.rules import (
    audit_alone,
    audit_headers,
    audit_study,
    hu_problems,
    label_problems,
)
from data_prep.errors import StudyError
from data_prep.phantom import CohortConfig, write_cohort
from data_prep.rsna import find_studies
from pekit.dataset.schema import LABELS, UIDS

SLICES = 8


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    phantom = {"shape": (16, 64, 64), "indeterminate_fraction": 0.0}
    write_cohort(out, CohortConfig(n_train=2, n_test=1, broken_fraction=0.0, phantom=phantom))
    return out


@pytest.fixture
def task(cohort, tmp_path):
    """An intact study with labels, whose files a test may damage."""
    found = find_studies(cohort, ("train",))[0]
    shutil.copytree(found.folder, tmp_path / "study")
    return replace(found, folder=tmp_path / "study")


def chest() -> np.ndarray:
    """Air around noisy tissue, and a bit of bone."""
    hu = np.random.default_rng(0).normal(40, 20, (SLICES, 60, 70)).astype(np.int16)
    hu[:, :10] = -1000
    hu[:, 30:35, 30:40] = 500
    return hu


def labels(positive_slices=(), **exam) -> pd.DataFrame:
    """Rows of train.csv of one study: negative, or positive and consistent if slices are."""
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


def files(task):
    """Files of a study in z order."""
    paths = list(task.folder.rglob("*.dcm"))
    return sorted(paths, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))


@pytest.mark.parametrize("audit", [audit_headers, audit_study])
def test_a_sound_study_is_ok(task, audit):
    found, read = audit(task)
    assert (found.status, found.reasons) == ("ok", ())
    assert read.shape == (len(task.rows), 64, 64)


@pytest.mark.parametrize("audit", [audit_headers, audit_study])
def test_remarks_do_not_exclude(task, audit):
    files(task)[5].unlink()
    found, _ = audit(task)
    n = len(task.rows)
    reasons = ("gap of 1 slices after z=4", f"{n - 1} slices where the CSV lists {n}")
    assert (found.status, found.reasons) == ("ok", reasons)


@pytest.mark.parametrize("audit", [audit_headers, audit_study])
def test_what_was_left_out_is_a_repair(task, audit):
    file = files(task)[3]
    shutil.copy(file, file.with_name("copy.dcm"))
    found, _ = audit(task)
    assert found.status == "repaired"
    assert found.reasons == ("1 files are copies of others: left out",)


def drop_middle(task):
    for file in files(task)[4:10]:
        file.unlink()
    return task


def drop_end(task):
    for file in files(task)[9:]:
        file.unlink()
    return task


def other_uids(task):
    return replace(task, rows=task.rows.assign(SOPInstanceUID=[f"x{z}" for z in range(16)]))


def other_study(task):
    return replace(task, rows=task.rows.assign(StudyInstanceUID="x"))


def contradictory(task):
    return replace(task, rows=task.rows.assign(indeterminate=1, negative_exam_for_pe=1))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop_middle, "6 slices missing between"),
        (drop_end, "9 slices where the CSV lists"),
        (other_uids, "slices have no row in the CSV"),
        (other_study, "the files belong to another study"),
        (contradictory, "indeterminate"),
        (lambda task: replace(task, rows=task.rows.iloc[:0]), "the CSV has no row for the study"),
        (lambda task: replace(task, problems=("listed twice",)), "listed twice"),
    ],
)
@pytest.mark.parametrize("audit", [audit_headers, audit_study])
def test_grave_defects_exclude(task, audit, spoil, reason):
    found, _ = audit(spoil(task))
    assert found.status == "excluded"
    assert reason in found.reasons[0]


def test_pixels_that_are_no_chest_exclude(task):
    for file in files(task):
        dataset = pydicom.dcmread(file)
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.01, -1000
        dataset.save_as(file)
    assert audit_headers(task)[0].status == "ok"
    found, _ = audit_study(task)
    assert found.status == "excluded"
    assert "nothing bright" in found.reasons[0]


@pytest.mark.parametrize("audit", [audit_headers, audit_study])
def test_unreadable_study_is_excluded_without_its_file_name(task, audit):
    (task.folder / "Jane Doe.dcm").write_text("x")
    found, nothing = audit(task)
    assert nothing is None
    assert found.status == "excluded"
    assert "not a DICOM file" in found.reasons[0]
    assert "Jane" not in found.reasons[0]
    shutil.rmtree(task.folder)
    found, nothing = audit(task)
    assert "the folder cannot be read" in found.reasons[0]


def test_one_study_outside_a_data_set(task, tmp_path):
    found, volume = audit_alone(task.folder)
    assert (found.status, volume.shape) == ("ok", (len(task.rows), 64, 64))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(chest().T, affine), tmp_path / "a.nii.gz")
    found, volume = audit_alone(tmp_path / "a.nii.gz")
    assert found.status == "ok"
    np.testing.assert_array_equal(volume.hu, chest())
    nibabel.save(nibabel.Nifti1Image(chest().T + np.int16(1024), affine), tmp_path / "b.nii.gz")
    assert "no air" in audit_alone(tmp_path / "b.nii.gz")[0].reasons[0]
    with pytest.raises(StudyError, match="cannot be read"):
        audit_alone(tmp_path / "absent")


def test_hu_that_cannot_be_a_chest():
    hu = chest()
    assert hu_problems(hu) == []
    assert "no air: the darkest voxels have 0 HU" in hu_problems(hu.clip(0))
    assert "nothing bright" in hu_problems(hu.clip(max=60))[0]
    # Without the intercept stored values are 1024 too high.
    assert "no air" in hu_problems(hu + 1024)[0]
    hu[3] = 0
    assert "1 slices with a single value, the first z=3" in hu_problems(hu)


def test_a_real_study_is_read_and_ok(shared_data):
    found, read = audit_alone(shared_data / "chest_dicom")
    assert found.status == "ok"
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
        (labels((1,), chronic_pe=1, acute_and_chronic_pe=1), "both chronic_pe and"),
        (labels((1,), indeterminate=1), "labelled negative or indeterminate"),
        (labels(qa_motion=[0] * 7 + [1]), "differs between slices of one exam: qa_motion"),
        (labels(qa_motion=0.5), "neither 0 nor 1: qa_motion"),
        (labels(SOPInstanceUID="0"), "listed twice"),
        (labels().drop(columns="central_pe"), "lacks the columns central_pe"),
        (labels().iloc[:0], "no row"),
    ],
)
def test_contradictions_are_named(table, problem):
    assert problem in " ".join(label_problems(table))
