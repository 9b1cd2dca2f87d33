import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from wandb.util import get_core_path

from pekit.common.errors import UserError
from pekit.common.files import hash_path
from pekit.tracking.csv_log import CsvLog, to_json, without_paths
from pekit.tracking.provenance import git_state
from pekit.tracking.run import Run


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """A machine without a W&B account and without WANDB_MODE."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def disabled(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def inspect(folder: Path) -> tuple[str, list[dict]]:
    """An offline run's file for W&B, as text and as records."""
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    # As `wandb leet inspect --json`, whose start takes a second.
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command += ["--run-file", str(log.resolve()), str(log.resolve().parents[1])]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return shown, [json.loads(line) for line in shown.splitlines()]


def test_offline_run_holds_the_record_and_nothing_of_the_machine(tmp_path, no_account):
    folder = tmp_path / "runs" / "demo" / "hop1_level1p5_seed7"
    settings = {"epochs": 3, "encoder": "lite0", "data": {"root": "/data/SMITH_JOHN", "size": 96}}
    table = pd.DataFrame({"study": ["1a2b", None], "p": [0.5, np.nan], "n": [3, 4]})
    figure = Figure()
    figure.subplots().plot([0, 1])
    with Run(folder, settings, seed=7, inputs={"split": "abc"}, job="train") as run:
        print("text-of-the-console")
        run.log({"loss": 0.5}, step=10)
        run.log({"loss": np.float32(0.25), "auroc": 0.75}, step=20)
        run.figure("curves", figure)
        run.table("studies", table)
        assert read(folder / "manifest.json")["status"] == "unfinished"
        assert not (folder / "metrics.json").exists()
        run.finish({"auroc": np.float64(0.9), "f1": float("nan")})

    assert read(folder / "params.json") == settings
    assert read(folder / "metrics.json") == {"auroc": 0.9, "f1": None}
    assert (folder / "log.csv").read_text() == "step,loss,auroc\n10,0.5,\n20,0.25,0.75\n"
    assert (folder / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "tables" / "studies.csv").read_text() == "study,p,n\n1a2b,0.5,3\n,,4\n"
    manifest = read(folder / "manifest.json")
    assert manifest["status"] == "finished"
    assert manifest["wandb"]["mode"] == "offline"
    assert (manifest["seed"], manifest["inputs"]) == (7, {"split": "abc"})
    assert manifest["packages"]["pandas"] == pd.__version__
    assert manifest["device"]["processors"] >= 1

    shown, records = inspect(folder)
    start = next(record["run"] for record in records if record["type"] == "run")
    config = {key: value for key, value in start["config"]["update"].items() if key != "_wandb"}
    assert config == {
        "epochs": 3,
        "encoder": "lite0",
        "data": {"size": 96},
        "seed": 7,
        "axes": {"level": 1.5, "seed": 7},
        "git": manifest["git"],
        "inputs": {"split": {"hash": "abc"}},
    }
    assert (start["display_name"], start["run_group"]) == ("demo/hop1_level1p5_seed7", "demo")
    assert start["job_type"] == "train"
    assert start["tags"] == ["demo", "train", "hop1", "level1p5", "seed7"]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [(item["step"], item["loss"]) for item in history if "loss" in item] == [
        (10, 0.5),
        (20, 0.25),
    ]
    assert any("figures/curves.path" in item for item in history)
    (logged,) = [item for item in history if "tables/studies.path" in item]
    assert logged["tables/studies._type"] == "table-file"
    (written,) = folder.glob("wandb/offline-*/files/media/table/**/*.table.json")
    assert read(written) == {
        "columns": ["study", "p", "n"],
        "data": [["1a2b", 0.5, 3], [None, None, 4]],
    }
    summary = [record["summary"]["update"] for record in records if record["type"] == "summary"]
    assert any(update.get("auroc") == 0.9 for update in summary)
    assert {record["type"] for record in records} <= {
        *("header", "run", "telemetry", "metric", "summary", "history", "files", "artifact", "exit")
    }
    private = ["SMITH", str(tmp_path), str(Path.cwd()), str(Path.home()), "text-of-the-console"]
    assert [text for text in private if text in shown] == []
    names = [socket.gethostname(), getpass.getuser()]
    assert [name for name in names if f'"{name}"' in shown] == []
    uploaded = [file.name for file in folder.glob("wandb/offline-*/files/**/*") if file.is_file()]
    assert sorted(Path(name).suffix for name in uploaded) == [".json", ".png"]


