"""What would stop a stage hours later is looked for before the first one runs.

check_files    files and folders that no stage makes
check_values   settings of all stages, words that functions take, encoders, GPUs, disk
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from batch.experiment import Experiment, Stage
from batch.notebook import ROOT, shown
from batch.parameters import read_parameters
from batch.settings import check_settings, check_words
from pekit.common.errors import UserError, nearest

BY_HAND = "../runs/lab"  # where the notebooks' defaults are
STARTS = ("random", "timm", "torchvision", "package")  # of INIT, where it is no path
PARTS = ("train", "validation", "test", "competition")
WORDS = {"INIT": STARTS, "PART": PARTS, "PARTS": PARTS, "CHOOSE_ON": PARTS, "REPORT_ON": PARTS}


def check_files(experiment: Experiment) -> None:
    """Look for the files and folders that stages read from outside the experiment.

    Raises:
        UserError: one does not exist, or a stage would read a folder of runs by hand.
    """
    for name, stage in experiment.stages.items():
        where = f"{experiment.path.name}: stage {name}"
        for parameter, default in read_parameters(stage.notebook).items():
            by_hand = BY_HAND in repr(default)
            if parameter == "RUN" or parameter in stage.inside:
                continue
            if parameter not in stage.params:
                if by_hand:
                    raise UserError(
                        f"{where}: {parameter} is not given; its default is of runs by hand "
                        f"({default!r}): set it by needs or params"
                    )
                continue
            for value in _texts(stage.params[parameter]):
                path = stage.notebook.parent / value
                if _names_path(parameter, value, by_hand) and not path.exists():
                    seen = os.path.normpath(path)
                    raise UserError(
                        f"{where}: {parameter}: there is no {shown(Path(seen))}: set {parameter} "
                        f"in {shown(experiment.path)} (relative paths start in notebooks/)"
                    )


def _names_path(parameter: str, value: str, by_default: bool) -> bool:
    if value.startswith(("../", "./", "/", "~")):
        return True
    return by_default and bool(value) and (parameter not in WORDS or "/" in value)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def check_values(experiment: Experiment, names: Iterable[str]) -> None:
    """Build the settings of these stages, and check GPUs, disk and words.

    In a process of its own: libraries are loaded that need not stay in memory for days.

    Raises:
        UserError: a value that a stage would refuse, or a machine that does not suffice.
    """
    check_disk(experiment)
    asked = [(f"{experiment.path.name}: stage {n}", experiment.stages[n]) for n in names]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        if problem := pool.submit(first_problem, asked).result():
            raise UserError(problem)


def check_disk(experiment: Experiment) -> None:
    """Whether the disk has room for what the experiment's `disk_gb` says.

    Raises:
        UserError: there is less.
    """
    folder = experiment.folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    used = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9
    if experiment.disk_gb - used > free:
        raise UserError(
            f"{experiment.name} needs {experiment.disk_gb:g} GB in {shown(folder)}, of which "
            f"{used:.1f} are there, and the disk has {free:.1f} GB left: make room, or let "
            f"{shown(ROOT / 'runs')} be a link to another disk"
        )


def first_problem(stages: list[tuple[str, Stage]]) -> str:
    """The first fault in the values of stages, cheap checks first; empty if there is none."""
    for check in (_settings, _words, _gpus, _names):
        for where, stage in stages:
            defaults = read_parameters(stage.notebook)
            try:
                check(stage.notebook, defaults, defaults | stage.params)
            except UserError as error:
                return f"{where}: {error}"
    return ""


def _settings(notebook: Path, _: Mapping[str, Any], values: dict[str, Any]) -> None:
    check_settings(notebook, values)


def _words(notebook: Path, _: Mapping[str, Any], values: dict[str, Any]) -> None:
    for name in WORDS.keys() & values.keys():
        for word in [values[name]] if isinstance(values[name], str) else values[name]:
            there = "/" in word or (notebook.parent / word).exists()  # or will be: a stage's folder
            if word not in WORDS[name] and not there:
                raise UserError(f"{name} = {word!r}: {nearest(word, WORDS[name])}")


def _gpus(_: Path, __: Mapping[str, Any], values: dict[str, Any]) -> None:
    train = values.get("TRAIN") or {}
    devices = train.get("cluster", {}).get("devices", 1)
    if train.get("device") == "gpu":
        import torch

        found = torch.cuda.device_count()
        if found < devices:
            raise UserError(
                f"TRAIN: device: gpu and cluster.devices: {devices}, and torch finds {found} GPUs: "
                "set device to auto or cpu, or devices to what there is"
            )


def _names(notebook: Path, defaults: Mapping[str, Any], values: dict[str, Any]) -> None:
    """Names that only slow libraries know; the notebook's defaults are known to be right."""
    other = {k: v for k, v in values.items() if v != defaults[k]}
    check_words(notebook, {k: v for k, v in other.items() if isinstance(v, str)})
    if method := other.get("METHOD"):
        from pekit.explain import attribution_method

        attribution_method(method)
    if encoder := other.get("ENCODER"):
        from pekit.model.encoder import timm_name
        from pekit.model.encoder3d import DEPTHS

        if encoder not in DEPTHS:
            try:
                timm_name(encoder)
            except UserError as error:
                raise UserError(f"ENCODER: {error}") from None
