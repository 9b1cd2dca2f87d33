"""Record of one run of a stage: files in its folder, readable without any service, and W&B.

    run = Run(Path("../runs/demo/hop1"), settings, seed=1, inputs={"split": Path("split.csv")})
    run.log({"loss": 0.31}, step=20)
    run.figure("curves", figure)    # saves it, and shows it as a cell's last expression
    run.artifact(Path("../runs/demo/hop1/model"))
    run.finish({"auroc": 0.97})

leaves in the folder:

    params.json      the settings, at the start
    log.csv          one row per call of log, flushed: a killed process loses no row
    figures/, tables/
    manifest.json    commit, versions, seed, hashes of inputs, device, wall time, W&B run, status
    metrics.json     the results, written last: a stage that has it is done

W&B gets the same, and the artifacts that the run made and used (pekit/tracking/wandb_log.py).
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
from pekit.common.files import atomic, hash_path, read_json, write_csv, write_json
from pekit.tracking.csv_log import CsvLog, to_json
from pekit.tracking.provenance import device, git_state, package_versions
from pekit.tracking.wandb_log import WandbLog, wandb_mode


class Figure(Protocol):
    """The part of a matplotlib figure that is used; this module does not import matplotlib."""

    def savefig(self, target: Path, **options: object) -> None: ...


class Run:
    """One run of a stage. It starts when it is made and ends with `finish`.

    A run that does not reach `finish` (an error in its `with` block, or the process ends) is
    recorded as failed in manifest.json and has no metrics.json.

    Args:
        folder: `<experiment>/<stage>`; the two names are group and name of the run in W&B. It
            replaces the records of an earlier run in this folder.
        settings: all settings, for params.json.
        seed: the random seed.
        inputs: what the run reads, by name: a Path is hashed; a string (a hash, a version) is
            recorded as it is. A Path that another run recorded as an artifact, or that lies in
            one, is also recorded as used, so that W&B shows the lineage.
        resume: keep log.csv, for a stage that resumes from a checkpoint (`CsvLog`).

    Raises:
        UserError: WANDB_MODE or PEKIT_ARTIFACT_MB has a bad value, or an input does not exist.
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
        paths = (value for value in inputs.values() if isinstance(value, Path))
        for artifact in filter(None, dict.fromkeys(map(_artifact_of, paths))):
            self._artifact("used", artifact)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers of one step in log.csv, flushed, and in W&B."""
        row = to_json(values)
        self._csv.write({"step": int(step), **row})
        # The step is a value, not W&B's own counter, which drops a step that is logged twice.
        self._wandb.row({"step": int(step), **row})

    def figure(self, name: str, figure: Figure) -> Figure:
        """Save a matplotlib figure as figures/<name>.png, log it, and return it to be shown.

        manifest.json lists figures with `figure.patient` False as charts: a review bundle without
        images of patients holds no other figures.
        """
        path = self.folder / "figures" / f"{_checked(name)}.png"
        with atomic(path) as beside:
            figure.savefig(beside, format="png", bbox_inches="tight", dpi=110)
        self._wandb.image(f"figures/{name}", path)
        self._saved["figures"].append(path)
        charts = set(self._manifest["charts"]) - {name}
        if not getattr(figure, "patient", True):
            charts.add(name)
        self._manifest["charts"] = sorted(charts)
        return figure

    def table(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Save a table as tables/<name>.csv, log it, and return it to be shown."""
        path = self.folder / "tables" / f"{_checked(name)}.csv"
        write_csv(path, table)
        self._wandb.html(f"tables/{name}", table.to_html(index=False, border=0))
        self._saved["tables"].append(path)
        return table

    def artifact(self, path: Path) -> None:
        """Record a file or folder that this run made, such as model/ or split.csv, as an artifact.

        Its name in W&B is <experiment>-<stage>-<name without suffix>. Figures and tables are
        recorded without a call.

        Raises:
            UserError: `path` does not exist.
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
        """Record the results and end the run. metrics.json is written last; NaN becomes null."""
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
    """The artifact of another run that `path` is or lies in; None if that run recorded none."""
    path = path.resolve()
    for inner, stage in zip((path, path.parent), path.parents, strict=False):
        if (stage / "manifest.json").exists():
            made = read_json(stage / "manifest.json").get("artifacts", {}).get("made", [])
            return inner if inner.stem in {artifact["type"] for artifact in made} else None
    return None


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r}: name figures and tables with letters, digits, _ and - only")
    return name