def artifacts_of(folder: Path) -> dict[str, dict]:
    """The artifacts of an offline run, by name; the run's group is checked on the way."""
    shown, records = inspect(folder)
    start = next(record["run"] for record in records if record["type"] == "run")
    assert start["run_group"] == "demo"
    assert str(folder.resolve()) not in shown
    return {r["artifact"]["name"]: r["artifact"] for r in records if r["type"] == "artifact"}


def test_a_run_elsewhere_on_the_machine_tells_no_path(tmp_path, no_account, monkeypatch, capsys):
    folder, elsewhere = tmp_path / "SMITH" / "demo" / "hop1", tmp_path / "a" / "b" / "notebooks"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    with Run(folder, {}) as run:
        run.table("studies", pd.DataFrame({"p": [0.5]}))
        run.finish({})
    shown, records = inspect(folder)
    assert "SMITH" not in shown
    assert "artifact" not in {record["type"] for record in records}
    assert "demo-hop1-tables is no artifact" in capsys.readouterr().out
    assert read(folder / "manifest.json")["artifacts"] == {"made": [], "used": []}


def test_lineage_of_a_model(tmp_path, no_account, monkeypatch):
    """One run makes a model, another uses it; both are synced from the folder of the notebooks."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("PEKIT_ARTIFACT_MB", "0.001")
    runs = Path("../runs/demo")
    model = runs / "hop1" / "model"
    model.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(2000))  # over the limit
    split = runs / "prepare" / "split.csv"
    split.parent.mkdir()
    split.write_text("StudyInstanceUID,part\n")

    with Run(runs / "prepare", {}) as run:
        run.artifact(split)
        run.finish({})
    with Run(runs / "hop1", {}, inputs={"split": split, "studies": "abc"}) as run:
        run.artifact(model)
        run.table("studies", pd.DataFrame({"p": [0.5]}))
        run.finish({})
    with Run(runs / "predict", {}, inputs={"model": model / "model.safetensors"}) as run:
        run.finish({})
    made, used = artifacts_of(runs / "hop1"), artifacts_of(runs / "predict")

    assert {name: artifact["type"] for name, artifact in made.items()} == {
        "demo-prepare-split": "split",
        "demo-hop1-model": "model",
        "demo-hop1-tables": "tables",
    }
    assert made["demo-prepare-split"]["use_after_commit"]
    assert "use_after_commit" not in made["demo-hop1-model"]
    assert used["demo-hop1-model"]["use_after_commit"]
    assert used["demo-hop1-model"]["digest"] == made["demo-hop1-model"]["digest"]
    recorded = {run: read(runs / run / "manifest.json")["artifacts"] for run in ("hop1", "predict")}
    assert recorded["predict"]["used"][0] in recorded["hop1"]["made"]

    # The files uploaded later are those of the run: a rerun of the stage does not change them.
    (model / "model.json").unlink()
    files = {f["path"]: Path(f["local_path"]) for f in files_of(made["demo-hop1-model"])}
    digest = hash_path(model / "model.safetensors").removeprefix("sha256:")
    assert {name: path.read_text() for name, path in files.items()} == {
        "model.json": "{}",
        "model.safetensors.sha256": f"{digest}  model.safetensors\n",
    }
    assert all(path.parts[0] == ".." for path in files.values()), "from here, with no folder named"
    home = [file for file in Path.home().rglob("*") if file.is_file() and file.suffix != ".log"]
    assert home == [], "W&B keeps no copy of a file there"


def test_an_evaluation_says_which_model_and_data_it_judged(tmp_path, no_account, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    runs = Path("../runs/demo")
    for file in ("hop2_seed3/model/model.safetensors", "predict_seed3/predictions.parquet"):
        (runs / file).parent.mkdir(parents=True)
        (runs / file).write_text(file)
    weights, predictions = (runs / "hop2_seed3/model/model.safetensors", runs / file)
    with Run(runs / "hop2_seed3", {}, seed=3) as run:
        run.finish({})
    with Run(runs / "predict_seed3", {}, inputs={"model": weights, "split": "abc"}) as run:
        run.finish({})
    with Run(
        runs / "evaluate_seed3", {"at": 0.9}, inputs={"predictions": predictions, "split": "abc"}
    ) as run:
        run.finish({})
    _, records = inspect(runs / "evaluate_seed3")
    start = next(record["run"] for record in records if record["type"] == "run")
    config = start["config"]["update"]
    assert config["axes"] == {"seed": 3}
    assert config["inputs"] == {
        "split": {"hash": "abc"},
        "predictions": {
            "hash": hash_path(predictions),
            "run": "demo-predict_seed3",
            "seed": None,
            "inputs": {"model": hash_path(weights), "split": "abc"},
            "made_by": {"model": "demo-hop2_seed3"},
        },
    }


def files_of(artifact: dict) -> list[dict]:
    return artifact["manifest"]["contents"]


def test_artifacts_that_cannot_be(tmp_path, monkeypatch, disabled):
    with (
        pytest.raises(UserError, match=r"split\.csv does not exist"),
        Run(tmp_path, {}) as run,
    ):
        run.artifact(tmp_path / "split.csv")
    monkeypatch.setenv("PEKIT_ARTIFACT_MB", "many")
    with pytest.raises(UserError, match="PEKIT_ARTIFACT_MB=many: it must be a number of MB"):
        Run(tmp_path, {})


KEY = "0" * 40


@pytest.mark.parametrize(
    ("variables", "files", "mode", "why"),
    [
        ({}, {}, "offline", "no account for"),
        ({"WANDB_API_KEY": KEY}, {}, "online", "W&B has an account"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, {}, "offline", "WANDB_MODE"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, {}, "offline", "WANDB_MODE"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, {}, "disabled", "WANDB_MODE"),
        ({"WANDB_API_KEY": KEY}, {"wandb/settings": "mode = offline"}, "offline", "settings"),
        ({"WANDB_API_KEY": KEY}, {"wandb/settings": "mode = disabled"}, "disabled", "settings"),
        (
            {"WANDB_API_KEY": KEY},
            {"home/.config/wandb/settings": "mode = offline"},
            "offline",
            "settings",
        ),
        (
            {"NETRC": "netrc", "WANDB_BASE_URL": "https://wandb.example.org"},
            {"netrc": f"machine wandb.example.org login user password {KEY}"},
            "online",
            "W&B has an account",
        ),
        (
            {"NETRC": "netrc", "WANDB_BASE_URL": "https://other.example.org"},
            {"netrc": f"machine wandb.example.org login user password {KEY}"},
            "offline",
            "no account for other.example.org",
        ),
        (
            {"NETRC": "netrc"},
            {
                "netrc": f"machine wandb.example.org:8080 login user password {KEY}",
                "home/.config/wandb/settings": "base_url = http://wandb.example.org:8080",
            },
            "online",
            "W&B has an account",
        ),
        (
            {"WANDB_BASE_URL": "https://wandb.example.org"},
            {"home/_netrc": f"default login user password {KEY}"},
            "online",
            "W&B has an account",
        ),
    ],
)
def test_mode_is_what_wandb_decides(
    tmp_path, no_account, monkeypatch, capsys, variables, files, mode, why
):
    """The mode with which wandb.init is called; a stand-in takes the call."""
    import wandb

    wandb.teardown()
    monkeypatch.chdir(tmp_path)
    for name, line in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(line if "netrc" in name else f"[default]\n{line}\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = []

    class Stopped(BaseException):
        pass

    def init(mode: str, **_: object) -> None:
        asked.append(mode)
        raise Stopped

    monkeypatch.setattr(wandb, "init", init)
    if mode == "disabled":
        Run(tmp_path / "run", {}).finish({})
        assert asked == []
        assert f"W&B: this run is not logged ({why}" in capsys.readouterr().out.replace(
            "W&B's ", ""
        )
    else:
        with pytest.raises(Stopped):
            Run(tmp_path / "run", {})
        assert asked == [mode]
        assert mode_of(wandb)[1].startswith(why.replace("settings", "W&B's settings"))
    wandb.teardown()


def mode_of(wandb):
    from pekit.tracking.wandb_log import _asked_mode, _mode

    return _mode(wandb, _asked_mode())


def test_unknown_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE=ofline: it must be one of online, offline"):
        Run(tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


def test_account_that_cannot_be_reached_ends_offline(tmp_path, no_account, monkeypatch, capsys):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    real = wandb.init

    def init(mode: str, **options: object) -> object:
        if mode == "online":
            raise wandb.errors.CommError("connection refused\nmore")
        return real(mode=mode, **options)

    monkeypatch.setattr(wandb, "init", init)
    Run(tmp_path / "run", {}).finish({})
    told = "kept in its folder, to be synced later (connection refused; WANDB_MODE=offline"
    assert told in capsys.readouterr().out
    assert read(tmp_path / "run" / "manifest.json")["wandb"]["mode"] == "offline"
    assert list(tmp_path.glob("run/wandb/offline-run-*"))


@pytest.mark.parametrize("fault", ["ends", "hangs"])
def test_a_service_that_cannot_start_does_not_stop_the_stage(
    tmp_path, no_account, monkeypatch, capsys, fault
):
    import wandb
    from wandb.sdk.lib.service import service_process

    wandb.teardown()
    core = tmp_path / "core"
    core.write_text("#!/bin/sh\n" + {"ends": "exit 3", "hangs": "exec sleep 60"}[fault] + "\n")
    core.chmod(0o755)
    monkeypatch.setattr(service_process, "get_core_path", lambda: str(core))
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", "1")
    run = Run(tmp_path / "run", {})
    run.log({"loss": 1}, 1)
    run.finish({"auroc": 1})
    assert "W&B: this run is not logged (its service cannot be started:" in capsys.readouterr().out
    assert read(tmp_path / "run" / "manifest.json")["wandb"] == {"mode": "disabled", "id": None}
    assert read(tmp_path / "run" / "metrics.json") == {"auroc": 1}
    wandb.teardown()


def test_a_fault_of_wandb_ends_its_log_only(tmp_path, no_account, monkeypatch, capsys):
    run = Run(tmp_path / "run", {})

    def fail(values):
        raise BrokenPipeError("the service is gone\nmore")

    monkeypatch.setattr(run._wandb._run, "log", fail)
    for step in (1, 2):
        run.log({"loss": 1}, step)
    run.finish({})
    told = capsys.readouterr().out
    assert told.count("W&B: the service is gone: the rest of this run is in its folder only") == 1
    assert (tmp_path / "run" / "log.csv").read_text() == "step,loss\n1,1\n2,1\n"


def test_error_in_the_block_is_recorded(tmp_path, disabled):
    Run(tmp_path, {}).finish({"auroc": 1.0})
    with pytest.raises(KeyError), Run(tmp_path, {}):
        raise KeyError("no such slice")
    assert read(tmp_path / "manifest.json")["status"] == "failed"
    assert not (tmp_path / "metrics.json").exists()


def test_forgotten_finish_is_an_error(tmp_path, disabled):
    with pytest.raises(RuntimeError, match="without finish"), Run(tmp_path, {}):
        pass
    assert read(tmp_path / "manifest.json")["status"] == "failed"


def test_a_finished_run_goes_on(tmp_path, disabled, capsys):
    """Cells that are run again after the last one, and the last one itself."""
    run = Run(tmp_path / "demo" / "hop1", {}, makes=["model"])
    (run.folder / "model").mkdir()
    run.log({"loss": 1}, 1)
    run.artifact(run.folder / "model")
    run.finish({"auroc": 0.5}, "22_train_hop2")
    told = capsys.readouterr().out
    assert "hop1 is done. demo/hop1 holds model/.\nNext: 22_train_hop2\n" in told
    run.log({"loss": 1}, 1)
    run.log({"loss": 2}, 2)
    run.table("studies", pd.DataFrame({"p": [0.5]}))
    run.finish({"auroc": 0.6})
    assert "demo/hop1 holds model/, tables/ (1)." in capsys.readouterr().out
    assert read(run.folder / "metrics.json") == {"auroc": 0.6}
    assert read(run.folder / "manifest.json")["status"] == "finished"
    assert (run.folder / "log.csv").read_text() == "step,loss\n1,1\n2,2\n"


def test_a_run_that_was_started_again_is_the_one_that_counts(tmp_path, no_account, monkeypatch):
    """The cell that makes a Run is run three times; then the process ends."""
    (tmp_path / "notebooks").mkdir()
    code = """
