"""Provenance of a result: commit, package versions, device."""

import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pekit.common.processors import processors

PACKAGE = Path(__file__).resolve().parent


def git_state(folder: Path = PACKAGE) -> dict[str, str | bool | None]:
    """Commit of the code in `folder`, and whether files of its repository differ from it (dirty).

    Both are None if git does not track `folder`, such as an installed copy in another repository.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "."):
            return {"commit": None, "dirty": None}
        commit = git("rev-parse", "HEAD")
        top = git("rev-parse", "--show-toplevel")
        return {"commit": commit, "dirty": bool(git("-C", top, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the dependencies that the kit declares.

    Empty but for Python where the kit is on the path and not installed; `unknown` for a package
    without metadata.
    """
    versions = {"python": platform.python_version()}
    try:
        requirements = metadata.requires("pekit") or []
    except metadata.PackageNotFoundError:
        return versions
    for requirement in requirements:
        if "extra ==" not in requirement:
            name = re.match(r"[\w.-]+", requirement).group()
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = "unknown"
    return versions


def device() -> dict[str, str | int | list[str]]:
    """System, machine type, processors for this process, and names of GPUs if torch is loaded."""
    torch = sys.modules.get("torch")  # a stage that never imported it used no GPU
    gpus = range(torch.cuda.device_count()) if torch and torch.cuda.is_available() else []
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": processors(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }
