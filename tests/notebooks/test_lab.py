"""`make lab`: copies of the notebooks in a live JupyterLab; what one types changes no batch."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from jupyter_client import BlockingKernelClient
from toy_workspace import Workspace, write_notebook

from batch import changed
from batch.lab import copy_notebooks


@pytest.fixture
def space(tmp_path, monkeypatch):
    space = Workspace(tmp_path)
    for module in ("lab", "notebook"):
        monkeypatch.setattr(f"batch.{module}.NOTEBOOKS", space.notebooks)
    monkeypatch.setattr("batch.notebook.ROOT", tmp_path)
    return space


def test_ones_own_changes_are_kept_and_shown(space, tmp_path):
    mine = tmp_path / "mine"
    assert len(copy_notebooks(mine)) == 1
    assert sorted(f.name for f in mine.iterdir()) == [
        "01_first.ipynb",
        "02_second.ipynb",
        "03_third.ipynb",
    ]
    notebook = nbformat.read(mine / "01_first.ipynb", as_version=4)
    notebook.cells[1].source = 'RUN = ""\nN = 6'
    nbformat.write(notebook, mine / "01_first.ipynb")
    (mine / "own.ipynb").write_text("{}")
    project = (space.notebooks / "01_first.ipynb").read_bytes()
    said = copy_notebooks(mine)
    assert said[1:4] == [
        "01_first.ipynb differs from the project's (-):",
        "    -N = 1",
        "    +N = 6",
    ]
    assert "FRESH=yes" in said[-1]
    assert nbformat.read(mine / "01_first.ipynb", as_version=4) == notebook
    assert (space.notebooks / "01_first.ipynb").read_bytes() == project

    said = copy_notebooks(mine, fresh=True)
    assert said[-1] == "01_first.ipynb is the project's again; yours is 01_first.mine.ipynb"
    assert nbformat.read(mine / "01_first.mine.ipynb", as_version=4) == notebook
    assert (mine / "01_first.ipynb").read_bytes() == project
    assert (mine / "own.ipynb").exists()
    assert len(copy_notebooks(mine, fresh=True)) == 1


def test_a_batch_names_notebooks_that_differ_from_the_commit(tmp_path):
    notebook = write_notebook(tmp_path / "a.ipynb", "EPOCHS = 2\nRUN = ''", "print(1)")
    other = write_notebook(tmp_path / "b.ipynb", "N = 1", "print(2)")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    by_hand = nbformat.read(other, as_version=4)
    by_hand.cells[2].outputs = [nbformat.v4.new_output("stream", text="2\n")]
    nbformat.write(by_hand, other)
    assert changed.changed_notebooks([notebook, other]) == {}
    write_notebook(notebook, "EPOCHS = 6\nRUN = ''", "print(1)")
    write_notebook(other, "N = 1", "print(3)")
    found = changed.changed_notebooks([notebook, other])
    assert found == {notebook: " (EPOCHS 2 -> 6)", other: ""}


def test_a_live_lab_shows_runs_and_its_kernels_stand_in_notebooks(tmp_path):
    space = Workspace(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    runtime = tmp_path / "runtime"
    env = os.environ | {"JUPYTER_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(space.notebooks)}
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    options = "--no-browser --port=0 --IdentityProvider.token=toy --allow-root"
    command = [sys.executable, "notebooks/run.py", "lab", "--options", options]
    lab = subprocess.Popen(
        command, cwd=tmp_path, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:

        def ask(path: str, data: dict | None = None):
            (server,) = runtime.glob("jpserver-*.json")
            url = json.loads(server.read_text())["url"] + path
            body = json.dumps(data).encode() if data else None
            request = urllib.request.Request(url, body, {"Authorization": "token toy"})
            return json.loads(urllib.request.urlopen(request, timeout=60).read())

        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(ValueError, OSError):  # it has not started yet
                ask("api")
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert {"demo", "lab"} <= {item["name"] for item in ask("api/contents")["content"]}
        copies = [item["name"] for item in ask("api/contents/lab/notebooks")["content"]]
        assert "01_first.ipynb" in copies
        kernel = ask("api/kernels", {"name": "python3", "path": "lab/notebooks/01_first.ipynb"})
        client = BlockingKernelClient()
        client.load_connection_file(str(runtime / f"kernel-{kernel['id']}.json"))
        client.start_channels(hb=False)
        client.wait_for_ready(timeout=60)
        asked = {"cwd": "__import__('os').getcwd()"}
        reply = client.execute("", user_expressions=asked, reply=True, timeout=60)
        cwd = reply["content"]["user_expressions"]["cwd"]["data"]["text/plain"]
        client.stop_channels()
        assert Path(cwd.strip("'")) == space.notebooks
    finally:
        os.killpg(lab.pid, signal.SIGKILL)
        lab.wait()