from pathlib import Path
from pekit.common.errors import UserError
from pekit.tracking.run import Run

folder = Path("../runs/demo/hop1")
first = Run(folder, {"lr": 1})
first.log({"loss": 1}, 1)
second = Run(folder, {"lr": 2})
second.log({"loss": 2}, 1)
try:
    first.finish({"auroc": 1})
except UserError as error:
    print(error)
second.finish({"auroc": 2})
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, cwd=tmp_path / "notebooks", capture_output=True, text=True, check=True
    )
    assert "another run was started in ../runs/demo/hop1 since" in done.stdout
    assert "run this notebook again from the cell that makes the Run" in done.stdout
    folder = tmp_path / "runs" / "demo" / "hop1"
    manifest = read(folder / "manifest.json")
    assert manifest["status"] == "finished", "the first run does not write failed over it"
    assert read(folder / "params.json") == {"lr": 2}
    assert read(folder / "metrics.json") == {"auroc": 2}
    assert (folder / "log.csv").read_text() == "step,loss\n1,2\n"
    _, records = inspect(folder)  # of the only one
    (start,) = [record["run"] for record in records if record["type"] == "run"]
    assert start["config"]["update"]["lr"] == 2

    # Another process; then the folder is copied: its run must not replace the first one's.
    monkeypatch.chdir(tmp_path / "notebooks")
    Run(folder, {}).finish({})
    assert read(folder / "manifest.json")["wandb"]["id"] == start["run_id"]
    inspect(folder)
    shutil.copytree(folder, folder.with_name("copy"))
    Run(folder.with_name("copy"), {}).finish({})
    assert read(folder.with_name("copy") / "manifest.json")["wandb"]["id"] != start["run_id"]


