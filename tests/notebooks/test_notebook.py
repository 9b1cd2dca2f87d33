"""One notebook executed: in place, again, and by this interpreter's kernel, always."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.provisioning import LocalProvisioner
from toy_workspace import REPOSITORY, write_notebook

from batch.notebook import run_notebook
from pekit.common.errors import UserError

PARAMETERS = 'RUN = "lab"\nEPOCHS = 3\nRATE = 0.1'
CODE = "print(f'{RUN=} {EPOCHS=} {RATE=}')\nif EPOCHS == 13: raise ValueError('unlucky')"


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "toy.ipynb", PARAMETERS, CODE)


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))


def test_a_notebook_can_be_its_own_output(notebook, tmp_path):
    run_notebook(notebook, notebook, {"EPOCHS": 5}, cwd=tmp_path)
    assert "EPOCHS=5" in printed(notebook)
    assert list(tmp_path.glob("*.ipynb")) == [notebook]


def test_a_notebook_that_fails_in_place_is_as_it_was(notebook, tmp_path):
    before = notebook.read_bytes()
    with pytest.raises(UserError, match=r"unlucky\n.* kept for reading: .*toy\.failed\.ipynb"):
        run_notebook(notebook, notebook, {"EPOCHS": 13}, cwd=tmp_path)
    assert notebook.read_bytes() == before
    assert "EPOCHS=13" in printed(tmp_path / "toy.failed.ipynb")


def test_nothing_is_removed_when_the_input_cannot_be_read(notebook, tmp_path):
    out = tmp_path / "done.ipynb"
    run_notebook(notebook, out, {}, cwd=tmp_path)
    before = out.read_bytes()
    with pytest.raises(UserError, match="no notebook"):
        run_notebook(tmp_path / "none.ipynb", out, {}, cwd=tmp_path)
    assert out.read_bytes() == before
    failed = out.with_name("done.failed.ipynb")
    failed.write_bytes(before)
    run_notebook(failed, out, {"EPOCHS": 7}, cwd=tmp_path)
    assert "EPOCHS=7" in printed(out)


def test_an_executed_notebook_keeps_its_values(notebook, tmp_path, capsys):
    out = tmp_path / "done.ipynb"
    run_notebook(notebook, out, {"RUN": "mine", "EPOCHS": 5}, cwd=tmp_path)
    assert "by default: RATE = 0.1" in capsys.readouterr().out
    run_notebook(out, out, {"EPOCHS": 6}, cwd=tmp_path)
    assert printed(out).strip() == "RUN='mine' EPOCHS=6 RATE=0.1"
    assert "as executed before: RUN = 'mine'; by default: RATE = 0.1" in capsys.readouterr().out


def test_an_executed_notebook_whose_values_cannot_be_read_is_refused(notebook, tmp_path):
    run_notebook(notebook, notebook, {"RUN": "mine"}, cwd=tmp_path)
    notebook.write_text(notebook.read_text().replace('RUN = \\"mine\\"', "RUN = str()"))
    with pytest.raises(UserError, match=r"toy.ipynb was executed before.*not 'RUN = str\(\)'"):
        run_notebook(notebook, tmp_path / "out.ipynb", {"EPOCHS": 6}, cwd=tmp_path)


def test_this_interpreters_kernel_and_no_stray_message(notebook, tmp_path, monkeypatch):
    """Another python3 kernel comes first on JUPYTER_PATH, as in many hosted notebooks."""
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(notebook, PARAMETERS, "import sys\nprint(sys.executable)")
    command = [sys.executable, str(REPOSITORY / "notebooks" / "run.py"), "notebook", str(notebook)]
    command += ["--out", str(tmp_path / "done.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"[toy] {sys.executable}" in done.stdout
    assert done.stderr == ""


def test_a_kernel_is_not_interrupted_at_its_end(notebook, tmp_path, monkeypatch):
    """It would write `[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel.`"""
    sent, send = [], LocalProvisioner.send_signal

    async def recorded(self, number):
        sent.append(number)
        await send(self, number)

    monkeypatch.setattr(LocalProvisioner, "send_signal", recorded)
    run_notebook(notebook, notebook, {}, cwd=tmp_path)
    assert signal.SIGINT not in sent


def test_no_stage_waits_for_a_grammar_of_addresses():
    """jsonschema builds it when it is imported, 3 s, and notebooks have no such format."""
    from jsonschema import FormatChecker

    assert "date" in FormatChecker.checkers
    assert "iri" not in FormatChecker.checkers


def test_without_fcntl_it_says_where_it_runs():
    """As on Windows."""
    code = "import runpy, sys; sys.modules['fcntl'] = None; sys.argv = ['run.py', 'batch', 'x']\n"
    code += f"runpy.run_path({str(REPOSITORY / 'notebooks' / 'run.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "pekit runs on Linux and macOS; on Windows, run it in WSL\n"


def test_a_folder_for_temporary_files_with_a_long_path(notebook, tmp_path, monkeypatch, capsys):
    """As a cluster gives each job; a socket's path has about 100 characters at most."""
    long = tmp_path / ("job" * 30)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    run_notebook(notebook, tmp_path / "out" / "done.ipynb", {}, cwd=tmp_path, name="toy")
    assert "done in" in capsys.readouterr().out


def test_a_home_folder_that_cannot_be_written(notebook, tmp_path, monkeypatch, capsys):
    """As on a cluster's nodes, or in a container."""
    monkeypatch.setenv("HOME", "/proc/1/none")
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    run_notebook(notebook, tmp_path / "out" / "done.ipynb", {}, cwd=tmp_path, name="toy")
    assert "Traceback" not in capsys.readouterr().out
