"""Write files atomically (beside, then renamed), read them with clear errors, and hash them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pekit.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` if the block succeeds.

    The temporary name holds the machine and the process, for `remove_leftovers`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.name}.{_HOST}-{os.getpid()}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    beside = Path(name)
    beside.unlink()  # libraries such as blosc2 refuse to write over an existing file
    try:
        yield beside
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove files in `folder` left half-written by killed processes of this machine."""
    for path in Path(folder).glob(f".*.{_HOST}-*-*"):
        process = path.name.split(f".{_HOST}-")[1].split("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write `content` as readable JSON, atomically."""
    with atomic(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or not valid JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and rerun") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically."""
    with atomic(path) as beside:
        table.to_parquet(beside, index=False)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, atomically."""
    with atomic(path) as beside:
        table.to_csv(beside, index=False)


def read_table(path: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a parquet table and check that it has `columns`.

    Raises:
        UserError: the file is missing, unreadable, or lacks a column.
    """
    import pandas as pd  # a second, and only here

    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a parquet table ({error}): delete it and rerun") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: another version wrote it")
    return table


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """Hash of a file's bytes (`sha256:...`) or of a folder's file names and sizes (`listing:...`).

    The contents of a folder are not read: prepared studies may take hundreds of gigabytes.

    Raises:
        UserError: the path does not exist.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{f.relative_to(path).as_posix()}\t{f.stat().st_size}\n" for f in files)
        return "listing:" + hashlib.sha256(listing.encode()).hexdigest()
    try:
        return "sha256:" + file_hash(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
