"""One hash per stage, over everything that can change its result.

That is: what the notebook's code cells do, its parameters, what the files of the local packages
that it imports do (directly or through others), and the fingerprints of the stages that it needs.
Text, comments, docstrings, layout, outputs and file dates do not count.

How a result is shown or recorded does not change it: `pekit.tracking` and `pekit.review` never
count, `pekit.figures` and `pekit.reports` only for notebooks that make a page, which are those that
import `pekit.reports`. For these, the files that a browser gets count too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.parameters import read_cells
from pekit.common.code_hash import local_files, syntax

RECORDS = ("pekit/tracking", "pekit/review")
SHOWS = ("pekit/figures", "pekit/reports")
SHIPPED = (".html", ".css", ".js")  # files beside Python files that a page is made of


def fingerprint(
    root: Path, notebook: Path, params: Mapping[str, Any], upstream: Mapping[str, str]
) -> str:
    """Hash of a stage; `upstream` holds the fingerprints of the stages that it needs."""
    parts = {
        "cells": [syntax(cell, notebook) for cell in _code_cells(notebook)],
        "params": dict(params),
        "modules": {
            file.relative_to(root).as_posix(): _hash(file)
            for file in notebook_files(root, notebook)
        },
        "upstream": dict(upstream),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def notebook_files(root: Path, notebook: Path) -> list[Path]:
    """Files of the packages in `root` on which a notebook's result depends, sorted."""
    code = "\n".join(_code_cells(notebook))
    if "pekit.reports" not in code:
        return local_files(code, notebook, root, without=RECORDS + SHOWS)
    files = local_files(code, notebook, root, without=RECORDS)
    beside = {other for file in files for other in file.parent.iterdir()}
    return sorted([*files, *(other for other in beside if other.suffix in SHIPPED)])


def _code_cells(notebook: Path) -> list[str]:
    """Python code of each code cell; lines that only IPython reads are left out."""
    return [
        "\n".join(
            line
            for line in cell["source"].splitlines()
            if not line.lstrip().startswith(("%", "!", "?"))
        )
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code"
    ]


def _hash(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    content = syntax(text, file) if file.suffix == ".py" else text
    return hashlib.sha256(content.encode()).hexdigest()
