"""The strict runner and the batch, on toy notebooks in a workspace of their own."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from encoders import write_chest
from nbformat.sign import NotebookNotary
from toy_workspace import Workspace, write_notebook

from batch import commands
from batch.experiment import read_experiment
from batch.fingerprint import notebook_files
from batch.notebook import run_notebook
from batch.parameters import check_parameters, read_parameters
from data_prep.images import read_image, write_image
from pekit.common.errors import UserError
from run import main


def test_batch(tmp_path, tmp_path_factory):
    """One workspace through a kill, a resume, and every kind of change."""
    space = Workspace(tmp_path)

    # Killed in the middle of `second`: no stage is taken for done that is not.
    process = space.start()
    deadline = time.monotonic() + 60
    while not space.path("second/starts").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    status, output = space.batch()
    assert (status, "is running already" in output) == (1, True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert space.path("first/metrics.json").exists()
    assert not space.path("second/metrics.json").exists()
    assert not space.path("second/02_second.ipynb").exists()

    # The same command goes on: `second` finds what its first start left, `first` is not repeated.
    status, output = space.batch()
    assert status == 0, output
    assert json.loads(space.path("second/metrics.json").read_text()) == {"starts": 2}
    assert "[first]" not in output
    assert "  second: failed or was stopped\n" in output
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    assert f"the table, by {half} threads" in output
    assert "toy: A minute and 1 MB.\n" in output
    assert space.path("first/01_first.ipynb").exists()
    assert not list(tmp_path.rglob("*.running.ipynb"))

    # Again: nothing runs, and dates of files do not matter. Nor does the place: in a copy without
    # what Snakemake remembers nothing runs either.
    shutil.copytree(tmp_path, elsewhere := tmp_path_factory.mktemp("copy") / "moved")
    shutil.rmtree(elsewhere / "runs" / "toy" / ".snakemake")
    space = Workspace(elsewhere, stages=space.stages)
    space.module.touch()
    (space.notebooks / "01_first.ipynb").touch()
    status, output = space.batch()
    assert (status, "run now: none" in output) == (0, True), output
    assert "A minute" not in output

    # A parameter changed in the middle, to a value that fails: short message, notebook kept,
    # what does not depend on it left alone.
    space.stages["second"]["params"]["N_MAX"] = 3
    status, output = space.batch()
    assert status == 1
    assert "  second: N_MAX 100 -> 3\n  third: second will run\n" in output
    assert "[second] 02_second.ipynb failed in cell [3]: 4 is more than N_MAX = 3" in output
    assert "Traceback" not in output
    assert "[first]" not in output
    assert "runs/toy/second/02_second.failed.ipynb" in output
    kept = nbformat.read(space.path("second/02_second.failed.ipynb"), as_version=4)
    assert any("N_MAX = 3" in str(cell.get("outputs")) for cell in kept.cells)
    assert not space.path("second/metrics.json").exists()
    assert not space.path("second/02_second.ipynb").exists()

    # Mended in the package file that the first stage imports: that one and all that follow. A table
    # that was edited by hand is kept.
    space.path("first/exclusions.csv").write_text("edited")
    space.module.write_text("def double(n):\n    return n + 1\n")
    status, output = space.batch()
    assert (status, "run now: first, second, third (" in output) == (0, True), output
    assert "  first: toy.py changed\n" in output
    assert "[first] your exclusions.csv is kept as exclusions.edited.csv" in output
    assert space.path("first/exclusions.edited.csv").read_text() == "edited"
    assert not space.path("second/02_second.failed.ipynb").exists()


def test_ctrl_c_says_that_the_same_call_goes_on_and_leaves_no_process(tmp_path):
    space = Workspace(tmp_path)
    process = space.start()
    deadline = time.monotonic() + 60
    while not space.path("second/starts").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("ipykernel" in " ".join(each.cmdline()) for each in started)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the kernel is in no such group
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    last = output.strip().splitlines()[-1]
    assert last == "interrupted: the same call goes on from here", output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    status, output = space.batch()
    assert (status, "[first]" in output) == (0, False), output


def test_mistyped_parameter_stops_before_anything_runs(tmp_path):
    space = Workspace(tmp_path)
    space.stages["third"]["params"] = {"SECNOD": "x"}
    status, output = space.batch()
    assert status == 1
    assert output.splitlines() == [
        "toy.yaml: stage third: 03_third.ipynb has no parameter 'SECNOD'; did you mean SECOND?"
    ]
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(
        tmp_path / "toy.ipynb",
        'RUN = ""  # folder\nEPOCHS = 3\nRATE = 1e-3\nCROP: bool = True\nSEED = None\n'
        'WIDTHS = [\n    1,\n    2,\n]\nCLUSTER = {"devices": 1, "strategy": "auto"}\n'
        'OPTIONS = {}\nRUNS = [{"stage": "predict", "seed": 0}]',
        "print('epochs', EPOCHS)\nRATE",
    )


def test_read_parameters(notebook):
    assert read_parameters(notebook) == {
        "RUN": "",
        "EPOCHS": 3,
        "RATE": 1e-3,
        "CROP": True,
        "SEED": None,
        "WIDTHS": [1, 2],
        "CLUSTER": {"devices": 1, "strategy": "auto"},
        "OPTIONS": {},
        "RUNS": [{"stage": "predict", "seed": 0}],
    }


def test_fitting_parameters_pass(notebook):
    check_parameters(notebook, {"RATE": 1, "SEED": 3, "WIDTHS": [], "CROP": False}, "here")
    check_parameters(notebook, {"CLUSTER": {"devices": 2}, "OPTIONS": {"any": "x"}}, "here")
    check_parameters(notebook, {"RUNS": [{"stage": "predict", "difficulty": 1.0}]}, "here")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"EPOCH": 3}, "here: toy.ipynb has no parameter 'EPOCH'; did you mean EPOCHS?"),
        ({"epochs": 3}, "did you mean EPOCHS?"),
        ({"XYZ": 3}, "choose one of CLUSTER, CROP, EPOCHS, OPTIONS, RATE, RUN, RUNS"),
        ({"EPOCHS": "3"}, "'3' is of type str, the default 3 is of type int"),
        ({"EPOCHS": True}, "of type bool"),
        ({"EPOCHS": 3.0}, "of type float"),
        ({"CROP": 1}, "of type int"),
        ({"RATE": "1e-4"}, "write 1.0e-3"),
        ({"RUN": None}, "of type NoneType"),
        ({"WIDTHS": [1, "2"]}, "'2' is of type str"),
        (
            {"CLUSTER": {"device": 2}},
            "CLUSTER of toy.ipynb: no 'device' in it; did you mean devices?",
        ),
        ({"CLUSTER": {"devices": "2"}}, "devices: '2' is of type str"),
    ],
)
def test_parameters_that_do_not_fit(notebook, params, message):
    with pytest.raises(UserError) as error:
        check_parameters(notebook, params, "here")
    assert message in str(error.value)


def test_parameters_cell_of_anything_but_literals_is_refused(tmp_path):
    notebook = write_notebook(tmp_path / "toy.ipynb", "A = 1\nB = A + 1", "")
    with pytest.raises(UserError, match=r"not 'B = A \+ 1'"):
        read_parameters(notebook)


def test_run_notebook_saves_parameters_and_no_absolute_path(notebook, tmp_path, capsys):
    out = tmp_path / "out" / "done.ipynb"
    run_notebook(notebook, out, {"EPOCHS": 7}, cwd=tmp_path, name="toy")
    assert "[toy] epochs 7" in capsys.readouterr().out.splitlines()
    assert str(tmp_path) not in out.read_text()
    assert sys.prefix not in out.read_text()
    assert [path.name for path in out.parent.glob("*.ipynb")] == ["done.ipynb"]
    assert NotebookNotary().check_signature(nbformat.read(out, as_version=4)), "trusted by Jupyter"


def test_notebook_that_does_not_write_what_it_must_has_failed(notebook, tmp_path):
    out = tmp_path / "done.ipynb"
    with pytest.raises(UserError, match="did not write"):
        run_notebook(notebook, out, {}, cwd=tmp_path, makes=tmp_path / "metrics.json")
    assert not out.exists()
    assert (tmp_path / "done.failed.ipynb").exists()


def test_dead_kernel_is_reported(tmp_path):
    code = "import os\nprint('so far')\nos.kill(os.getpid(), 9)"
    notebook = write_notebook(tmp_path / "toy.ipynb", "A = 1", code)
    with pytest.raises(UserError, match="its kernel died"):
        run_notebook(notebook, tmp_path / "done.ipynb", {}, cwd=tmp_path)
    assert (tmp_path / "done.failed.ipynb").exists()


def test_kernel_listens_on_no_network_port(tmp_path, capsys):
    """A TCP port is free when it is chosen and may be taken when the kernel binds it."""
    code = "from ipykernel.connect import get_connection_info as info\nprint(info(unpack=True))"
    notebook = write_notebook(tmp_path / "toy.ipynb", "A = 1", code)
    run_notebook(notebook, tmp_path / "done.ipynb", {}, cwd=tmp_path)
    assert "'transport': 'ipc'" in capsys.readouterr().out


def test_unforeseen_error_of_a_stage_is_printed(notebook, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: 1 / 0)
    assert main(["notebook", str(notebook), "--out", str(tmp_path / "done.ipynb")]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def experiment(folder: Path, text: str, name: str = "try.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: {notebok: x.ipynb}}", "unknown key 'notebok'; did you mean notebook?"),
        ("stages: {a: {notebook: x.ipynb}}", "no notebook 'x.ipynb'"),
        ("stages: {A: {notebook: x.ipynb}}", "a stage's name is of a-z"),
        ("stages: {a: {}}\nstage: {}", "unknown key 'stage'; did you mean stages?"),
        ("stages: {a: {params: {N: 1, N: 2}}}", "given twice: N"),
        ("stages: {cohort: {}, b: {needs: {A: chort}}}", "did you mean cohort?"),
        ("stages: {a: {after: [b]}, b: {after: [a]}}", "need each other: a, b"),
        ("stages: {hop1: {}, c: {like: hop}}", "did you mean hop1?"),
        ("stages: {a: {params: {RUN: x}}}", "no notebook None"),
        ("stages: {a: {share: 2}}", "stage a: share = 2: a part of the cores"),
        ("stages: {a: {share: half}}", "share = 'half': a part of the cores"),
        ("only: [tabels]\nstages: {tables: {}}", "only: no stage 'tabels'; did you mean tables?"),
        ("stages: [a]", "expected `name: value` pairs"),
        ("stages: {a: ", "not valid YAML"),
        ("extends: none.yaml\nstages: {}", "no experiment"),
        ("extends: try.yaml\nstages: {}", "extends itself"),
    ],
)
def test_bad_experiments(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        read_experiment(experiment(tmp_path, text))
    assert message in str(error.value)


def test_extends_like_and_folders(tmp_path, monkeypatch):
    notebook = write_notebook(
        tmp_path / "n.ipynb", 'RUN = ""\nUP = ""\nMODEL = ""\nEPOCHS = 1\nSIZE = 1', "1"
    )
    monkeypatch.setattr("batch.experiment.NOTEBOOKS", tmp_path)
    experiment(
        tmp_path,
        f"stages:\n  a: {{notebook: {notebook.name}, params: {{EPOCHS: 2, SIZE: 3}}}}\n"
        "  b: {like: a, needs: {UP: a, MODEL: .}, params: {EPOCHS: 4}}\n",
        "base.yaml",
    )
    small = experiment(tmp_path, "extends: base.yaml\nstages: {a: {params: {SIZE: 5}}}", "s.yaml")
    stages = read_experiment(small).stages
    assert stages["a"].params == {"RUN": "../runs/s/a", "EPOCHS": 2, "SIZE": 5}
    assert stages["b"].params == {
        "RUN": "../runs/s/b",
        "UP": "../runs/s/a",
        "MODEL": "../runs/s",
        "EPOCHS": 4,
        "SIZE": 5,
    }
    assert stages["b"].after == ("a",)
    own = experiment(
        tmp_path,
        f"extends: base.yaml\nstages:\n  d: {{notebook: {notebook.name}, needs: {{UP: a}}}}\n"
        "  c: {like: d, needs: {UP: null}}",
    )
    assert read_experiment(own).stages["c"].after == ()
    few = experiment(tmp_path, "extends: base.yaml\nonly: [a]\nstages: {}", "u.yaml")
    assert list(read_experiment(few).stages) == ["a"]
    both = experiment(tmp_path, "extends: base.yaml\nonly: [b]\nstages: {}", "v.yaml")
    assert list(read_experiment(both).stages) == ["a", "b"], "what it needs comes along"
    half = experiment(tmp_path, "extends: base.yaml\nstages: {a: {share: 0.5}}", "s.yaml")
    whole = experiment(tmp_path, "extends: base.yaml\nstages: {}", "t.yaml")
    shares = [read_experiment(path).stages["a"].share for path in (half, whole)]
    assert shares == [0.5, 1.0]


def test_local_files_follow_imports_and_no_others(tmp_path):
    for name, code in {
        "__init__": "",
        "a": "def f():\n    from pkg import b",
        "b": "from . import c\nimport numpy",
        "c": "",
        "unused": "",
    }.items():
        (tmp_path / "pkg").mkdir(exist_ok=True)
        (tmp_path / "pkg" / f"{name}.py").write_text(code)
    (tmp_path / "stray.py").touch()
    code = "%matplotlib inline\nimport numpy, stray\nfrom pkg.a import f"
    notebook = write_notebook(tmp_path / "n.ipynb", "A = 1", code)
    names = [file.relative_to(tmp_path).as_posix() for file in notebook_files(tmp_path, notebook)]
    assert names == ["pkg/__init__.py", "pkg/a.py", "pkg/b.py", "pkg/c.py"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "make predict DICOM=<folder"),
        (["--dicom", "nowhere"], "DICOM=nowhere: no such folder or image file"),
        (["--dicom", __file__], "give the folder of the DICOM files, or one image file (.nii"),
        (
            ["--dicom", ".", "--model", "runs/none"],
            "MODEL=runs/none: no experiment with a trained",
        ),
        (["--dicom", ".", "--model", ".", "--masks", "none"], "MASKS=none: no such folder"),
        (["--dicom", ".", "--series", "1.2.840.10008"], "such as SERIES=2"),
    ],
)
def test_predict_says_what_it_lacks(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *options]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def with_model(experiment: Path) -> Path:
    card = experiment / "hop2" / "model" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    return experiment


def test_model_is_an_experiment_in_every_command(tmp_path, monkeypatch, capsys):
    """By its name or its folder; by default the demo, else the newest."""
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    write_chest(tmp_path / "study")
    asked = []
    monkeypatch.setattr(
        commands, "run_notebook", lambda _, __, params, **___: asked.append(params["MODEL"])
    )
    monkeypatch.setattr(
        "pekit.inference.export.export_model",
        lambda net, *_: asked.append(net) or {"max_difference": {}},
    )
    asked_for = [("demo", "demo"), ("runs/demo", "demo"), ("", "mine")]
    with pytest.raises(UserError, match=r"MODEL=: no experiment .*; `make demo` makes runs/demo"):
        commands.predict_study("study", "", "out")
    with_model(tmp_path / "runs" / "mine")
    for model, name in asked_for[::-1]:
        commands.predict_study("study", model, "out")
        commands.export(model, "out", "onnx", "")
        predicted, exported = asked[-2:]
        assert (commands.NOTEBOOKS / predicted).resolve() == tmp_path / "runs" / name
        assert exported.resolve() == tmp_path / "runs" / name / "hop2"
        if name == "mine":
            assert capsys.readouterr().out.count("MODEL=mine") == 2
            with_model(tmp_path / "runs" / "demo")
    with pytest.raises(UserError, match=r"MODEL=runs/dmo: .*; did you mean demo\?"):
        commands.predict_study("study", "runs/dmo", "out")
    with pytest.raises(UserError, match=r"MODEL=runs/dmo: .*; did you mean demo\?"):
        commands.export("runs/dmo", "out", "onnx", "")


def test_two_predictions_of_one_study_do_not_disturb_each_other(tmp_path, monkeypatch):
    write_chest(tmp_path / "study")
    with_model(tmp_path)
    asked, seen = (str(tmp_path / "study"), str(tmp_path), str(tmp_path / "out")), []

    def while_it_runs(*_, **__):
        with pytest.raises(UserError, match="is being predicted by another call"):
            commands.predict_study(*asked)
        seen.append((tmp_path / "out" / "dicom").resolve())

    monkeypatch.setattr(commands, "run_notebook", while_it_runs)
    commands.predict_study(*asked)
    commands.predict_study(*asked)
    assert seen == [tmp_path / "study"] * 2, "the first still finds its study"
    assert not (tmp_path / "out" / "dicom").exists()


def test_masks_of_the_study_are_named_as_neutrally_as_the_study(tmp_path, monkeypatch):
    write_chest(tmp_path / "smith")
    for name in ("smith_masks", "out"):
        (tmp_path / name).mkdir()
    with_model(tmp_path)
    given = {}

    def run(notebook, made, params, **_):
        check_parameters(notebook, params, "here")
        given.update(params, masks=(commands.NOTEBOOKS / params["MASKS"]).resolve())

    monkeypatch.setattr(commands, "run_notebook", run)
    study, masks, out = (str(tmp_path / name) for name in ("smith", "smith_masks", "out"))
    commands.predict_study(study, str(tmp_path), out, masks, "precomputed")
    assert given.pop("masks") == tmp_path / "smith_masks"
    assert given["SEGMENTER"] == "precomputed"
    assert not any("smith" in value for value in given.values())
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", r'make compare NAMES="demo nocrop"'),
        ("demo", "two or more"),
        ("demo smok", r"no experiment 'smok'; did you mean smoke"),
        ("peers smoke", r"runs/peers/predict holds no predictions: make experiment NAME=peers"),
    ],
)
def test_compare_says_what_it_lacks(names, message, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    with pytest.raises(UserError, match=message):
        commands.compare(names, "predict", "")


def test_the_data_file_of_an_image_lies_beside_the_users_path(tmp_path, monkeypatch):
    voxels = np.full((60, 64, 64), -1000, np.int16)  # air, and in it a block of tissue and bone
    voxels[:, 10:54, 10:54] = 30 * np.arange(44)
    with_model(tmp_path)
    (tmp_path / "contents").mkdir()
    (tmp_path / "jane").mkdir()
    write_image(tmp_path / "jane" / "scan.mhd", voxels, (5, 5, 5), (0, 0, 0))
    for number, file in enumerate(sorted((tmp_path / "jane").iterdir())):  # as in an annex
        file.rename(tmp_path / "contents" / f"{number}")
        file.symlink_to(tmp_path / "contents" / f"{number}")
    read = []

    def run(notebook, made, params, **_):
        read.append(read_image(commands.NOTEBOOKS / params["DICOM"]).array)

    monkeypatch.setattr(commands, "run_notebook", run)
    commands.predict_study(str(tmp_path / "jane" / "scan.mhd"), str(tmp_path), str(tmp_path / "o"))
    assert (read[0] == voxels).all()
