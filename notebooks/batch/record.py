"""Which stages have to run, and why: the record in a stage's folder decides, and nothing else.

fingerprint.json is written when a stage has run. It holds the stage's fingerprint as it was at the
start, what the stages that it needs held then, and hashes of the tables that it made. Nothing in it
is absolute, and no date decides: a copied workspace runs nothing again.

A table of a stage may be edited by hand, such as exclusions.csv: what reads it runs again, and the
stage itself does not. If that stage has to run again later, the edited table is kept beside the new
one.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.contents import DONE, RECORD, read_record, stage_contents
from batch.experiment import Experiment
from batch.fingerprint import Fingerprint, differences
from pekit.common.files import write_json

NEW = "not run yet"


def stages_to_run(experiment: Experiment, prints: Mapping[str, Fingerprint]) -> dict[str, str]:
    """Stages that are missing or out of date, in order, each with the reason in a phrase."""
    reasons: dict[str, str] = {}
    now: dict[str, dict[str, str]] = {}
    for name, stage in experiment.stages.items():
        folder = experiment.folder / name
        ahead = [need for need in stage.after if need in reasons]
        if why := _reason(folder, prints[name], stage.notebook.name, ahead, now):
            reasons[name] = why
        else:
            now[name] = stage_contents(folder)
    return reasons


def _reason(
    folder: Path,
    now: Fingerprint,
    notebook: str,
    ahead: list[str],
    needs: Mapping[str, dict[str, str]],
) -> str:
    record = read_record(folder)
    if not (folder / DONE).exists():
        return "failed or was stopped" if any(folder.glob("*.ipynb")) else NEW
    if not record:
        return "no record says what made its results"
    if record["made"].get(DONE) != stage_contents(folder)[DONE]:
        return f"its {DONE} is of another run"
    if why := differences(record["parts"], now.parts, notebook):
        return why
    if ahead:
        return f"{', '.join(ahead[:2])} will run"
    then = record["needs"]
    if gone := sorted(set(then) ^ set(needs) & set(then)):
        return f"it no longer needs {gone[0]}"
    for need in sorted(then):
        if then[need]["fingerprint"] != needs[need]["fingerprint"] or (
            then[need].get(DONE) != needs[need].get(DONE)
        ):
            return f"{need} ran"
        tables = then[need].keys() | needs[need].keys()
        changed = sorted(t for t in tables if then[need].get(t) != needs[need].get(t))
        if changed:
            return f"{need}/{changed[0]} changed"
    return ""


def begin(folder: Path, stage: str, after: list[str], fingerprint: Mapping[str, Any]) -> dict:
    """The record of a stage that starts now; that of its last run is removed."""
    (folder / stage / RECORD).unlink(missing_ok=True)
    return {**fingerprint, "needs": {need: stage_contents(folder / need) for need in after}}


def end(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a stage that has run."""
    write_json(folder / RECORD, {**record, "made": stage_contents(folder)})


def keep_edited(folder: Path) -> None:
    """Copy tables of a stage that were edited after it ran, before it runs again."""
    made = read_record(folder).get("made", {})
    now = stage_contents(folder) if made else {}
    if now.get(DONE) != made.get(DONE):
        return  # another run wrote over the tables
    for name in sorted(made.keys() & now.keys() - {"fingerprint"}):
        if now[name] != made[name]:
            path = folder / name
            kept = path.with_name(f"{path.stem}.edited{path.suffix}")
            shutil.copyfile(path, kept)
            print(f"[{folder.name}] your {name} is kept as {kept.name}", flush=True)
