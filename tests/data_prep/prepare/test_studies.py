"""Preparation of a small phantom cohort with two broken studies."""

import os
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest

from data_prep.errors import SegmentationError
from data_prep.phantom import CohortConfig, crop_truth, read_truth, write_cohort
from data_prep.prepare.__main__ import main
from data_prep.prepare.studies import prepare, verify
from data_prep.prepare.study import PrepareSettings
from pekit.common.errors import UserError
from pekit.dataset.schema import LANDMARKS, OUTSIDE_HU, SLICE_LABEL, UIDS
from pekit.dataset.store import Store

N_TRAIN, N_TEST = 6, 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    config = CohortConfig(
        n_train=N_TRAIN,
        n_test=N_TEST,
        seed=3,
        broken_fraction=0.25,
        slice_jitter=2,
        phantom={"shape": (32, 96, 96), "indeterminate_fraction": 0.0},
    )
    write_cohort(out, config)
    return out


@pytest.fixture(scope="module")
def settings(cohort):
    return PrepareSettings(landmarks=str(cohort / "truth" / "landmarks.csv"))


@pytest.fixture(scope="module")
def store(cohort, settings, tmp_path_factory):
    return prepare(cohort, tmp_path_factory.mktemp("store"), settings)


def contents(root):
    files = [f for f in root.rglob("*") if f.is_file()]
    return {str(f.relative_to(root)): f.read_bytes() for f in files if f.suffix != ".parquet"}


def test_every_study_has_a_status_and_broken_ones_a_reason(store, cohort):
    studies = store.studies.set_index("StudyInstanceUID")
    assert len(studies) == N_TRAIN + N_TEST
    defects = pd.read_csv(cohort / "truth" / "defects.csv")
    assert set(defects["kind"]) == {"missing_slices", "truncated_file"}
    for study, defect in defects.itertuples(index=False):
        row = studies.loc[study]
        if defect == "truncated_file":
            assert row["status"] == "excluded"
            assert "unreadable" in row["reasons"]
            assert not store.volume_path(study).exists()
        else:
            assert row["status"] == "ok"
            assert "gap of" in row["reasons"]
    whole = studies.drop(defects["StudyInstanceUID"])
    assert (whole["status"] == "ok").all()


def test_crop_holds_lungs_heart_and_clots(store, cohort):
    for row in store.studies.query("status == 'ok'").to_dict("records"):
        study = row["StudyInstanceUID"]
        truth = read_truth(cohort, study)
        hu = store.read_volume(study)
        for organ, least in (("lung", 0.99), ("heart", 0.95), ("clot", 0.99)):
            inside = crop_truth(cohort, study, organ, row)
            assert inside.shape == hu.shape
            whole = truth[organ][truth["present"]].sum()
            kept = (inside & (hu > OUTSIDE_HU)).sum()
            assert kept >= least * whole, f"{organ} of {study}"
        assert 0.1 < row["volume_ratio"] < 0.6
        assert (hu == OUTSIDE_HU).any()


def test_labels_follow_their_slices(store, cohort):
    slices = store.slices
    train = pd.read_csv(cohort / "train.csv").set_index("SOPInstanceUID")[SLICE_LABEL]
    labelled = slices[slices[SLICE_LABEL] >= 0].set_index("SOPInstanceUID")[SLICE_LABEL]
    assert len(labelled) > 0
    assert (labelled == train[labelled.index]).all()
    sources = store.studies.set_index("StudyInstanceUID")["source"]
    of_test = slices["StudyInstanceUID"].map(sources) == "test"
    assert (slices.loc[of_test, SLICE_LABEL] == -1).all()
    for study, rows in slices.groupby("StudyInstanceUID"):
        truth = read_truth(cohort, study)
        expected = truth["sop_uids"][truth["present"]].tolist()
        assert rows.sort_values("z")["SOPInstanceUID"].tolist() == expected


def test_landmarks_from_mm_to_voxels(store, cohort):
    study = store.studies.query("status == 'ok' and reasons == ''")["StudyInstanceUID"].iloc[0]
    truth = read_truth(cohort, study)
    found = (
        store.landmarks.query("StudyInstanceUID == @study").set_index("name").loc[list(LANDMARKS)]
    )
    expected = (truth["landmarks_mm"] - truth["origin_mm"]) / truth["spacing_mm"]
    np.testing.assert_array_equal(found["present"], np.isfinite(expected).all(axis=1))
    np.testing.assert_allclose(found[["z", "y", "x"]], expected, atol=0.01)


