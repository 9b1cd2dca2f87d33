"""What made a result: commit, package versions, device, and hashes of what was read."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pekit.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def git_state(folder: Path = PACKAGE) -> dict[str, str | bool | None]:
    """Commit that the code in `folder` is at, and whether files differ from it.

    Both are None where `folder` is not kept by git: an installed copy inside somebody else's
    repository is not part of it.
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
    """Versions of Python and of the packages that the kit declares as its dependencies."""
    versions = {"python": platform.python_version()}
    for requirement in metadata.requires("pekit") or []:
        if "extra ==" not in requirement:
            name = re.match(r"[\w.-]+", requirement).group()
            versions[name] = metadata.version(name)
    return versions


def device() -> dict[str, str | int | list[str]]:
    """Processor kind, number of processors this process may use, and GPUs where torch is in use."""
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    torch = sys.modules.get("torch")  # a stage that never imported it used no GPU
    gpus = range(torch.cuda.device_count()) if torch and torch.cuda.is_available() else []
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": processors,
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """`sha256:...` of a file's bytes; of a folder `listing:...`, over the names and sizes in it.

    A folder of prepared studies may hold hundreds of gigabytes; its contents are not read.
    Raises UserError when nothing is there.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{f.relative_to(path).as_posix()}\t{f.stat().st_size}\n" for f in files)
        return "listing:" + hashlib.sha256(listing.encode()).hexdigest()
    try:
        return "sha256:" + file_hash(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