def test_a_killed_process_does_not_leave_a_run_that_runs(tmp_path, disabled):
    code = (
        "import os; from pathlib import Path; from pekit.tracking.run import Run\n"
        f"run = Run(Path({str(tmp_path)!r}), {{}}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert read(tmp_path / "manifest.json")["status"] == "unfinished"


def test_what_a_run_makes_must_be_made_since_it_started(tmp_path, disabled):
    for _ in range(2):
        run = Run(tmp_path / "hop1", {}, makes=["model"])
        (run.folder / "model").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="was started again, and model was not made since"):
            run.finish({})
        run.artifact(run.folder / "model")
        run.finish({})


def test_process_that_ends_early_is_recorded(tmp_path, disabled):
    code = (
        "import sys; from pathlib import Path; from pekit.tracking.run import Run\n"
        f"run = Run(Path({str(tmp_path)!r}), {{}}); run.log({{'loss': 1}}, 1); sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
    assert read(tmp_path / "manifest.json")["status"] == "failed"
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,1\n"


def test_inputs_are_hashed(tmp_path, disabled):
    file = tmp_path / "split.parquet"
    file.write_bytes(b"abc")
    Run(tmp_path / "run", {}, inputs={"split": file}).finish({})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read(tmp_path / "run" / "manifest.json")["inputs"] == {"split": f"sha256:{digest}"}
    with pytest.raises(UserError, match=r"none\.parquet does not exist"):
        Run(tmp_path / "run", {}, inputs={"split": tmp_path / "none.parquet"})


def test_hash_of_a_folder_follows_names_and_sizes(tmp_path):
    (tmp_path / "a").write_text("1")
    first = hash_path(tmp_path)
    (tmp_path / "a").write_text("2")
    assert hash_path(tmp_path) == first
    (tmp_path / "a").write_text("22")
    assert hash_path(tmp_path) != first
    assert first.startswith("listing:")


def test_git_state(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    unknown = {"commit": None, "dirty": None}
    assert git_state(tmp_path) == unknown
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    git("init", "-q")
    (tmp_path / "other").write_text("1")
    git("add", "other")
    git("commit", "-qm", "first")
    assert git_state(package) == unknown  # not this repository's
    git("add", ".")
    git("commit", "-qm", "second")
    assert git_state(package) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "other").write_text("2")
    assert git_state(package)["dirty"] is True


def test_a_step_that_is_logged_again_replaces_its_row(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path)
    assert all(log.write({"step": step, "loss": step / 10}) for step in (10, 20, 30))
    assert log.write({"step": 20, "loss": 5})
    assert not log.write({"step": 30, "loss": 3.0}), "it is there already"
    assert path.read_text() == "step,loss\n10,1.0\n20,5\n30,3.0\n"
    # Other columns, or another text, are another row.
    log.write({"step": 20, "auroc": 0})
    log.write({"step": 20, "head": "gru", "loss": 1})
    log.write({"step": 20, "head": "lstm", "loss": 2})
    log.write({"step": 20, "head": "gru", "loss": 3})
    rows = ["10,1.0,,", "20,5,,", "30,3.0,,", "20,,0,", "20,3,,gru", "20,2,,lstm"]
    assert path.read_text().splitlines() == ["step,loss,auroc,head", *rows]

    CsvLog(path)
    assert path.read_text() == ""


def test_row_is_on_disk_at_once(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.write({"step": 1, "loss": 2})
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,2\n"


def test_names_of_figures_and_tables(tmp_path, disabled):
    run = Run(tmp_path, {})
    with pytest.raises(ValueError, match="letters, digits"):
        run.table("../../table", pd.DataFrame())
    run.finish({})


def test_to_json():
    value = {"a": np.arange(2), 1: (Path("x"), np.bool_(True)), "nan": [float("inf")], "none": None}
    assert to_json(value) == {"a": [0, 1], "1": ["x", True], "nan": [None], "none": None}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        to_json({"a": object()})


def test_without_paths():
    value = {"a": ["x", "/y", {"b": "../z", "c": 1}], "d": "~/e", "f": "C:\\g", "h": 0.5}
    assert without_paths(value) == {"a": ["x", {"c": 1}], "h": 0.5}
