"""Batches of studies continue after a bad study, and resume after a kill."""

import os
import signal
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest

from data_prep.errors import SetupError
from data_prep.parallel.records import Records, run_studies
from data_prep.rsna import StudyTask
from pekit.common.errors import UserError


def tasks(folder, count=5):
    rows = pd.DataFrame({"StudyInstanceUID": ["s"], "label": [0]})
    for i in range(count):
        (folder / f"study{i}").mkdir(exist_ok=True)
    return [StudyTask(f"study{i}", "train", folder / f"study{i}", rows) for i in range(count)]


def work(task, done=None):
    if done is not None:
        with done.open("a") as file:
            file.write(f"{task.study} ")
    return {"study": {"StudyInstanceUID": task.study, "status": "ok", "reasons": ""}}


def trouble(task):
    match task.study:
        case "study1":
            raise UserError(f"{task.folder}/lung.nii.gz does not exist")
        case "study2":
            return [][0]
        case "study3":
            os.kill(os.getpid(), signal.SIGKILL)
    return work(task)


def reasons(records, batch):
    return {task.study: records.read(task)["study"]["reasons"] for task in batch}


def test_done_studies_are_not_done_again(tmp_path):
    records, batch = Records(tmp_path / "records", "v1"), tasks(tmp_path)
    assert records.missing(batch) == batch
    run_studies(work, batch[:3], records)
    assert [task.study for task in records.missing(batch)] == ["study3", "study4"]
    assert len(records.missing(batch, holds=lambda record: False)) == 5
    # Other code made them, or they are of other inputs.
    assert len(Records(tmp_path / "records", "v2").missing(batch)) == 5
    changed = replace(batch[0], rows=batch[0].rows.assign(label=1))
    assert records.missing([changed, batch[1]]) == [changed]
    spoilt = replace(batch[1], problems=("left out",))
    assert records.missing([spoilt]) == [spoilt]
    (tmp_path / "records" / "study2.json").write_text('{"key": "ab')
    assert [task.study for task in records.missing(batch)] == ["study2", "study3", "study4"]


def test_unread_studies_are_done_again_when_their_files_change(tmp_path):
    records, (task, *_) = Records(tmp_path / "records", "v1"), tasks(tmp_path)
    records.write(task, {"read": False, "study": {}})
    assert records.missing([task]) == []
    (task.folder / "a.dcm").write_text("fetched again")
    assert records.missing([task]) == [task]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_goes_on_past_bad_studies(tmp_path, workers):
    records, batch = Records(tmp_path / "records", "v1"), tasks(tmp_path)
    if workers == 1:  # in this process, which must not be killed
        batch.pop(3)
    run_studies(trouble, batch, records, workers)
    assert records.missing(batch) == batch[3:4] * (workers - 1), "but for the one that died"
    found = reasons(records, batch)
    # The path of the file is private.
    assert found.pop("study1") == "lung.nii.gz does not exist"
    assert found.pop("study2").startswith("unexpected IndexError at test_records.py:")
    if workers == 2:
        assert found.pop("study3").startswith("the process that read it died")
    assert set(found.values()) == {""}


def dies(task, until=None):
    """Kill the process until the file exists, with which a test signals that memory is free."""
    if task.study == "study1" and not until.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return work(task, until.with_name("log"))


def test_a_study_whose_process_died_is_tried_once_more(tmp_path):
    batch, until = tasks(tmp_path, 3), tmp_path / "memory"
    trying = partial(dies, until=until)
    for name, later in (("passing", True), ("lasting", False)):
        until.unlink(missing_ok=True)
        records = Records(tmp_path / name, "v1")
        run_studies(trying, batch, records, 2)
        assert records.missing(batch) == [batch[1]]
        assert reasons(records, batch)["study1"].endswith("the next call tries it once more")
        if later:
            until.touch()
        (tmp_path / "log").unlink()
        # In a separate process: in this one it would end the tests.
        run_studies(trying, records.missing(batch), records, 1)
        assert records.missing(batch) == [], "it is not tried a third time"
        again = (tmp_path / "log").read_text().split() if later else []
        assert again == ["study1"] * later, "nothing else is done again"
        found = reasons(records, batch)
        assert (found["study1"] == "") == later
        assert "once more" not in found["study1"]
    # As for any study that could not be read, it is done again if its files change.
    (batch[1].folder / "a.dcm").write_text("fetched again")
    assert records.missing(batch) == [batch[1]]


def test_a_full_disk_ends_the_batch(tmp_path, monkeypatch):
    def full(task):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run_studies(full, tasks(tmp_path), Records(tmp_path / "records", "v1"))


def test_what_every_study_lacks_ends_the_batch(tmp_path):
    def lacks(task):
        raise SetupError("no weights")

    with pytest.raises(SetupError, match="no weights"):
        run_studies(lacks, tasks(tmp_path), Records(tmp_path / "records", "v1"))


def test_progress_counts_studies(tmp_path):
    seen = []

    def progress(iterable, total, desc):
        seen.append((total, desc))
        return iterable

    log = tmp_path / "done"
    run_studies(
        partial(work, done=log), tasks(tmp_path), Records(tmp_path / "r", "v1"), 1, progress
    )
    assert seen == [(5, "studies")]
    assert log.read_text().split() == [f"study{i}" for i in range(5)]
