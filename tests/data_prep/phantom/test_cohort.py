"""The cohort on disk: RSNA layout, variety of headers, truth, resuming."""

import errno
import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from data_prep.phantom import CohortConfig, PhantomConfig, make_phantom, read_truth, write_cohort
from data_prep.phantom import study as cohort_study
from data_prep.phantom.files import HeaderStyle, draw_style, write_series
from pekit.common.errors import UserError
from pekit.dataset.schema import EXAM_LABELS, LANDMARKS

COLUMNS = (
    "StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,pe_present_on_image,negative_exam_for_pe,"
    "qa_motion,qa_contrast,flow_artifact,rv_lv_ratio_gte_1,rv_lv_ratio_lt_1,leftsided_pe,"
    "chronic_pe,true_filling_defect_not_pe,rightsided_pe,acute_and_chronic_pe,central_pe,"
    "indeterminate"
)
SMALL = PhantomConfig(shape=(20, 64, 64))
CONFIG = CohortConfig(n_train=12, n_test=4, seed=3, phantom=SMALL, broken_fraction=0.2)
FEW = CohortConfig(n_train=3, n_test=1, seed=5, phantom=SMALL)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    write_cohort(out, CONFIG)
    return out


def digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".npz")
    return {str(f.relative_to(out)): hashlib.md5(f.read_bytes()).hexdigest() for f in files}


def hu_of(dataset: pydicom.Dataset) -> np.ndarray:
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return dataset.pixel_array * slope + intercept


def test_tables_have_the_columns_and_rows_of_the_data_set(written):
    assert (written / "train.csv").read_text().splitlines()[0] == COLUMNS
    assert (written / "truth/test_labels.csv").read_text().splitlines()[0] == COLUMNS
    for part, table in (("train", "train.csv"), ("test", "test.csv")):
        rows = pd.read_csv(written / table, dtype=str)
        listed = {"/".join(uids) + ".dcm" for uids in rows.iloc[:, :3].itertuples(index=False)}
        files = {str(f.relative_to(written / part)) for f in (written / part).rglob("*.dcm")}
        assert listed == files
        assert len(listed) == len(rows)
    train = pd.read_csv(written / "train.csv")
    assert train.StudyInstanceUID.nunique() == 12
    assert train.iloc[:, :3].stack().str.fullmatch("[0-9a-f]{12}").all()
    per_study = train.groupby("StudyInstanceUID")[list(EXAM_LABELS)].nunique()
    assert (per_study == 1).all(axis=None), "the exam columns repeat"
    assert list(pd.read_csv(written / "test.csv").columns) == COLUMNS.split(",")[:3]


def test_sample_submission_is_label_major_then_slices(written):
    sample = pd.read_csv(written / "sample_submission.csv")
    test = pd.read_csv(written / "test.csv")
    studies = sorted(test.StudyInstanceUID.unique())
    order = (
        "negative_exam_for_pe",
        "rv_lv_ratio_gte_1",
        "rv_lv_ratio_lt_1",
        "leftsided_pe",
        "chronic_pe",
        "rightsided_pe",
        "acute_and_chronic_pe",
        "central_pe",
        "indeterminate",
    )
    assert len(studies) == 4
    assert sample.id.tolist()[:36] == [f"{s}_{label}" for label in order for s in studies]
    assert sample.id.tolist()[36:] == test.SOPInstanceUID.tolist()
    assert (sample.label == 0.5).all()


def test_rows_and_instance_numbers_do_not_give_z_away(written):
    train = pd.read_csv(written / "train.csv")
    broken = set(pd.read_csv(written / "truth/defects.csv").StudyInstanceUID)
    study = next(s for s in train.StudyInstanceUID.unique() if s not in broken)
    rows = train[train.StudyInstanceUID == study]
    z_of = {}
    for path in (written / "train" / study).rglob("*.dcm"):
        z_of[path.stem] = float(pydicom.dcmread(path).ImagePositionPatient[2])
    truth = read_truth(written, study)
    by_z = sorted(z_of, key=z_of.get)
    assert by_z == truth["sop_uids"].tolist(), "truth lists slices from feet to head"
    assert rows.SOPInstanceUID.tolist() != by_z
    assert rows.SOPInstanceUID.tolist() != by_z[::-1]
    labels = rows.set_index("SOPInstanceUID").pe_present_on_image
    assert labels[by_z].tolist() == truth["slice_labels"].tolist()
    heights = np.diff([z_of[uid] for uid in by_z])
    assert heights == pytest.approx(truth["spacing_mm"][0], abs=1e-3)


