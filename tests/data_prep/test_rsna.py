"""Studies listed in the CSVs, folders, and contradictions between them."""

import os
import re

import pandas as pd
import pytest

from data_prep.rsna import find_studies, read_listing
from pekit.common.errors import UserError
from pekit.dataset.schema import LABELS, UIDS


def write_csv(data, source, studies, slices=2, **changes):
    """A CSV with `slices` rows for each study, and their folders."""
    rows = [
        dict(zip(UIDS, (study, f"e{study[1:]}", f"{z}{study[1:]}"), strict=True))
        for study in studies
        for z in range(slices)
    ]
    table = pd.DataFrame(rows, columns=list(UIDS))
    if source == "train":
        table = table.assign(**(dict.fromkeys(LABELS, 0) | {"negative_exam_for_pe": 1}))
    for name, value in changes.items():
        table[name] = value
    data.mkdir(exist_ok=True)
    table.to_csv(data / f"{source}.csv", index=False)
    for study in studies:
        if "/" not in study:
            (data / source / study).mkdir(parents=True, exist_ok=True)


A, B, C = "a00000000001", "a00000000002", "a00000000003"


def test_each_study_with_its_rows(tmp_path):
    write_csv(tmp_path, "train", [B, A])
    write_csv(tmp_path, "test", [C], slices=3)
    tasks = find_studies(tmp_path)
    assert [(task.study, task.source, len(task.rows)) for task in tasks] == [
        (A, "train", 2), (B, "train", 2), (C, "test", 3),
    ]  # fmt: skip
    assert tasks[0].folder == tmp_path / "train" / A
    assert tasks[0].rows["StudyInstanceUID"].unique().tolist() == [A]
    assert not any(task.problems for task in tasks)
    assert [task.study for task in find_studies(tmp_path, limit=1)] == [A, C]


def test_folders_and_listing_need_not_agree(tmp_path):
    write_csv(tmp_path, "train", [A, B])
    (tmp_path / "train" / A).rmdir()
    (tmp_path / "train" / C).mkdir()
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train" / "loop")
    tasks = {task.folder.name: task for task in find_studies(tmp_path, ("train",))}
    assert set(tasks) == {A, B, C, "loop"}
    assert len(tasks[A].rows) == 2
    assert tasks[C].rows.empty
    assert tasks["loop"].rows.empty


def test_two_studies_of_one_uid(tmp_path):
    write_csv(tmp_path, "train", [A, B])
    write_csv(tmp_path, "test", [A])
    tasks = find_studies(tmp_path)
    assert [task.study for task in tasks] == [A, B]
    assert tasks[0].problems == ("listed as train and as test: two studies with one UID",)


@pytest.mark.parametrize("column", ["SeriesInstanceUID", "SOPInstanceUID"])
def test_uids_shared_between_studies(tmp_path, column):
    write_csv(tmp_path, "train", [A, B, C])
    table = pd.read_csv(tmp_path / "train.csv", dtype=str)
    table.loc[0, column] = table.loc[2, column]
    table.to_csv(tmp_path / "train.csv", index=False)
    problems = {task.study: task.problems for task in find_studies(tmp_path, ("train",))}
    shares = (f"shares a {column} with another study",)
    assert problems == {A: shares, B: shares, C: ()}


def test_a_path_is_no_uid(tmp_path):
    write_csv(tmp_path / "data", "train", ["../out", A])
    (tmp_path / "data" / "out").mkdir()
    tasks = find_studies(tmp_path / "data", ("train",))
    odd = next(task for task in tasks if task.problems)
    assert odd.problems == ("its StudyInstanceUID is not a plain name",)
    assert odd.folder.parent == tmp_path / "data" / "train"
    assert "/" not in odd.study
    assert len(odd.rows) == 2


def test_uids_that_are_not_rsnas_are_hashed(tmp_path):
    write_csv(tmp_path, "train", ["1.2.840.1"])
    task = find_studies(tmp_path, ("train",))[0]
    assert len(task.study) == 12
    assert task.folder.name == "1.2.840.1"


def test_bad_listings_are_named(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv does not exist"):
        read_listing(tmp_path, "train")
    (tmp_path / "train.csv").write_text("StudyInstanceUID,label\na,1\n")
    with pytest.raises(UserError, match="lacks the columns SeriesInstanceUID"):
        read_listing(tmp_path, "train")
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a CSV table"):
        read_listing(tmp_path, "train")
    (tmp_path / "train.csv").write_text("StudyInstanceUID,label\na,1\nb,1,0\n")
    with pytest.raises(UserError, match="is not a CSV table"):
        read_listing(tmp_path, "train")
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(UserError, match="is not a CSV table"):
        read_listing(tmp_path, "train")
    with pytest.raises(UserError, match="unknown source 'tests'"):
        find_studies(tmp_path, ("tests",))


def test_labels_that_are_no_numbers_are_left_to_the_audit(tmp_path):
    write_csv(tmp_path, "train", [A], qa_motion="yes")
    table = read_listing(tmp_path, "train")
    assert table["qa_motion"].tolist() == ["yes", "yes"]
    assert table["central_pe"].dtype == "int8"


def test_rows_of_a_study_need_not_stand_together(tmp_path):
    write_csv(tmp_path, "train", [C, A, B], slices=3)
    table = pd.read_csv(tmp_path / "train.csv", dtype=str)
    table.iloc[[0, 3, 6, 1, 4, 7, 2, 5, 8]].to_csv(tmp_path / "train.csv", index=False)
    for task, letter in zip(find_studies(tmp_path, ("train",)), (A, B, C), strict=True):
        assert task.study == letter
        assert task.rows["SOPInstanceUID"].tolist() == [f"{z}{letter[1:]}" for z in range(3)]
        assert task.problems == ()


def test_a_folder_whose_name_is_not_utf8_stops_nothing(tmp_path):
    write_csv(tmp_path, "train", [A])
    os.mkdir(os.fsencode(tmp_path / "train") + b"/M\xfcller")
    tasks = find_studies(tmp_path, ("train",))
    assert len(tasks) == 2
    odd = next(task for task in tasks if task.study != A)
    assert re.fullmatch("[0-9a-f]{12}", odd.study)
    assert odd.folder.is_dir()
    assert odd.rows.empty
