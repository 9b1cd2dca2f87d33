"""Run one notebook by papermill: parameters checked first, a failed notebook kept."""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batch.parameters import check_parameters
from pekit.common.errors import UserError

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROOT = NOTEBOOKS.parent


def run_notebook(
    notebook: Path,
    out: Path,
    params: Mapping[str, Any],
    *,
    cwd: Path = NOTEBOOKS,
    name: str = "",
    makes: Path | None = None,
) -> None:
    """Check the parameters, execute a notebook, and save it as `out` once all of it has run.

    What the notebook prints is passed on line by line, after `[name]`. `makes` is a file that the
    notebook must write.

    Raises:
        UserError: parameters that do not fit, or a notebook that fails; the failed one is kept
            beside `out` as <stem>.failed.ipynb.
    """
    name = name or notebook.stem
    check_parameters(notebook, params, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    running, failed = (out.with_suffix(f".{state}.ipynb") for state in ("running", "failed"))
    with locked(out.parent / ".lock", f"{shown(out.parent)} is in use by another run"):
        for old in (out, running, failed):
            old.unlink(missing_ok=True)
        start = time.monotonic()
        print(f"[{name}] {notebook.name} starts", flush=True)
        try:
            problem = _execute(notebook, running, params, cwd, name)
        finally:  # whatever stopped it, what has been executed so far is kept
            if running.exists():
                _without_paths(running)
                running.rename(failed)
        if not problem and makes and not makes.exists():
            problem = f"{notebook.name} ran, but did not write {shown(makes)}"
        if problem:
            raise UserError(f"[{name}] {problem}\n[{name}] kept for reading: {shown(failed)}")
        failed.rename(out)
        _trust(out)
        print(f"[{name}] done in {time.monotonic() - start:.0f} s: {shown(out)}", flush=True)


def _execute(notebook: Path, out: Path, params: Mapping[str, Any], cwd: Path, name: str) -> str:
    """Execute by papermill; returns what went wrong in one or two lines, or an empty text."""
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this interpreter's kernel, not the user's
    os.environ["PEKIT_BATCH"] = "1"  # lines of progress in place of bars
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    printed = _Prefixed(f"[{name}] ")
    try:
        # Sockets that are files of our own. A TCP port is chosen, released and only seconds later
        # bound by the kernel; what takes it meanwhile, such as another stage, ends this one.
        with tempfile.TemporaryDirectory(prefix="pekit") as sockets:
            kernel = {"transport": "ipc", "connection_file": f"{sockets}/k.json"}
            papermill.execute_notebook(
                str(notebook.resolve()),
                str(out.resolve()),
                dict(params),
                cwd=str(cwd),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=printed,
                start_timeout=300,
                config=Config(KernelManager=kernel),
            )
    except papermill.PapermillExecutionError as error:
        text = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        return f"{notebook.name} failed in cell [{error.exec_count}]: {text.strip()}"
    except DeadKernelError:
        return f"{notebook.name}: its kernel died; most often, memory ran out"
    except OSError as error:
        return f"{error.filename or out}: {error.strerror or error}"
    finally:
        printed.end()
    return ""


def _trust(notebook: Path) -> None:
    """Sign the notebook, so that JupyterLab shows all outputs: in notebooks that this user has not
    run, it hides scripts such as the slice viewer's."""
    import nbformat
    from nbformat.sign import NotebookNotary

    NotebookNotary().sign(nbformat.read(notebook, as_version=4))


def _without_paths(notebook: Path) -> None:
    """Cut the paths that papermill notes down to file names: they name users and machines."""
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
    except ValueError:  # cut off when the disk was full: evidence all the same
        return
    noted = content["metadata"].get("papermill", {})
    for key in noted.keys() & {"input_path", "output_path"}:
        noted[key] = Path(noted[key]).name.replace(".running", "")
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


class _Prefixed:
    """Passes text on to the terminal in whole lines, each behind a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.rest = prefix, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).replace("\r", "\n").split("\n")
        for line in filter(str.strip, lines):
            print(self.prefix + line, flush=True)

    def flush(self) -> None:
        """Lines are flushed as they come."""

    def end(self) -> None:
        self.write("\n")


@contextlib.contextmanager
def locked(path: Path, message: str) -> Iterator[int]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{message} (lock: {shown(path)})") from None
        yield file.fileno()


def shown(path: Path) -> str:
    """A path as one would type it in the project's folder."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
