"""Models of one or several experiments on the studies that all of them judged.

Two experiments seldom judge the same studies: one lacks a study that the other could not read, or
has another split. Compared are the studies that every model predicted in the same part of the
split; how many each one loses is said.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json
from pekit.dataset.schema import SLICE_LABEL, hop_names
from pekit.evaluation.ablation import AblationSettings
from pekit.evaluation.predictions import STUDY

TABLE = "models"
FOLDERS = ("run", "prepared", "model", "init", "hop1", "data", "audit", "predictions", "truth")


def common_predictions(
    models: Mapping[str, tuple[pd.DataFrame, str]], parts: Iterable[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The predictions of several models on the studies that all have, as `ablation` takes them.

    Args:
        models: by name, the model's predictions (one row per slice: StudyInstanceUID, z, part,
            pe_present_on_image, one column per hop) and the hop to compare; an empty text is the
            last hop.
        parts: of the split, that count.

    Returns:
        The predictions, with the model's name as `stage` and its probabilities as `hop1`; and one
        row per model: model, hop, studies, left out (not judged by every model).

    Raises:
        UserError: a hop that a model does not have, no study in common, or a slice whose label
            differs between two models.
    """
    kept, parts = {}, list(parts)
    for name, (table, asked) in models.items():
        hops = hop_names(table.columns)
        hop = asked or hops[-1]
        if hop not in hops:
            raise UserError(f"{name} has no {hop}: choose {' or '.join(hops)}")
        columns = [STUDY, "z", "part", SLICE_LABEL]
        kept[name] = hop, table.loc[table["part"].isin(parts), [*columns, hop]]
    studies = {name: _studies(table) for name, (_, table) in kept.items()}
    common = reduce(frozenset.intersection, studies.values())
    for part in parts:
        if not any(of == part for _, of in common):
            counts = ", ".join(f"{name} {len(found)}" for name, found in studies.items())
            raise UserError(
                f"the models have no {part} study in common (studies: {counts}): compare models "
                "with the same split"
            )
    tables, rows, labels = [], [], None
    for name, (hop, table) in kept.items():
        of_all = pd.MultiIndex.from_frame(table[[STUDY, "part"]]).isin(common)
        same = table[of_all].rename(columns={hop: "hop1"})
        ours = same.set_index([STUDY, "z"])[SLICE_LABEL].sort_index()
        if labels is not None and not ours.equals(labels):
            raise UserError(f"{name} has other slices or labels than {next(iter(models))}")
        labels = ours
        tables.append(same.assign(stage=name, level="", seed=0))
        lost = len(studies[name]) - len(common)
        rows.append({"model": name, "hop": hop, "studies": len(common), "left out": lost})
    return pd.concat(tables, ignore_index=True), pd.DataFrame(rows)


def comparison(names: Iterable[str], **settings: Any) -> AblationSettings:
    """Settings of `ablation` that put these models of `common_predictions` into one table."""
    return AblationSettings(tables={TABLE: {name: f"{name}/hop1" for name in names}}, **settings)


def differing_settings(experiments: Mapping[str, Path]) -> pd.DataFrame:
    """Settings in which the stages of experiments differ.

    Args:
        experiments: folder of each experiment, by name; its stages have params.json.

    Returns:
        One row per stage and setting that is not the same in all: stage, setting, one column per
        experiment; empty where an experiment lacks it. Folders that differ do not count.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, folder in experiments.items():
        for path in sorted(Path(folder).glob("*/params.json")):
            for setting, value in _flat(read_json(path)):
                found.setdefault((path.parent.name, setting), {})[name] = str(value)
    names = list(experiments)
    rows = [
        {"stage": stage, "setting": setting} | {name: values.get(name, "") for name in names}
        for (stage, setting), values in found.items()
        if setting not in FOLDERS and len({values.get(name) for name in names}) > 1
    ]
    return pd.DataFrame(rows, columns=["stage", "setting", *names])


def _studies(table: pd.DataFrame) -> frozenset[tuple[str, str]]:
    pairs = table[[STUDY, "part"]].drop_duplicates()
    return frozenset(zip(pairs[STUDY], pairs["part"], strict=True))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
