"""The record of one stage's run: a folder that can be read without any service, and W&B.

    run = Run(Path("../runs/demo/hop1"), "hop1", settings, group="demo", seed=1)
    run.log({"loss": 0.31}, step=20)
    run.figure("curves", figure)
    run.finish({"auroc": 0.97})

leaves in the folder:

    params.json      the settings, at the start
    log.csv          a row for each call of log, flushed: a kill loses what W&B had buffered
    figures/, tables/
    manifest.json    commit, versions, seed, hashes of inputs, device, wall time, W&B run, status
    metrics.json     last of all: where it is, the stage is done

The same goes to W&B (pekit/wandb_log.py), with what was made and what was used:

    run.uses("split", Path("../runs/demo/prepare/split.csv"))
    run.artifact("model", Path("../runs/demo/hop1/model"))
"""

import atexit
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from pekit.errors import UserError
from pekit.page import Figure
from pekit.provenance import device, git_state, hash_path, package_versions
from pekit.record import CsvLog, to_json
from pekit.store import atomic, write_json
from pekit.wandb_log import WandbLog, wandb_mode


class Run:
    """One run of a stage, open from its making until `finish`.

    Args:
        folder: the stage's folder; what an earlier run recorded there is replaced.
        stage: its name.
        settings: everything that was set, for params.json.
        group: the experiment, under which W&B gathers the stages.
        seed: the seed that was used.
        inputs: what was read, by name: a Path is hashed, a string (a hash, a version) kept.
        resume: go on in log.csv, for a stage that goes on from a checkpoint.

    A run that does not reach `finish` (an error in its `with` block, or the process ends) is
    recorded in manifest.json as failed, and leaves no metrics.json.

    Raises:
        UserError: WANDB_MODE is not a mode, or an input does not exist.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        settings: Mapping[str, Any],
        *,
        group: str = "",
        seed: int | None = None,
        inputs: Mapping[str, Path | str] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder, self.stage = Path(folder), stage
        self._start = time.monotonic()
        hashes = {
            name: hash_path(value) if isinstance(value, Path) else value
            for name, value in (inputs or {}).items()
        }
        mode = wandb_mode()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        write_json(self.folder / "params.json", to_json(settings))
        self._csv = CsvLog(self.folder / "log.csv", resume)
        self._wandb = WandbLog(mode, self.folder, stage, group, settings)
        self._manifest = {
            "stage": stage,
            "group": group,
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "inputs": hashes,
            "git": git_state(),
            "packages": package_versions(),
            "wandb": {"mode": self._wandb.mode, "id": self._wandb.id},
            "charts": [],
            "artifacts": {"made": [], "used": []},
        }
        self._saved: dict[str, list[Path]] = {"figures": [], "tables": []}
        write_json(self.folder / "manifest.json", self._manifest)
        atexit.register(self._close, "failed")

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers of one step, to log.csv at once and to W&B."""
        row = to_json(values)
        self._csv.write({"step": int(step), **row})
        # As a value, not as W&B's own counter, which drops a step that comes twice.
        self._wandb.row({"step": int(step), **row})

    def figure(self, name: str, figure: Figure) -> Path:
        """Save a matplotlib figure as figures/<name>.png and log it.

        manifest.json lists which figures are charts: only those leave the machine where images of
        patients must not.
        """
        from pekit.figures.content import is_chart

        path = self.folder / "figures" / f"{_checked(name)}.png"
        with atomic(path) as beside:
            figure.savefig(beside, format="png", bbox_inches="tight", dpi=110)
        self._wandb.image(f"figures/{name}", path)
        self._saved["figures"].append(path)
        charts = set(self._manifest["charts"]) - {name}
        self._manifest["charts"] = sorted(charts | ({name} if is_chart(figure) else set()))
        return path

    def table(self, name: str, table: pd.DataFrame) -> Path:
        """Save a table as tables/<name>.csv and log it."""
        path = self.folder / "tables" / f"{_checked(name)}.csv"
        with atomic(path) as beside:
            table.to_csv(beside, index=False)
        self._wandb.html(f"tables/{name}", table.to_html(index=False, border=0))
        self._saved["tables"].append(path)
        return path

    def artifact(self, kind: str, path: Path) -> None:
        """Record that this run made a file or folder: a model, split or predictions.

        Its name in W&B is <experiment>-<stage>-<kind>, read from where it lies in a stage's
        folder. Figures and tables need no call.

        Raises:
            UserError: nothing is there.
        """
        self._artifact("made", kind, Path(path))

    def uses(self, kind: str, path: Path) -> None:
        """Record that this run used what another one recorded as its artifact, at the same path.

        Raises:
            UserError: nothing is there.
        """
        self._artifact("used", kind, Path(path))

    def _artifact(self, relation: str, kind: str, path: Path, files: Sequence[Path] = ()) -> None:
        path = path.resolve()
        if not path.exists():
            raise UserError(f"{path} does not exist: run the stage that writes it first")
        root = path if path.is_dir() else path.parent
        found = files or ([f for f in path.rglob("*") if f.is_file()] if root == path else [path])
        name = f"{path.parent.parent.name}-{path.parent.name}-{kind}"
        resolved = [file.resolve() for file in found]
        logged = self._wandb.artifact(name, kind, root, resolved, used=relation == "used")
        if logged:
            self._manifest["artifacts"][relation].append(logged)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Record the results and end the run. metrics.json comes last; NaN is null in it."""
        if self._manifest["status"] != "running":
            raise RuntimeError(f"the run of {self.stage} has ended already")
        results = to_json(metrics)
        for kind, files in self._saved.items():
            if files:
                self._artifact("made", kind, self.folder / kind, sorted(set(files)))
        self._wandb.summary(results)
        self._close("finished")
        write_json(self.folder / "metrics.json", results)

    def _close(self, status: str) -> None:
        if self._manifest["status"] != "running":
            return
        self._manifest["status"] = status
        self._manifest["wall_s"] = round(time.monotonic() - self._start, 1)
        self._manifest["device"] = device()
        self._csv.close()
        self._wandb.finish(succeeded=status == "finished")
        write_json(self.folder / "manifest.json", self._manifest)
        atexit.unregister(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        unfinished = self._manifest["status"] == "running"
        self._close("failed")
        if unfinished and error is None:
            raise RuntimeError(f"the run of {self.stage} ended without finish(metrics)")


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r}: a figure's or table's name is of letters, digits, _ and -")
    return name
