"""What decides that a stage runs again: the record in its folder; and the reason that is said."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from toy_workspace import THIRD, Workspace, write_notebook

from batch.adopt import adopt
from batch.checks import check_files
from batch.experiment import Experiment, read_experiment
from batch.fingerprint import fingerprints
from batch.record import begin, end, keep_edited, stages_to_run
from pekit.common.errors import UserError

READS = 'RUN = ""\nFIRST = ""\nDATA = "../runs/lab/cohort"\nTRAIN = {"lr": 0.1}'


class Space(Workspace):
    """A workspace whose stages are pretended to run: they leave a table."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        write_notebook(self.notebooks / "02_second.ipynb", READS, "import data_prep.toy")
        self.data = root / "data"
        (self.data / "train" / "study").mkdir(parents=True)
        (self.data / "train.csv").write_text("study,label\n1,0\n")
        (self.data / "train" / "study" / "1.dcm").write_text("pixels")
        self.stages["second"]["params"] = {"DATA": "../data"}
        self.runs = 0

    def read(self) -> Experiment:
        return read_experiment(self.write())

    def reasons(self) -> dict[str, str]:
        experiment = self.read()
        return stages_to_run(experiment, fingerprints(experiment))

    def run(self) -> None:
        experiment = self.read()
        prints = fingerprints(experiment)
        reasons = stages_to_run(experiment, prints)
        for name in reasons:
            keep_edited(experiment.folder / name)
        for name in reasons:
            folder, made = experiment.folder / name, prints[name]
            folder.mkdir(parents=True, exist_ok=True)
            fingerprint = {"fingerprint": made.digest, "parts": made.parts}
            record = begin(
                experiment.folder, name, list(experiment.stages[name].after), fingerprint
            )
            self.runs += 1
            (folder / "metrics.json").write_text(json.dumps({"run": self.runs}))
            (folder / "exclusions.csv").write_text("study,reason\n")
            end(folder, record)


@pytest.fixture
def space(tmp_path, monkeypatch):
    for module in ("experiment", "notebook"):
        monkeypatch.setattr(f"batch.{module}.NOTEBOOKS", tmp_path / "notebooks")
        monkeypatch.setattr(f"batch.{module}.ROOT", tmp_path)
    space = Space(tmp_path)
    assert space.reasons() == dict.fromkeys(space.stages, "not run yet")
    space.run()
    assert space.reasons() == {}
    return space


def test_dates_text_and_outputs_do_not_count(space):
    for file in space.root.rglob("*"):
        os.utime(file, (1e9, 1e9))
    path = space.notebooks / "01_first.ipynb"
    by_hand = nbformat.read(path, as_version=4)
    by_hand.cells[0].source = "# Other words"
    by_hand.cells[2].outputs = [nbformat.v4.new_output("stream", text="doubling 1\n")]
    nbformat.write(by_hand, path)
    (space.module.parent / "unused.py").touch()
    assert space.reasons() == {}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (
            lambda space: space.stages["first"].update(params={"N": 3}),
            {"first": "N 2 -> 3", "second": "first will run", "third": "second will run"},
        ),
        (
            lambda space: space.stages["second"]["params"].update(TRAIN={"lr": 0.2}),
            {"second": "TRAIN.lr 0.1 -> 0.2", "third": "second will run"},
        ),
        (
            lambda space: write_notebook(
                space.notebooks / "02_second.ipynb",
                READS.replace("0.1", "0.2"),
                "import data_prep.toy",
            ),
            {"second": "TRAIN.lr 0.1 -> 0.2", "third": "second will run"},
        ),
        (
            lambda space: space.module.write_text("def double(n):\n    return n + n\n"),
            {"first": "toy.py changed", "second": "toy.py changed", "third": "second will run"},
        ),
        (
            lambda space: write_notebook(
                space.notebooks / "03_third.ipynb", 'RUN = ""\nSECOND = ""', THIRD + "\n1"
            ),
            {"third": "03_third.ipynb changed"},
        ),
        (
            lambda space: (space.data / "train.csv").write_text("study,label\n1,1\n"),
            {"second": "train.csv of DATA changed", "third": "second will run"},
        ),
        (
            lambda space: (space.data / "train" / "study" / "2.dcm").touch(),
            {"second": "other files of DATA changed", "third": "second will run"},
        ),
        (
            lambda space: (space.data / "train" / "study" / "1.dcm").write_text("other pixels"),
            {"second": "other files of DATA changed", "third": "second will run"},
        ),
        (
            lambda space: space.path("first/exclusions.csv").write_text("study,reason\n1,mine\n"),
            {"second": "first/exclusions.csv changed", "third": "second will run"},
        ),
        (
            lambda space: space.path("second/metrics.json").write_text('{"by": "hand"}'),
            {"second": "its metrics.json is of another run", "third": "second will run"},
        ),
        (
            lambda space: space.path("second/metrics.json").unlink(),
            {"second": "not run yet", "third": "second will run"},
        ),
        (
            lambda space: space.path("second/fingerprint.json").unlink(),
            {"second": "no record says what made its results", "third": "second will run"},
        ),
    ],
)
def test_each_change_is_seen_and_said(space, change, reasons):
    change(space)
    assert space.reasons() == reasons
    space.run()
    assert space.reasons() == {}


