"""Axes of an experiment: stages that run once for each value of an axis, such as a seed.

    axes:
      difficulty: [1.0, 2.0]
      seed: [0, 1, 2]
    stages:
      cohort:
        notebook: 10_phantoms.ipynb
        params: {DIFFICULTY: $difficulty}
      prepare:
        notebook: 12_prepare.ipynb
        needs: {DATA: cohort}
      hop1:
        notebook: 21_train_hop1.ipynb
        needs: {PREPARED: prepare}
        params: {SEED: $seed}
      tables:
        notebook: 32_ablation_tables.ipynb
        gathers: {RUNS: [hop1]}

A stage with `$seed` among its parameters runs once for each value of that axis: hop1_seed0,
hop1_seed1, ... It also runs over the axes of the stages that it needs, and reads those of the same
values (prepare_difficulty1 reads cohort_difficulty1). `$seed+100` adds to a whole number: other
random draws for a training that goes on from another one. A stage that `gathers` others runs once
and gets all of them, as a list of {"stage": "hop1", "folder": ..., "difficulty": 1.0, "seed": 0}.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pekit.common.errors import UserError, nearest


def expand(
    stages: Mapping[str, dict[str, Any]], axes: Mapping[str, list], path: Path
) -> dict[str, dict[str, Any]]:
    """Stages repeated over their axes; `gathers` becomes lists of mappings, folder among them.

    Raises UserError for an axis that is no list of numbers or words, or has the same value twice;
    for a `$name` that is no axis; and for a stage that gathers one that does not exist.
    """
    for axis, values in axes.items():
        _check_axis(axis, values, path)
    over = {name: _axes_of(name, stages, axes, path) for name in stages}
    repeats = {
        name: [
            dict(zip(over[name], values, strict=True))
            for values in itertools.product(*(axes[axis] for axis in over[name]))
        ]
        for name in stages
    }
    done = {}
    for name, entry in stages.items():
        for values in repeats[name]:
            done[_named(name, values)] = entry | {
                "params": _filled(entry["params"], values),
                "needs": {k: _sibling(v, values, over) for k, v in entry["needs"].items()},
                "after": [_sibling(v, values, over) for v in entry.get("after") or []],
                "gathers": {
                    key: [item for other in others for item in _items(other, repeats)]
                    for key, others in entry["gathers"].items()
                },
            }
    return done


def _check_axis(axis: str, values: Any, path: Path) -> None:
    where = f"{path.name}: axis {axis}"
    if not re.fullmatch(r"[a-z][a-z0-9]*", str(axis)) or axis in ("stage", "folder"):
        raise UserError(f"{where}: a name of a-z and 0-9, not 'stage' or 'folder'")
    plain = isinstance(values, list) and all(
        isinstance(v, int | float) or re.fullmatch(r"[a-z0-9]+", str(v)) for v in values
    )
    if not plain or not values:
        raise UserError(f"{where}: expected a list of numbers or of words of a-z and 0-9")
    if len({_named("", {axis: value}) for value in values}) < len(values):
        raise UserError(f"{where}: a value is given twice")


def _axes_of(
    name: str, stages: Mapping[str, dict], axes: Mapping[str, list], path: Path, seen: tuple = ()
) -> list[str]:
    """The axes that a stage runs over, in the order of the file."""
    entry, where = stages[name], f"{path.name}: stage {name}"
    for others in entry["gathers"].values():
        unknown = [o for o in others if o not in stages] if isinstance(others, list) else [others]
        if unknown:
            near = nearest(str(unknown[0]), stages)
            raise UserError(f"{where}: gathers {unknown[0]!r}: not a list of stages; {near}")
    found = set()
    for value in entry["params"].values():
        if isinstance(value, str) and value.startswith("$"):
            axis, plus = _axis_and_offset(value)
            if axis not in axes:
                raise UserError(f"{where}: no axis {value!r}; {nearest(axis, axes)}")
            if plus and not all(isinstance(v, int) for v in axes[axis]):
                raise UserError(f"{where}: {value} needs an axis of whole numbers: {axes[axis]}")
            found.add(axis)
    needed = [*entry["needs"].values(), *(entry.get("after") or [])]
    for other in {str(value).split("/")[0] for value in needed} & set(stages) - {*seen, name}:
        found |= set(_axes_of(other, stages, axes, path, (*seen, name)))
    return [axis for axis in axes if axis in found]


def _filled(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _value(value, values) if isinstance(value, str) and value.startswith("$") else value
        for key, value in params.items()
    }


def _value(text: str, values: Mapping[str, Any]) -> Any:
    axis, plus = _axis_and_offset(text)
    return values[axis] + plus if plus else values[axis]


def _axis_and_offset(text: str) -> tuple[str, int]:
    """The axis and the offset of `$seed` or `$seed+100`."""
    found = re.fullmatch(r"\$([a-z0-9]+)(?:\+(\d+))?", text)
    return (found[1], int(found[2] or 0)) if found else (text[1:], 0)


def _named(name: str, values: Mapping[str, Any]) -> str:
    """The stage's name for these values, fit for a folder: hop1_difficulty1_seed0."""
    words = {axis: f"{v:g}" if isinstance(v, float) else str(v) for axis, v in values.items()}
    parts = [axis + word for axis, word in words.items()]
    return "_".join([name, *parts]).replace(".", "p").replace("-", "m")


def _sibling(value: str, values: Mapping[str, Any], over: Mapping[str, list[str]]) -> str:
    """The repeat of a needed stage, or of a folder in it, that has the same values."""
    stage, *rest = str(value).split("/", 1)
    if stage not in over:
        return value
    return "/".join([_named(stage, {axis: values[axis] for axis in over[stage]}), *rest])


def _items(stage: str, repeats: Mapping[str, list[dict]]) -> list[dict[str, Any]]:
    return [
        {"stage": stage, "folder": _named(stage, values), **values} for values in repeats[stage]
    ]