def test_truth_holds_masks_box_and_landmarks(written):
    table = pd.read_csv(written / "truth/landmarks.csv").set_index(["StudyInstanceUID", "name"])
    for part in ("train", "test"):
        for study in (path.name for path in (written / part).iterdir()):
            truth = read_truth(written, study)
            lung, heart, clot = (truth[name] for name in ("lung", "heart", "clot"))
            assert lung.dtype == heart.dtype == clot.dtype == bool
            assert lung.shape == (len(truth["sop_uids"]), 64, 64)
            assert clot.any() == truth["slice_labels"].any()
            inside = np.zeros_like(lung)
            inside[tuple(slice(*side) for side in truth["box_zyx"])] = True
            assert inside[lung | heart].all()
            for name, point in zip(LANDMARKS, truth["landmarks_mm"], strict=True):
                assert ((study, name) in table.index) == np.isfinite(point).all()
                if np.isfinite(point).all():
                    row = table.loc[(study, name), ["z_mm", "y_mm", "x_mm"]]
                    assert row.to_numpy(float) == pytest.approx(point, abs=1e-3)


def test_positive_exams_keep_a_positive_slice_even_where_slices_are_missing(written):
    rows = [pd.read_csv(written / n) for n in ("train.csv", "truth/test_labels.csv")]
    exams = pd.concat(rows).groupby("StudyInstanceUID").max()
    positive = (exams.rv_lv_ratio_gte_1 + exams.rv_lv_ratio_lt_1) == 1
    assert (exams.pe_present_on_image == positive).all()


def test_gap_avoids_the_labelled_slices():
    labels = np.ones(20, np.uint8)
    labels[9:13] = 0
    for seed in range(20):
        gap = cohort_study.draw_gap(labels, np.random.default_rng(seed))
        assert 2 <= len(gap) <= 4
        assert set(gap) <= {9, 10, 11, 12}


def test_broken_studies_are_listed_and_broken(written):
    defects = pd.read_csv(written / "truth/defects.csv").set_index("StudyInstanceUID").kind
    assert len(defects) == 4, "a fifth of 16 studies, rounded up"
    assert set(defects) == {"missing_slices", "truncated_file"}
    for study, kind in defects.items():
        folder = next(p for p in written.glob(f"t*/{study}") if p.is_dir())
        truth, files = read_truth(written, study), list(folder.rglob("*.dcm"))
        assert truth["defect"] == kind
        sizes = [f.stat().st_size for f in files]
        if kind == "missing_slices":
            z = sorted(float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in files)
            assert max(np.diff(z)) > 2.5 * truth["spacing_mm"][0]
            assert len(files) == truth["present"].sum() < len(truth["sop_uids"])
        else:
            short = files[int(np.argmin(sizes))]
            assert min(sizes) < 0.65 * np.median(sizes)
            with pytest.raises((ValueError, EOFError, RuntimeError, OSError)):
                _ = pydicom.dcmread(short).pixel_array


def test_no_defects_table_rows_without_broken_studies(tmp_path):
    write_cohort(tmp_path, FEW.model_copy(update={"broken_fraction": 0.0}))
    assert (tmp_path / "truth/defects.csv").read_text() == "StudyInstanceUID,kind\n"


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLosslessSV1]
)
@pytest.mark.parametrize(
    ("slope", "intercept", "signed"),
    [(1, -1024, False), (1, 0, True), (1, -1024, True), (2, -1024, True), (0.5, -1000, True)],
)
def test_files_give_back_the_hounsfield_units(tmp_path, syntax, slope, intercept, signed):
    phantom = make_phantom(1, PhantomConfig(shape=(8, 64, 64)))
    style = HeaderStyle(str(syntax), slope, intercept, signed, True, "down", "")
    sops = [f"{z:012x}" for z in range(8)]
    write_series(tmp_path, phantom, style, ("a" * 12, "b" * 12, sops), np.random.default_rng(0))
    for z, sop in enumerate(sops):
        dataset = pydicom.dcmread(tmp_path / f"{sop}.dcm")
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert dataset.InstanceNumber == 8 - z
        hu = hu_of(dataset)
        y, x = np.mgrid[:64, :64] - 31.5
        circle = np.hypot(y, x) <= 32
        assert np.abs(hu - phantom.hu[z])[circle].max() <= (1 if slope == 2 else 0)
        assert (hu[~circle] == (-2000 if signed else intercept)).all()
        assert dataset.PixelPaddingValue * slope + intercept == hu[0, 0]
        assert str(dataset.PatientName) == dataset.PatientID == ""
        position = [phantom.origin_mm[2], phantom.origin_mm[1], 0]
        position[2] = phantom.origin_mm[0] + z * phantom.spacing_mm[0]
        assert np.allclose(np.array(dataset.ImagePositionPatient, float), position, atol=1e-3)
        assert dataset.PixelSpacing == pytest.approx(phantom.spacing_mm[1:], abs=1e-3)


