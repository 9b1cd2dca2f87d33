"""The audit of a small cohort with some broken studies."""

import os
import shutil

import pandas as pd
import pydicom
import pytest

from data_prep.audit.studies import examine, read_exclusions, reason_counts
from data_prep.phantom import CohortConfig, write_cohort
from pekit.common.errors import UserError
from pekit.common.files import read_json
from pekit.dataset.schema import UIDS, public_uid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    # At 18 mm between slices, varied patients look damaged: here all have the same build.
    phantom = {"shape": (16, 64, 64), "variety": 0}
    config = CohortConfig(n_train=8, n_test=2, seed=3, broken_fraction=0.2, phantom=phantom)
    write_cohort(out, config)
    return out


@pytest.mark.parametrize("depth", ["headers", "pixels"])
def test_every_study_has_a_row(cohort, tmp_path, depth):
    table = examine(cohort, tmp_path, depth)
    truth = pd.read_csv(cohort / "train.csv", dtype=dict.fromkeys(UIDS, str))
    assert len(table) == 10
    rows = table.set_index("StudyInstanceUID")
    defects = pd.read_csv(cohort / "truth" / "defects.csv", dtype=str)
    cut = defects.loc[defects["kind"] == "truncated_file", "StudyInstanceUID"]
    gaps = defects.loc[defects["kind"] == "missing_slices", "StudyInstanceUID"]
    assert len(cut) > 0
    assert rows.loc[gaps, "reasons"].str.contains("gap of").all()
    if depth == "pixels":
        assert (rows.loc[cut, "status"] == "excluded").all()
    sound = rows.drop(defects["StudyInstanceUID"])
    assert (sound["status"] == "ok").all()
    assert (sound["slices"] == sound["listed"]).all()
    positive = truth.groupby("StudyInstanceUID")["pe_present_on_image"].sum()
    labelled = rows[rows["source"] == "train"]
    assert (labelled["positive"] == positive[labelled.index]).all()
    assert (sound["rows"] == 64).all()
    assert read_json(tmp_path / "audit.json")["counts"]["ok"] >= len(sound)


def test_tables_on_disk_agree(cohort, tmp_path):
    table = examine(cohort, tmp_path, "pixels")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "audit.parquet"), table)
    assert pd.read_csv(tmp_path / "audit.csv")["reasons"].fillna("").tolist() == (
        table["reasons"].tolist()
    )
    excluded = table[table["status"] == "excluded"]
    expected = dict(zip(excluded["StudyInstanceUID"], excluded["reasons"], strict=True))
    assert read_exclusions(tmp_path / "exclusions.csv") == expected


def test_a_second_call_reads_what_changed(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    table = examine(data, tmp_path / "audit")
    study = table.query("status == 'ok' and source == 'train'")["StudyInstanceUID"].iloc[0]
    records = tmp_path / "audit" / "records" / "headers"
    times = {f.stem: f.stat().st_mtime_ns for f in records.iterdir()}
    labels = pd.read_csv(data / "train.csv", dtype=dict.fromkeys(UIDS, str))
    labels.loc[labels["StudyInstanceUID"] == study, "indeterminate"] ^= 1
    labels.to_csv(data / "train.csv", index=False)
    again = examine(data, tmp_path / "audit").set_index("StudyInstanceUID")
    assert again.loc[study, "status"] == "excluded"
    assert {f.stem for f in records.iterdir() if times[f.stem] != f.stat().st_mtime_ns} == {study}


def test_no_tag_but_uids_enters_a_table(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    for path in (data / "train").rglob("*.dcm"):
        try:
            tags = pydicom.dcmread(path)
            tags.PatientName, tags.PatientID, tags.Modality = "Doe^Jane", "MRN-4711", "Doe"
            tags.save_as(path)
        except Exception:
            continue  # the truncated one
    examine(data, tmp_path / "audit")
    written = b"".join(f.read_bytes() for f in (tmp_path / "audit").rglob("*") if f.is_file())
    for tag in (b"Jane", b"4711", str(tmp_path).encode()):
        assert tag not in written


def test_a_folder_whose_name_is_not_utf8_stops_no_data_set(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    odd = os.fsencode(data / "train") + b"/M\xfcller"
    shutil.copytree(next(f for f in (data / "train").iterdir()), os.fsdecode(odd))
    # A study that is listed, with a file of such a name that is cut short.
    listed = next(f for f in (data / "test").iterdir())
    file = next(listed.rglob("*.dcm"))
    file.write_bytes(file.read_bytes()[:200])
    os.rename(file, os.fsencode(file.parent) + b"/\xe9.dcm")
    for workers in (1, 2):
        table = examine(data, tmp_path / f"audit{workers}", workers=workers)
        assert len(table) == 10 + 1  # all of the cohort, and the odd folder
        row = table.set_index("StudyInstanceUID").loc[public_uid(os.fsdecode(b"M\xfcller"))]
        assert (row["status"], row["reasons"]) == ("excluded", "the CSV has no row for the study")
        reasons = table.set_index("StudyInstanceUID").loc[listed.name, "reasons"]
        assert reasons.startswith("unreadable: ")


def test_reasons_are_counted_by_kind():
    table = pd.DataFrame(
        [
            ("a", "excluded", "unreadable: cut short (0123456789ab); gap of 2 slices after z=5"),
            ("b", "ok", "gap of 1 slices after z=12"),
            ("c", "ok", "gap of 7 slices after z=1; gap of 2 slices after z=9"),
            ("d", "ok", ""),
        ],
        columns=["StudyInstanceUID", "status", "reasons"],
    )
    counts = reason_counts(table)
    assert counts.to_numpy().tolist() == [
        ["gap of n slices after z=n", "ok", 2, "b"],
        ["unreadable: cut short", "excluded", 1, "a"],
        ["gap of n slices after z=n", "excluded", 1, "a"],
    ]


def test_bad_arguments_are_named(cohort, tmp_path):
    with pytest.raises(UserError, match="unknown depth 'deep'"):
        examine(cohort, tmp_path, "deep")
    with pytest.raises(UserError, match="run the audit first"):
        read_exclusions(tmp_path / "exclusions.csv")
    (tmp_path / "exclusions.csv").write_text("study\na\n")
    with pytest.raises(UserError, match="lacks the columns StudyInstanceUID"):
        read_exclusions(tmp_path / "exclusions.csv")
