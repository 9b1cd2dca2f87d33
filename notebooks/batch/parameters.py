"""The parameters that a notebook declares, and a check of values for them.

papermill itself only warns of an unknown name, so a mistyped ablation would run as the baseline.
"""

import ast
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pekit.common.errors import UserError, nearest


def read_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, each `source` as one string.

    Raises:
        UserError: the file is missing or is not a notebook.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except FileNotFoundError:
        raise UserError(f"no notebook {notebook}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{notebook} is not a Jupyter notebook (version 4 or later)") from None


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values in the cell tagged `parameters`; only literals are allowed there."""
    cells = _tagged(notebook, "parameters")
    if len(cells) != 1:
        raise UserError(
            f"{notebook.name}: {len(cells)} cells are tagged 'parameters'; exactly one must be"
        )
    return _literals(cells[0], f"{notebook.name}: the parameters cell")


def executed_with(notebook: Path) -> dict[str, Any]:
    """Values that papermill gave an executed notebook; none for one that it has not executed."""
    where = f"{notebook.name} was executed before; the cell with the values of that run"
    cells = _tagged(notebook, "injected-parameters")
    return {key: value for cell in cells for key, value in _literals(cell, where).items()}


def _tagged(notebook: Path, tag: str) -> list[str]:
    return [
        cell["source"]
        for cell in read_cells(notebook)
        if tag in cell.get("metadata", {}).get("tags", [])
    ]


def _literals(code: str, where: str) -> dict[str, Any]:
    values = {}
    for node in ast.parse(code).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            (name,) = (target.id for target in targets)
            values[name] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise UserError(
                f"{where} may hold lines of the form NAME = literal only, not {ast.unparse(node)!r}"
            ) from None
    return values


def named_path(value: Any, where: Path) -> Path | None:
    """The file or folder that a value names, relative to `where`; None if it names none."""
    if not isinstance(value, str) or not ("/" in value or "." in value):
        return None
    try:
        return where / value if (where / value).exists() else None
    except OSError:  # too long for a name
        return None


def check_parameters(
    notebook: Path, params: Mapping[str, Any], where: str, free: Collection[str] = ()
) -> None:
    """Check names and types of values for a notebook's parameters.

    A default of None takes any value. A dictionary may leave keys of the default out; of a default
    of {}, and of the parameters in `free`, any keys are taken.

    Raises:
        UserError: naming `where`: a parameter that the notebook does not have, or a value of
            another type than the notebook's default.
    """
    defaults = read_parameters(notebook)
    for name, value in params.items():
        if name not in defaults:
            raise UserError(
                f"{where}: {notebook.name} has no parameter {name!r}; {nearest(name, defaults)}"
            )
        if name in free and isinstance(value, dict):
            continue
        if problem := _mismatch(value, defaults[name]):
            raise UserError(f"{where}: parameter {name} of {notebook.name}: {problem}")


def _mismatch(value: Any, default: Any) -> str:
    """Why a value cannot stand in a default's place; empty when it can."""
    if default is None:
        return ""
    if isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(default, list | tuple):
        fits = isinstance(value, list | tuple)
    else:
        fits = type(value) is type(default)
    if not fits:
        hint = ""
        if isinstance(default, float) and isinstance(value, str) and re.match(r"[\d.+-]+e", value):
            hint = "; YAML reads 1e-3 as text, write 1.0e-3"
        return (
            f"{value!r} is of type {type(value).__name__}, the default {default!r} is of type "
            f"{type(default).__name__}{hint}"
        )
    if isinstance(default, dict) and default:
        for key, item in value.items():
            if key not in default:
                return f"no {key!r} in it; {nearest(str(key), default)}"
            if problem := _mismatch(item, default[key]):
                return f"{key}: {problem}"
    # Records of a list may have fields of their own, such as the axes of a gathered run.
    if isinstance(default, list | tuple) and default and not isinstance(default[0], dict):
        return next(filter(None, (_mismatch(item, default[0]) for item in value)), "")
    return ""
