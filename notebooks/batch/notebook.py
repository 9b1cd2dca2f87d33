"""Run one notebook by papermill: parameters checked first, a failed notebook kept.

A notebook that was executed before has its values in the cell that papermill wrote: run again, it
keeps those that are not given anew. It may be named as its own output.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batch.parameters import executed_with, read_parameters
from batch.settings import check_all
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
    before = {k: v for k, v in executed_with(notebook).items() if k not in params}
    params = before | dict(params)
    check_all(notebook, params, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    running, failed = (out.with_suffix(f".{state}.ipynb") for state in ("running", "failed"))
    with locked(out.parent / ".lock", f"{shown(out.parent)} is in use by another run"):
        start = time.monotonic()
        print(f"[{name}] {notebook.name} starts{_inherited(notebook, params, before)}", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="pekit") as folder:
                source = Path(folder, notebook.name)
                shutil.copyfile(notebook, source)
                for old in (out, running, failed):
                    if not (old.exists() and old.samefile(notebook)):
                        old.unlink(missing_ok=True)
                problem = _execute(source, running, params, cwd, name)
            if not problem and makes and not makes.exists():
                problem = f"{notebook.name} ran, but did not write {shown(makes)}"
            if not problem:
                _without_paths(running)
                running.replace(out)
        finally:  # whatever stopped it, what has been executed so far is kept
            if running.exists():
                _without_paths(running)
                running.replace(failed)
        if problem:
            kept = f"\n[{name}] kept for reading: {shown(failed)}" if failed.exists() else ""
            raise UserError(f"[{name}] {problem}{kept}")
        _trust(out)
        print(f"[{name}] done in {time.monotonic() - start:.0f} s: {shown(out)}", flush=True)


def _inherited(notebook: Path, params: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Values that nobody gave: those of an earlier execution, else the notebook's defaults."""
    defaults = {k: v for k, v in read_parameters(notebook).items() if k not in params}
    lines = []
    for source, values in (("as executed before", before), ("by default", defaults)):
        if values:
            listed = (f"{key} = {_short(value)}" for key, value in values.items())
            lines.append(f"; {source}: {', '.join(listed)}")
    return "".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _execute(notebook: Path, out: Path, params: Mapping[str, Any], cwd: Path, name: str) -> str:
    """Execute by papermill; returns what went wrong in one or two lines, or an empty text."""
    os.environ["PEKIT_BATCH"] = "1"  # lines of progress in place of bars
    import papermill
    from nbclient.exceptions import DeadKernelError

    from batch.kernel import own_kernel  # jupyter: half a second, and only here

    printed = _Prefixed(f"[{name}] ")
    try:
        with own_kernel() as kernel:
            papermill.execute_notebook(
                str(notebook.resolve()),
                str(out.resolve()),
                dict(params),
                cwd=str(cwd),
                progress_bar=False,
                stdout_file=printed,
                start_timeout=300,
                **kernel,
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

    with contextlib.suppress(OSError):  # a home folder that cannot be written keeps no signatures
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
        except OSError as error:  # a file system without locks
            print(f"no lock on {shown(path)} ({error.strerror}): run nothing beside it", flush=True)
        yield file.fileno()


def shown(path: Path) -> str:
    """A path as seen from where the command was typed; in full from outside the project."""
    path, stands = path.resolve(), os.environ.setdefault("PEKIT_TYPED_IN", os.getcwd())
    if path.is_relative_to(ROOT) and Path(stands).resolve().is_relative_to(ROOT):
        return os.path.relpath(path, Path(stands).resolve())
    return str(path)