def test_headers_vary_at_the_real_proportions():
    styles = [draw_style(np.random.default_rng(seed)) for seed in range(3000)]

    def share(test) -> float:
        return np.mean([test(style) for style in styles])

    assert share(lambda s: s.syntax == ImplicitVRLittleEndian) == pytest.approx(0.70, abs=0.03)
    assert share(lambda s: s.syntax == ExplicitVRLittleEndian) == pytest.approx(0.22, abs=0.03)
    assert share(lambda s: s.syntax == JPEGLosslessSV1) == pytest.approx(0.08, abs=0.02)
    assert share(lambda s: s.manufacturer == "") > 0.85
    assert 0.1 < share(lambda s: s.padded) < 0.6
    assert {s.numbering for s in styles} == {"up", "down", "shuffled"}
    assert len({(s.slope, s.intercept, s.signed) for s in styles}) >= 5


def test_the_number_of_workers_changes_no_byte(tmp_path):
    for workers in (1, 2):
        write_cohort(tmp_path / str(workers), FEW, workers)
    one, two = digests(tmp_path / "1"), digests(tmp_path / "2")
    assert one == two
    assert sum(name.endswith(".dcm") for name in one) > 50
    for study in (p.name for p in (tmp_path / "1/train").iterdir()):
        first, second = (read_truth(tmp_path / n, study) for n in ("1", "2"))
        assert np.array_equal(first["clot"], second["clot"])


def test_another_seed_gives_other_studies(tmp_path, written):
    write_cohort(tmp_path, CONFIG.model_copy(update={"seed": 4, "n_train": 1, "n_test": 0}))
    assert not {p.name for p in (tmp_path / "train").iterdir()} & {
        p.name for p in (written / "train").iterdir()
    }


def test_a_second_call_writes_nothing(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_cohort(written, CONFIG)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path):
    def stop_after_two(studies, total, desc):
        assert total == 4
        for count, study in enumerate(studies, 1):
            yield study
            if count == 2:
                raise KeyboardInterrupt

    whole, part = tmp_path / "whole", tmp_path / "part"
    write_cohort(whole, FEW)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(part, FEW, progress=stop_after_two)
    assert not (part / "train.csv").exists()
    kept = {p: p.stat().st_mtime_ns for p in part.rglob("*.dcm")}
    (part / ".incoming/0123456789ab").mkdir(parents=True, exist_ok=True)
    write_cohort(part, FEW)
    assert kept
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert digests(part) == digests(whole)
    assert not (part / ".incoming").exists()


def test_a_deleted_study_is_written_again(tmp_path):
    write_cohort(tmp_path, FEW)
    before = digests(tmp_path)
    study = next((tmp_path / "train").iterdir())
    study.rename(tmp_path.parent / f"{tmp_path.name}-gone")
    write_cohort(tmp_path, FEW)
    assert digests(tmp_path) == before


def test_another_cohort_in_the_same_folder_is_refused(written):
    with pytest.raises(UserError, match="cohort with other settings"):
        write_cohort(written, CONFIG.model_copy(update={"seed": 99}))


def test_a_folder_of_other_data_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("mine")
    with pytest.raises(UserError, match=r"train\.csv but no cohort\.json"):
        write_cohort(tmp_path, FEW)
    assert [p.name for p in tmp_path.iterdir()] == ["train.csv"]


def test_a_full_disk_is_explained_and_leaves_no_half_study(tmp_path, monkeypatch):
    def full(folder, *args):
        (folder / "half.dcm").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cohort_study, "write_series", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room"):
        write_cohort(tmp_path, FEW)
    assert not (tmp_path / "train").exists()
    assert not (tmp_path / "train.csv").exists()


def test_truth_of_an_unknown_study_is_refused(written):
    with pytest.raises(UserError, match="ffffffffffff"):
        read_truth(written, "ffffffffffff")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n_trian": 3}, "n_trian"),
        ({"n_train": 0}, "n_train"),
        ({"phantom": {"dificulty": 1}}, "dificulty"),
        ({"slice_jitter": 45}, "slice_jitter 45"),
        ({"broken_fraction": 1.5}, "broken_fraction"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        CohortConfig(**({"n_train": 2, "n_test": 1} | settings))


def test_a_study_is_made_and_written_within_its_budget(tmp_path):
    """At most 0.3 s on one core for 48 slices of 128 x 128."""
    spent = []
    for index in range(4):
        task = cohort_study.Task("train", index, 0, "", PhantomConfig(), 0)
        start = time.process_time()
        cohort_study.write_study(tmp_path, task)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.3
