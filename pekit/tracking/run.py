"""The record of one stage's run: a folder that can be read without any service, and W&B.

    run = Run(Path("../runs/demo/hop1"), settings, seed=1, inputs={"split": Path("split.csv")})
    run.log({"loss": 0.31}, step=20)
    run.figure("curves", figure)    # saves it, and shows it as a cell's last expression
    run.artifact(Path("../runs/demo/hop1/model"))
    run.finish({"auroc": 0.97})

leaves in the folder:

    params.json      the settings, at the start
    log.csv          a row for each call of log, flushed: a kill loses what W&B had buffered
    figures/, tables/
    manifest.json    commit, versions, seed, hashes of inputs, device, wall time, W&B run, status
    metrics.json     last of all: where it is, the stage is done

The same goes to W&B (pekit/tracking/wandb_log.py), with the artifacts that were made and used.
"""

import atexit
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import atomic, hash_path, read_json, write_json
from pekit.tracking.csv_log import CsvLog, to_json
from pekit.tracking.provenance import device, git_state, package_versions
from pekit.tracking.wandb_log import WandbLog, wandb_mode


class Figure(Protocol):
    """What is used of a matplotlib figure, which this module does not import."""

    def savefig(self, target: Path, **options: object) -> None: ...


class Run:
    """One run of a stage, open from its making until `finish`.

    Args:
        folder: `<experiment>/<stage>`; the two names are the run's group and name in W&B. What an
            earlier run recorded there is replaced.
        settings: everything that was set, for params.json.
        seed: the seed that was used.
        inputs: what was read, by name: a Path is hashed, a string (a hash, a version) kept. A file
            of another run's artifact is also recorded as used, so that W&B shows the lineage.
        resume: go on in log.csv, for a stage that goes on from a checkpoint.

    A run that does not reach `finish` (an error in its `with` block, or the process ends) is
    recorded in manifest.json as failed, and leaves no metrics.json.

    Raises:
        UserError: WANDB_MODE is not a mode, or an input does not exist.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        seed: int | None = None,
        inputs: Mapping[str, Path | str] = MappingProxyType({}),
        resume: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.stage, group = self.folder.resolve().name, self.folder.resolve().parent.name
        self._start = time.monotonic()
        hashes = {
            name: hash_path(value) if isinstance(value, Path) else value
            for name, value in inputs.items()
        }
        mode = wandb_mode()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        write_json(self.folder / "params.json", to_json(settings))
        self._csv = CsvLog(self.folder / "log.csv", resume)
        self._wandb = WandbLog(mode, self.folder, self.stage, group, settings)
        self._manifest = {
            "stage": self.stage,
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
        for made in {_artifact_of(v): None for v in inputs.values() if isinstance(v, Path)}:
            if made:
                self._artifact("used", made)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers of one step, to log.csv at once and to W&B."""
        row = to_json(values)
        self._csv.write({"step": int(step), **row})
        # As a value, not as W&B's own counter, which drops a step that comes twice.
        self._wandb.row({"step": int(step), **row})

    def figure(self, name: str, figure: Figure) -> Figure:
        """Save a matplotlib figure as figures/<name>.png, log it, and return it to be shown.

        manifest.json lists the figures that say that they show no patient (`figure.patient` is
        False): only those leave the machine where images of patients must not.
        """
        path = self.folder / "figures" / f"{_checked(name)}.png"
        with atomic(path) as beside:
            figure.savefig(beside, format="png", bbox_inches="tight", dpi=110)
        self._wandb.image(f"figures/{name}", path)
        self._saved["figures"].append(path)
        charts = set(self._manifest["charts"]) - {name}
        self._manifest["charts"] = sorted(
            charts | (set() if getattr(figure, "patient", True) else {name})
        )
        return figure

    def table(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Save a table as tables/<name>.csv, log it, and return it to be shown."""
        path = self.folder / "tables" / f"{_checked(name)}.csv"
        with atomic(path) as beside:
            table.to_csv(beside, index=False)
        self._wandb.html(f"tables/{name}", table.to_html(index=False, border=0))
        self._saved["tables"].append(path)
        return table

    def artifact(self, path: Path) -> None:
        """Record that this run made a file or folder: model, split.csv or predictions.parquet.

        Its name in W&B is <experiment>-<stage>-<name without ending>. Figures and tables need no
        call.

        Raises:
            UserError: nothing is there.
        """
        self._artifact("made", Path(path))

    def _artifact(self, relation: str, path: Path, files: Sequence[Path] = ()) -> None:
        path = path.resolve()
        if not path.exists():
            raise UserError(f"{path} does not exist: run the stage that writes it first")
        root = path if path.is_dir() else path.parent
        found = files or ([f for f in path.rglob("*") if f.is_file()] if root == path else [path])
        kind, stage = path.stem, path.parent
        name = f"{stage.parent.name}-{stage.name}-{kind}"
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
                self._artifact("made", self.folder / kind, sorted(set(files)))
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


def _artifact_of(path: Path) -> Path | None:
    """The artifact that `path` is, or lies in, where the run that made it recorded one."""
    path = path.resolve()
    for inner, stage in zip((path, path.parent), path.parents, strict=False):
        if (stage / "manifest.json").exists():
            made = read_json(stage / "manifest.json").get("artifacts", {}).get("made", [])
            return inner if inner.stem in {artifact["type"] for artifact in made} else None
    return None


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r}: a figure's or table's name is of letters, digits, _ and -")
    return name
