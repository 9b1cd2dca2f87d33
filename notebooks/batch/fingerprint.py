"""One hash a stage, over everything that its result depends on.

That is: the notebook's cells (not its outputs, so that running it by hand in JupyterLab changes
nothing), its parameters, the files of the local packages that it imports, directly or through
others, with what lies beside them for the browser, and the same of the stages that it needs. File
dates play no part.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.parameters import read_cells
from pekit.modules import local_files

SHIPPED = (".html", ".css", ".js")  # what a package's Python reads and hands on


def fingerprint(
    root: Path, notebook: Path, params: Mapping[str, Any], upstream: Mapping[str, str]
) -> str:
    """Hash of a stage; `upstream` holds the fingerprints of the stages that it needs."""
    parts = {
        "cells": [(cell["cell_type"], cell["source"]) for cell in read_cells(notebook)],
        "params": dict(params),
        "modules": {
            str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in notebook_files(root, notebook)
        },
        "upstream": dict(upstream),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def notebook_files(root: Path, notebook: Path) -> list[Path]:
    """Files of the packages in `root` that a notebook imports, and that those import, sorted.

    Beside Python files those of SHIPPED in the same folders.
    """
    code = "\n".join(
        line
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code"
        for line in cell["source"].splitlines()
        if not line.lstrip().startswith(("%", "!", "?"))
    )
    files = local_files(code, notebook, root)
    beside = {other for file in files for other in file.parent.iterdir()} - set(files)
    return sorted([*files, *(other for other in beside if other.suffix in SHIPPED)])
