"""One hash a stage, over everything that its result depends on.

That is: the notebook's cells (not its outputs, so that running it by hand in JupyterLab changes
nothing), its parameters, the files of the local packages that it imports, directly or through
others, and the same of the stages that it needs. File dates play no part.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batch.parameters import read_cells
from pekit.errors import UserError


def fingerprint(
    root: Path, notebook: Path, params: Mapping[str, Any], upstream: Mapping[str, str]
) -> str:
    """Hash of a stage; `upstream` holds the fingerprints of the stages that it needs."""
    parts = {
        "cells": [(cell["cell_type"], cell["source"]) for cell in read_cells(notebook)],
        "params": dict(params),
        "modules": {
            str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in local_files(root, notebook)
        },
        "upstream": dict(upstream),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def local_files(root: Path, notebook: Path) -> list[Path]:
    """Files of the packages in `root` that a notebook imports, and that those import, sorted."""
    code = "\n".join(
        line
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code"
        for line in cell["source"].splitlines()
        if not line.lstrip().startswith(("%", "!", "?"))
    )
    found: set[Path] = set()
    waiting = list(_imported(root, code, notebook, package=()))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            package = file.parent.relative_to(root).parts
            waiting += _imported(root, file.read_text(encoding="utf-8"), file, package)
    return sorted(found)


def _imported(root: Path, code: str, file: Path, package: tuple[str, ...]) -> Iterator[Path]:
    """Local files that a piece of code imports, in functions too."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise UserError(f"{file}: not valid Python: {error.msg}: {error.text}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _module_files(root, [*base, alias.name])


def _module_files(root: Path, parts: list[str]) -> Iterator[Path]:
    """Files that importing a dotted name runs: each package's __init__.py, then the module."""
    folder = root
    for part in parts:
        if (folder / f"{part}.py").is_file() and folder != root:
            yield folder / f"{part}.py"
            return
        folder = folder / part
        if not (folder / "__init__.py").is_file():
            return
        yield folder / "__init__.py"
