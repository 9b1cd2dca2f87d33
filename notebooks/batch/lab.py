"""JupyterLab on copies of the notebooks: what one tries there changes no experiment.

The copies lie in runs/lab/notebooks, outside git. They are one's own: a call adds those that are
missing, says how the others differ from the project's, and takes the project's anew only when it is
asked to; the copy of before then stays beside it, as <name>.mine.ipynb.

Lab shows all of runs/. Kernels start in notebooks/, wherever a notebook lies: its paths mean the
same as in a batch, and a notebook that a batch has executed works on its own stage.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from batch.changed import difference
from batch.notebook import NOTEBOOKS, ROOT, shown

SHOWN = 12  # lines of a difference


class KernelsInNotebooks(AsyncMappingKernelManager):
    """Starts every kernel in notebooks/."""

    def cwd_for_path(self, path: str, **_: str) -> str:
        return str(NOTEBOOKS)


def lab(fresh: bool, options: list[str]) -> NoReturn:
    """Become JupyterLab on the copies, so that a Ctrl-C is its own."""
    folder = ROOT / "runs" / "lab" / "notebooks"
    for line in copy_notebooks(folder, fresh):
        print(line, flush=True)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT / 'runs'}"]
    command += ["--ServerApp.kernel_manager_class=batch.lab.KernelsInNotebooks"]
    command += ["--LabApp.default_url=/lab/tree/lab/notebooks", *options]
    os.chdir(NOTEBOOKS)
    os.execv(sys.executable, command)


def copy_notebooks(folder: Path, fresh: bool = False) -> list[str]:
    """Copy the project's notebooks into `folder`; those that are there stay, unless `fresh`.

    Returns:
        What differs, and what was done, line by line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = [f"Notebooks to try things in: {shown(folder)}"]
    differing = 0
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        mine = folder / notebook.name
        if not mine.exists():
            shutil.copyfile(notebook, mine)
            continue
        lines = difference(notebook, mine)
        differing += bool(lines)
        if lines:
            said.append(f"{notebook.name} differs from the project's (-):")
            said += [f"    {line}" for line in lines[:SHOWN]]
            said += [f"    and {len(lines) - SHOWN} lines more"] if len(lines) > SHOWN else []
        if fresh:
            if mine.read_bytes() != notebook.read_bytes():
                kept = _free(mine)
                mine.rename(kept)
                said.append(f"{notebook.name} is the project's again; yours is {kept.name}")
            shutil.copyfile(notebook, mine)
    if differing and not fresh:
        said.append("`make lab FRESH=yes` takes the project's and keeps yours beside them")
    return said


def _free(mine: Path) -> Path:
    """A name beside a notebook that nothing has yet."""
    names = (f"{mine.stem}.mine{n or ''}.ipynb" for n in range(10_000))
    return next(path for name in names if not (path := mine.with_name(name)).exists())
