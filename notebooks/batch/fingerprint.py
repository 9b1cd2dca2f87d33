"""What the result of a stage depends on, as hashes that can be kept and compared.

That is: the values of all parameters (given or by default), what the notebook's other code cells
do, what the files of the local packages that it imports do (directly or through others), what the
files and folders hold that it reads from outside the experiment, and the stages that it needs.
Text, comments, docstrings, layout, outputs, dates and places of files do not count.

How a result is shown or recorded does not change it: `pekit.tracking` and `pekit.review` never
count, `pekit.figures` and `pekit.reports` only for notebooks that make a page, which are those that
import `pekit.reports`. For these, the files that a browser gets count too.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from batch.contents import contents
from batch.experiment import Experiment, Stage
from batch.parameters import named_path, read_cells, read_parameters
from pekit.common.code_hash import local_files, syntax

RECORDS = ("pekit/tracking", "pekit/review")
SHOWS = ("pekit/figures", "pekit/reports")
SHIPPED = (".html", ".css", ".js")  # files beside Python files that a page is made of
NO_MATTER = ("RUN", "LIMIT_HOURS")  # parameters that change no result
SHOWN = 3  # differences that a phrase names


@dataclass(frozen=True)
class Fingerprint:
    """`parts`: what a stage depends on itself; `digest`: hash of these and of all that it needs."""

    parts: dict[str, Any]
    digest: str


def fingerprints(experiment: Experiment) -> dict[str, Fingerprint]:
    """Fingerprint of each stage of an experiment."""
    found: dict[str, Fingerprint] = {}
    read = cache(contents)  # several stages read the same data
    for name, stage in experiment.stages.items():
        parts = _parts(stage, read)
        upstream = {other: found[other].digest for other in stage.after}
        found[name] = Fingerprint(parts, _hash(json.dumps([parts, upstream], sort_keys=True)))
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], notebook: str) -> str:
    """What differs between the parts of two fingerprints, in a phrase; empty where nothing does."""
    found = [f"{name} {a} -> {b}" for name, a, b in _changed(old["values"], new["values"])]
    found += [f"{notebook} changed"] if old["cells"] != new["cells"] else []
    found += [f"{Path(name).name} changed" for name, _, _ in _changed(old["code"], new["code"])]
    for name, _, _ in _changed(old["files"], new["files"]):
        parameter, _, file = name.partition(".")
        found.append(f"{file or 'files'} of {parameter} changed")
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def notebook_files(root: Path, notebook: Path) -> list[Path]:
    """Files of the packages in `root` on which a notebook's result depends, sorted."""
    code = "\n".join(_code_cells(notebook))
    if "pekit.reports" not in code:
        return local_files(code, notebook, root, without=RECORDS + SHOWS)
    files = local_files(code, notebook, root, without=RECORDS)
    beside = {other for file in files for other in file.parent.iterdir()}
    return sorted([*files, *(other for other in beside if other.suffix in SHIPPED)])


def _parts(stage: Stage, read: Any) -> dict[str, Any]:
    root = stage.notebook.parents[1]
    files = {}
    given = {k: v for k, v in _leaves(stage.portable) if k not in NO_MATTER}
    for name, value in given.items():
        if name.split(".")[0] not in stage.inside and (
            path := named_path(value, stage.notebook.parent)
        ):
            files[name], given[name] = read(path), "files"
    defaults = {k: v for k, v in read_parameters(stage.notebook).items() if k not in NO_MATTER}
    values = dict(_leaves({k: v for k, v in defaults.items() if k not in stage.portable})) | given
    cells = [syntax(cell, stage.notebook) for cell in _code_cells(stage.notebook, parameters=False)]
    code = {
        file.relative_to(root).as_posix(): _file_hash(file)
        for file in notebook_files(root, stage.notebook)
    }
    parts = {"values": values, "cells": _hash("\n".join(cells)), "code": code, "files": files}
    return json.loads(json.dumps(parts, default=str))  # as it will be read


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested dictionaries by dotted names: TRAIN.lr."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for name in sorted(before.keys() | after.keys()):
        pair = before.get(name, "none"), after.get(name, "none")
        if pair[0] != pair[1]:
            yield name, *pair


def _code_cells(notebook: Path, parameters: bool = True) -> list[str]:
    """Python code of each code cell; lines that only IPython reads are left out."""
    return [
        "\n".join(
            line
            for line in cell["source"].splitlines()
            if not line.lstrip().startswith(("%", "!", "?"))
        )
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code"
        and (parameters or "parameters" not in cell.get("metadata", {}).get("tags", []))
    ]


def _file_hash(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return _hash(syntax(text, file) if file.suffix == ".py" else text)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