def test_same_call_does_nothing_and_a_killed_one_is_resumed(store, cohort, settings, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    before = contents(root)
    times = {f: f.stat().st_mtime_ns for f in (root / "volumes").iterdir()}
    prepare(cohort, root, settings)
    assert times == {f: f.stat().st_mtime_ns for f in (root / "volumes").iterdir()}
    # A kill can leave a volume without its record, a temporary file, no tables.
    study = store.studies.query("status == 'ok'")["StudyInstanceUID"].iloc[0]
    (root / "records" / f"{study}.json").unlink()
    (root / "volumes" / f"{study}.b2nd").write_bytes(b"half")
    (root / "studies.parquet").unlink()
    again = prepare(cohort, root, settings)
    assert contents(root) == before
    pd.testing.assert_frame_equal(again.studies, store.studies)


def test_two_processes_make_the_same_store(store, cohort, settings, tmp_path):
    prepare(cohort, tmp_path / "store", settings, workers=2)
    assert contents(tmp_path / "store") == contents(store.root)


def test_other_settings_redo_every_study(store, cohort, settings, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    box = prepare(cohort, root, settings.model_copy(update={"crop": "box"}))
    study = box.studies.query("status == 'ok'")["StudyInstanceUID"].iloc[0]
    assert (box.read_volume(study) > OUTSIDE_HU).all()
    assert box.volume_shape(study) == store.volume_shape(study)
    whole = prepare(cohort, root, settings.model_copy(update={"crop": "none"}))
    assert whole.volume_shape(study)[1:] == (96, 96)
    assert (whole.studies.query("status == 'ok'")["volume_ratio"] == 1).all()


def test_other_code_redoes_every_study(store, cohort, settings, tmp_path, monkeypatch):
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    study = store.studies.query("status == 'ok'")["StudyInstanceUID"].iloc[0]
    (root / "volumes" / f"{study}.b2nd").write_bytes(b"made by other code")
    monkeypatch.setattr("data_prep.prepare.studies.module_hash", lambda module: "another version")
    prepare(cohort, root, settings)
    np.testing.assert_array_equal(Store(root).read_volume(study), store.read_volume(study))


def test_failed_masks_are_excluded_or_kept_whole(cohort, tmp_path, monkeypatch):
    from data_prep import anatomy

    def fail(hu, spacing_mm):
        raise SegmentationError("no lung found")

    monkeypatch.setitem(anatomy.METHODS, "threshold", (fail, ()))
    excluded = prepare(cohort, tmp_path / "a", PrepareSettings(), limit=2).studies
    assert (excluded["status"] == "excluded").all()
    assert excluded["reasons"].str.contains("no lung found|unreadable").all()
    full = prepare(cohort, tmp_path / "b", PrepareSettings(on_failure="full"), limit=2)
    kept = full.studies.query("status == 'ok'")
    assert kept["reasons"].str.contains("uncropped: no lung found").all()
    assert full.volume_shape(kept["StudyInstanceUID"].iloc[0])[1:] == (96, 96)


def test_listed_study_without_a_folder_and_unlisted_folder(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    listed = sorted(p.name for p in (data / "train").iterdir())
    shutil.rmtree(data / "train" / listed[0])
    os.rename(data / "train" / listed[1], data / "train" / "0123456789ab")
    studies = prepare(data, tmp_path / "store", PrepareSettings(), sources=("train",)).studies
    status = studies.set_index("StudyInstanceUID")["status"]
    assert status[listed[0]] == "excluded"
    assert status["0123456789ab"] == "excluded"
    assert len(status) == N_TRAIN + 1


def test_bad_data_sets_are_named(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv does not exist"):
        prepare(tmp_path, tmp_path / "store", PrepareSettings())
    (tmp_path / "train.csv").write_text("StudyInstanceUID,label\na,1\n")
    with pytest.raises(UserError, match="lacks the columns SeriesInstanceUID"):
        prepare(tmp_path, tmp_path / "store", PrepareSettings(), sources=("train",))


def test_a_uid_cannot_name_another_folder(cohort, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    table = pd.read_csv(cohort / "train.csv", dtype=str).head(1)
    table.assign(StudyInstanceUID="../../outside").to_csv(data / "train.csv", index=False)
    (tmp_path / "outside").mkdir()
    studies = prepare(data, tmp_path / "a" / "store", PrepareSettings(), sources=("train",)).studies
    assert studies["StudyInstanceUID"].str.fullmatch("[0-9a-f]{12}").all()
    assert studies["reasons"].str.startswith("its StudyInstanceUID is not a plain name").all()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "data", "outside"]
    assert not list((tmp_path / "outside").iterdir())


def test_mended_files_are_read_again(store, cohort, settings, tmp_path):
    root, data = tmp_path / "store", tmp_path / "data"
    shutil.copytree(cohort, data)
    study = store.studies.query("status == 'ok' and source == 'train'")["StudyInstanceUID"].iloc[0]
    file = next((data / "train" / study).rglob("*.dcm"))
    whole = file.read_bytes()
    file.write_bytes(whole[:500])
    broken = prepare(data, root, settings).studies.set_index("StudyInstanceUID")
    assert "unreadable" in broken.loc[study, "reasons"]
    file.write_bytes(whole)
    mended = prepare(data, root, settings).studies.set_index("StudyInstanceUID")
    assert mended.loc[study, "status"] == "ok"


def test_changed_labels_redo_their_study_alone(store, cohort, settings, tmp_path):
    root, data = tmp_path / "store", tmp_path / "data"
    shutil.copytree(store.root, root)
    shutil.copytree(cohort, data)
    table = pd.read_csv(data / "train.csv", dtype=dict.fromkeys(UIDS, str))
    study = store.studies.query("status == 'ok' and source == 'train'")["StudyInstanceUID"].iloc[0]
    table.loc[table["StudyInstanceUID"] == study, "qa_motion"] ^= 1
    table.to_csv(data / "train.csv", index=False)
    times = {f.name: f.stat().st_mtime_ns for f in (root / "records").iterdir()}
    again = prepare(data, root, settings).studies.set_index("StudyInstanceUID")
    before = store.studies.set_index("StudyInstanceUID")
    assert again.loc[study, "qa_motion"] == 1 - before.loc[study, "qa_motion"]
    changed = [
        f.stem for f in (root / "records").iterdir() if times[f.name] != f.stat().st_mtime_ns
    ]
    unread = before.index[before["reasons"].str.startswith("unreadable")]
    assert set(changed) - set(unread) == {study}


def test_exclusions_are_kept_out_with_their_reason(store, cohort, settings, tmp_path):
    study = store.studies.query("status == 'ok'")["StudyInstanceUID"].iloc[0]
    studies = prepare(cohort, tmp_path, settings, exclude={study: "poor contrast"}).studies
    row = studies.set_index("StudyInstanceUID").loc[study]
    assert (row["status"], row["reasons"]) == ("excluded", "poor contrast")
    assert not Store(tmp_path).volume_path(study).exists()


def test_shards_make_the_same_store(store, cohort, settings, tmp_path, capsys):
    given = ["--settings", settings.model_dump_json(), "--workers", "1"]
    main([str(cohort), str(tmp_path / "store"), "--shard", "2/2", *given])
    assert "studies of other shards are left to do" in capsys.readouterr().out
    assert not (tmp_path / "store" / "studies.parquet").exists()
    main([str(cohort), str(tmp_path / "store"), "--shard", "1/2", *given])
    assert contents(tmp_path / "store") == contents(store.root)
    pd.testing.assert_frame_equal(Store(tmp_path / "store").studies, store.studies)
    with pytest.raises(SystemExit):
        main([str(cohort), str(tmp_path / "store"), "--shard", "3/2", *given])
    assert "shard 3/2" in capsys.readouterr().err


def test_checksums_find_a_changed_and_a_missing_volume(store, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    assert verify(root).empty
    kept = store.studies.query("status == 'ok'")["StudyInstanceUID"].tolist()
    path = store.volume_path(kept[0]).name
    data = bytearray((root / "volumes" / path).read_bytes())
    data[len(data) // 2] ^= 1
    (root / "volumes" / path).write_bytes(data)
    store.__class__(root).volume_path(kept[1]).unlink()
    problems = dict(verify(root).itertuples(index=False, name=None))
    assert problems == {
        kept[0]: "changed since it was written",
        kept[1]: "No such file or directory",
    }


def test_no_room_is_said_before_anything_is_written(cohort, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.prepare.space.KEPT", {"masked": 1e9})
    with pytest.raises(UserError, match=r"GB left and needs about [\d.]+ GB: choose"):
        prepare(cohort, tmp_path / "store", settings)
    assert not (tmp_path / "store" / "volumes").exists()


def test_no_patient_tag_enters_the_store(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    for path in (data / "train").rglob("*.dcm"):
        tags = pydicom.dcmread(path)
        tags.PatientName, tags.PatientID, tags.InstitutionName = "Doe^Jane", "MRN-4711", "Mercy"
        tags.save_as(path)
    prepare(data, tmp_path / "store", PrepareSettings(), sources=("train",))
    written = b"".join(f.read_bytes() for f in (tmp_path / "store").rglob("*") if f.is_file())
    for tag in (b"Doe", b"Jane", b"4711", b"Mercy"):
        assert tag not in written
