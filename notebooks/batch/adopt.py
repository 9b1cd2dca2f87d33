"""Take over finished stages of the experiments that an experiment extends, instead of redoing them.

A stage is taken over when its record in the other experiment says that the same code, values and
data made it, and that it is up to date there. Large files are linked, not copied: no stage changes
a file in place.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from batch.contents import DONE, stage_contents
from batch.experiment import Experiment, read_experiment
from batch.fingerprint import Fingerprint, fingerprints
from batch.notebook import locked
from batch.record import stages_to_run
from pekit.common.errors import UserError

LINKED = 100_000  # bytes; smaller files are copied
NOT_TAKEN = shutil.ignore_patterns("wandb", ".lock", "resume-*.ckpt", "*.failed.ipynb")


def adopt(
    experiment: Experiment, prints: Mapping[str, Fingerprint], reasons: Mapping[str, str]
) -> dict[str, list[str]]:
    """Take over what other experiments have finished of the stages that are to run.

    Returns:
        Stages that were taken over, by the name of the experiment that had made them.
    """
    taken: dict[str, list[str]] = {}
    left = dict(reasons)
    for path in experiment.bases:
        base = read_experiment(path)
        if not left or not any((base.folder / name / DONE).exists() for name in left):
            continue
        try:
            with locked(base.folder / ".lock", f"{base.name} is running"):
                names = _same(experiment, prints, left, base)
                for name in names:
                    _take(base.folder / name, experiment.folder / name)
                    del left[name]
        except UserError as error:  # it is running: its stages may change
            print(f"{experiment.name}: nothing is taken over from it: {error}", flush=True)
            continue
        if names:
            taken[base.name] = names
    return taken


def _same(
    experiment: Experiment,
    prints: Mapping[str, Fingerprint],
    left: Mapping[str, str],
    base: Experiment,
) -> list[str]:
    theirs = fingerprints(base)
    due = stages_to_run(base, theirs)
    same: list[str] = []
    for name, stage in experiment.stages.items():
        if name not in left or name in due or name not in theirs:
            continue
        if (experiment.folder / name).exists():  # what was begun here is not written over
            continue
        if prints[name].digest == theirs[name].digest and all(
            need in same or _equal(experiment.folder / need, base.folder / need)
            for need in stage.after
        ):
            same.append(name)
    return same


def _equal(ours: Path, theirs: Path) -> bool:
    done = (ours / DONE).exists() and (theirs / DONE).exists()
    return done and stage_contents(ours) == stage_contents(theirs)


def _take(made: Path, folder: Path) -> None:
    beside = folder.with_name(f".{folder.name}.taken")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    shutil.copytree(made, beside, symlinks=True, ignore=NOT_TAKEN, copy_function=_link)
    beside.rename(folder)


def _link(source: str, target: str) -> None:
    if os.path.getsize(source) >= LINKED or Path(source).suffix == ".dcm":
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or one without links
            pass
    shutil.copy2(source, target)