def test_a_default_that_is_stated_changes_nothing(space):
    space.stages["second"]["params"]["TRAIN"] = {"lr": 0.1}
    assert space.reasons() == {}


def test_what_ran_meanwhile_is_seen(space):
    """A batch of one stage alone: those that need it are out of date afterwards."""
    space.path("first/metrics.json").unlink()
    whole = dict(space.stages)
    space.stages = {"first": whole["first"]}
    space.run()
    space.stages = whole
    assert space.reasons() == {"second": "first ran", "third": "second will run"}


def test_a_copied_or_renamed_workspace_runs_nothing(space, tmp_path_factory, monkeypatch):
    """With new dates, in another place, under another name of the experiment and of the data."""
    moved = tmp_path_factory.mktemp("other") / "place"
    shutil.copytree(space.root, moved, copy_function=shutil.copyfile)
    for module in ("experiment", "notebook"):
        monkeypatch.setattr(f"batch.{module}.NOTEBOOKS", moved / "notebooks")
        monkeypatch.setattr(f"batch.{module}.ROOT", moved)
    (moved / "data").rename(moved / "set")
    (moved / "runs" / "toy").rename(moved / "runs" / "mine")
    yaml = (moved / "notebooks" / "experiments" / "toy.yaml").read_text()
    named = moved / "notebooks" / "experiments" / "mine.yaml"
    named.write_text(yaml.replace("../data", str(moved / "set")))
    experiment = read_experiment(named)
    assert stages_to_run(experiment, fingerprints(experiment)) == {}
    for record in moved.rglob("fingerprint.json"):
        assert str(space.root) not in record.read_text()


def test_an_edited_table_is_kept_when_its_stage_runs_again(space, capsys):
    space.path("first/exclusions.csv").write_text("study,reason\n1,mine\n")
    space.run()
    space.stages["first"]["params"] = {"N": 5}
    space.run()
    assert space.path("first/exclusions.edited.csv").read_text() == "study,reason\n1,mine\n"
    assert space.path("first/exclusions.csv").read_text() == "study,reason\n"
    assert "[first] your exclusions.csv is kept as exclusions.edited.csv" in capsys.readouterr().out
    assert space.reasons() == {}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"DATA": "../nowhere"}, r"stage second: DATA: there is no .*nowhere: set DATA in .*toy"),
        ({"DATA": "nowhere"}, "DATA: there is no .*notebooks/nowhere"),
        ({}, "stage second: DATA is not given; its default is of runs by hand .*set it by needs"),
    ],
)
def test_files_that_no_stage_makes_are_looked_for(space, params, message):
    space.stages["second"]["params"] = params
    with pytest.raises(UserError, match=message):
        check_files(space.read())


def extended(space, **stages) -> Experiment:
    """An experiment that extends the one of the workspace, which has run."""
    path = space.write()
    other = path.with_name("other.yaml")
    other.write_text(json.dumps({"extends": path.name, "stages": stages}))
    return read_experiment(other)


def take_over(experiment: Experiment) -> tuple[dict[str, list[str]], dict[str, str]]:
    experiment.folder.mkdir(parents=True, exist_ok=True)
    prints = fingerprints(experiment)
    taken = adopt(experiment, prints, stages_to_run(experiment, prints))
    return taken, stages_to_run(experiment, prints)


def test_what_another_experiment_finished_is_taken_over(space):
    experiment = extended(space, second={"params": {"TRAIN": {"lr": 0.3}}})
    taken, left = take_over(experiment)
    assert [*taken.values()] == [["first"]]
    assert list(left) == ["second", "third"]
    assert (experiment.folder / "first" / "metrics.json").exists()
    assert take_over(experiment)[0] == {}, "once"


def test_nothing_is_taken_over_that_is_out_of_date_or_edited_there(space):
    base = space.read()
    (base.folder / "first" / "exclusions.csv").write_text("study,reason\n1,by hand\n")
    assert [*take_over(extended(space))[0].values()] == [["first"]]
    # `second` was made from the table before it was edited.
    space.stages["first"].update(params={"N": 3})
    shutil.rmtree(extended(space).folder)
    assert take_over(extended(space))[0] == {}


def test_large_files_are_linked_and_what_changes_here_changes_nothing_there(space):
    base = space.read()
    volume, log = base.folder / "first" / "store" / "a.bin", base.folder / "first" / "log.csv"
    volume.parent.mkdir()
    volume.write_bytes(bytes(200_000))
    log.write_text("step\n1\n")
    experiment = extended(space)
    take_over(experiment)
    assert (experiment.folder / "first" / "store" / "a.bin").samefile(volume)
    with (experiment.folder / "first" / "log.csv").open("a") as file:
        file.write("2\n")
    assert log.read_text() == "step\n1\n"
