"""Record of one run of a stage: files in its folder, readable without any service, and W&B.

    run = Run(Path("../runs/demo/hop1"), settings, seed=1, inputs={"split": Path("split.csv")})
    run.log({"loss": 0.31}, step=20)
    run.figure("curves", figure)    # saves it, and shows it as a cell's last expression
    run.artifact(Path("../runs/demo/hop1/model"))
    run.finish({"auroc": 0.97})     # says what was made

leaves in the folder:

    params.json      the settings, at the start
    log.csv          one row per call of log: a killed process loses no row
    figures/, tables/
    manifest.json    commit, versions, seed, hashes of inputs, device, wall time, W&B run, status
    metrics.json     the results, written last: a stage that has it is done

W&B gets the same, and the artifacts that the run made and used (pekit/tracking/wandb_log.py).

The folder has one run: the one that started last. An earlier one, such as that of a cell that was
run again or of another kernel, writes nothing any more. A run that has finished may go on: a cell
that is run again replaces its figure, table or rows, and `finish` the results. (W&B keeps what it
had at the first finish.)
"""

import atexit
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import atomic, hash_path, read_json, write_csv, write_json
from pekit.common.progress import say
from pekit.tracking.csv_log import CsvLog, to_json
from pekit.tracking.lineage import check_lineage, stage_of
from pekit.tracking.provenance import device, git_state, package_versions
from pekit.tracking.wandb_log import WandbLog

# What a folder holds beside what its stage made.
RECORDS = ("params.json", "manifest.json", "metrics.json", "log.csv", "wandb")


class Figure(Protocol):
    """The part of a matplotlib figure that is used; this module does not import matplotlib."""

    def savefig(self, target: Path, **options: object) -> None: ...


class Run:
    """One run of a stage. It starts when it is made and ends with `finish`.

    Until then manifest.json calls it unfinished, also if its process is killed. A run that does not
    reach `finish` (an error in its `with` block, or the process ends) is recorded as failed. Both
    have no metrics.json.

    Args:
        folder: `<experiment>/<stage>`; the two names are group and name of the run in W&B. It
            replaces the records of an earlier run in this folder.
        settings: all settings, for params.json.
        job: kind of stage in W&B, such as train or evaluate; without it the stage's name.
        seed: the random seed.
        inputs: what the run reads, by name: a Path is hashed; a string (a hash, a version) is
            recorded as it is. A Path that another run recorded as an artifact, or that lies in
            one, is also recorded as used, so that W&B shows the lineage. Inputs that were not made
            from each other are refused (`pekit.tracking.lineage`): the same name (split, studies,
            model, predictions, thresholds) means the same thing in every stage.
        makes: names of artifacts, figures and tables that must be recorded before `finish`.

    Raises:
        UserError: WANDB_MODE or PEKIT_ARTIFACT_MB has a bad value, or an input does not exist, or
            was made from something else than the run reads.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        job: str = "",
        seed: int | None = None,
        inputs: Mapping[str, Path | str] = MappingProxyType({}),
        makes: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.stage, group = self.folder.resolve().name, self.folder.resolve().parent.name
        self._start, self._makes = time.monotonic(), makes
        paths = {name: value for name, value in inputs.items() if isinstance(value, Path)}
        hashes = {**inputs, **{name: hash_path(path) for name, path in paths.items()}}
        check_lineage(paths, hashes)
        git = git_state()
        config = {
            **({} if seed is None else {"seed": seed}),
            **to_json(settings),
            "axes": _axes(self.stage),
            "git": git,
            "inputs": {name: _origin(paths.get(name), value) for name, value in hashes.items()},
        }
        made_by = {name: origin.get("run") for name, origin in config["inputs"].items()}
        self._wandb = WandbLog(self.folder, group, self.stage, job or self.stage, config)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        write_json(self.folder / "params.json", to_json(settings))
        self._csv = CsvLog(self.folder / "log.csv")
        self._manifest = {
            "stage": self.stage,
            "group": group,
            "run": uuid.uuid4().hex[:12],
            "status": "unfinished",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "inputs": hashes,
            "made_by": {name: run for name, run in made_by.items() if run},
            "git": git,
            "packages": package_versions(),
            "wandb": {"mode": self._wandb.mode, "id": self._wandb.id},
            "charts": [],
            "artifacts": {"made": [], "used": []},
        }
        self._saved: dict[str, set[Path]] = {"figures": set(), "tables": set()}
        self._made: set[str] = set()
        write_json(self.folder / "manifest.json", self._manifest)
        atexit.register(self._close, "failed")
        for artifact in filter(None, dict.fromkeys(map(_artifact_of, paths.values()))):
            self._artifact("used", artifact)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers of one step in log.csv and in W&B; a step may be logged again."""
        self._check_current()
        row = {"step": int(step), **to_json(values)}
        if self._csv.write(row):
            # The step is a value, not W&B's own counter, which drops a step that is logged twice.
            self._wandb.row(row)

    def figure(self, name: str, figure: Figure) -> Figure:
        """Save a matplotlib figure as figures/<name>.png, log it, and return it to be shown.

        manifest.json lists figures with `figure.patient` False as charts: a review bundle without
        images of patients holds no other figures.
        """
        self._check_current()
        path = self.folder / "figures" / f"{_checked(name)}.png"
        with atomic(path) as beside:
            figure.savefig(beside, format="png", bbox_inches="tight", dpi=110)
        self._wandb.image(f"figures/{name}", path)
        self._saved["figures"].add(path)
        self._made.add(name)
        charts = set(self._manifest["charts"]) - {name}
        if not getattr(figure, "patient", True):
            charts.add(name)
        self._manifest["charts"] = sorted(charts)
        return figure

    def table(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Save a table as tables/<name>.csv, log it, and return it to be shown."""
        self._check_current()
        path = self.folder / "tables" / f"{_checked(name)}.csv"
        write_csv(path, table)
        self._wandb.table(f"tables/{name}", table)
        self._saved["tables"].add(path)
        self._made.add(name)
        return table

    def artifact(self, path: Path) -> None:
        """Record a file or folder that this run made, such as model/ or split.csv, as an artifact.

        Its name in W&B is <experiment>-<stage>-<name without suffix>. Figures and tables are
        recorded without a call.

        Raises:
            UserError: `path` does not exist.
        """
        self._check_current()
        self._artifact("made", Path(path))
        self._made.add(Path(path).name)

    def _artifact(self, relation: str, path: Path, files: Sequence[Path] = ()) -> None:
        path = path.resolve()
        if not path.exists():
            raise UserError(f"{path} does not exist: run the stage that writes it first")
        root = path if path.is_dir() else path.parent
        found = files or ([f for f in path.rglob("*") if f.is_file()] if root == path else [path])
        kind, stage = path.stem, path.parent
        name = f"{stage.parent.name}-{stage.name}-{kind}"
        resolved = [file.resolve() for file in found]
        if logged := self._wandb.artifact(name, kind, root, resolved, used=relation == "used"):
            noted = self._manifest["artifacts"]
            others = [item for item in noted[relation] if item["name"] != logged["name"]]
            noted[relation] = [*others, logged]

    def finish(self, metrics: Mapping[str, Any], following: str = "") -> None:
        """Record the results and end the run. metrics.json is written last; NaN becomes null.

        Says what the folder holds, and which notebook is `following`.

        Raises:
            UserError: something that the run `makes` is not made.
        """
        self._check_current()
        if missing := [name for name in self._makes if name not in self._made]:
            raise UserError(
                f"{_shown(self.folder)} was started again, and {', '.join(missing)} was not made "
                "since: run the cells below the one that makes the Run, in their order"
            )
        results = to_json(metrics)
        for kind, files in self._saved.items():
            if files:
                self._artifact("made", self.folder / kind, sorted(files))
        self._wandb.summary(results)
        self._close("finished")
        write_json(self.folder / "metrics.json", results)
        say(f"{self.stage} is done. {_shown(self.folder)} holds {', '.join(_made(self.folder))}.")
        if following and os.environ.get("PEKIT_BATCH") != "1":
            say(f"Next: {following}")

    def _current(self) -> bool:
        """Whether no other run has been started in the folder since."""
        path = self.folder / "manifest.json"
        return path.exists() and read_json(path).get("run") == self._manifest["run"]

    def _check_current(self) -> None:
        if not self._current():
            raise UserError(
                f"another run was started in {_shown(self.folder)} since (or its records were "
                "deleted), and this one writes nothing there any more: run this notebook again "
                "from the cell that makes the Run"
            )

    def _close(self, status: str) -> None:
        atexit.unregister(self._close)
        self._wandb.finish(succeeded=status == "finished")
        if not self._current():
            return
        if self._manifest["status"] == "unfinished":
            self._manifest["wall_s"] = round(time.monotonic() - self._start, 1)
            self._manifest["device"] = device()
        self._manifest["status"] = status
        write_json(self.folder / "manifest.json", self._manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._manifest["status"] == "unfinished":
            self._close("failed")
            if error is None:
                raise RuntimeError(f"the run of {self.stage} ended without finish(metrics)")


def _axes(stage: str) -> dict[str, float]:
    """Values of the axes over which a stage repeats, from its name: hop1_difficulty1p5_seed0."""
    found = re.findall(r"_([a-z]+)(m?)(\d+)(?:p(\d+))?(?=_|$)", stage)
    return {
        axis: float(f"{'-' * bool(minus)}{whole}.{part or 0}") for axis, minus, whole, part in found
    }


def _origin(path: Path | None, content: str) -> dict[str, Any]:
    """Where an input comes from: its hash and, if another run made it, that run and its inputs."""
    origin: dict[str, Any] = {"hash": content}
    if path and (folder := stage_of(path)):
        made = read_json(folder / "manifest.json")
        origin["run"] = f"{folder.parent.name}-{folder.name}"  # no path, which W&B must not get
        origin |= {name: made.get(name) for name in ("seed", "inputs", "made_by")}
    return origin


def _artifact_of(path: Path) -> Path | None:
    """The artifact of another run that `path` is or lies in; None if that run recorded none."""
    if not (stage := stage_of(path)):
        return None
    inner = stage / path.resolve().relative_to(stage).parts[0]
    made = read_json(stage / "manifest.json").get("artifacts", {}).get("made", [])
    return inner if inner.stem in {artifact["type"] for artifact in made} else None


def _made(folder: Path) -> list[str]:
    """What a stage's folder holds beside records, executed notebooks and hidden files."""
    names = []
    for path in sorted(folder.iterdir()):
        if path.name in RECORDS or path.name.startswith(".") or path.suffix == ".ipynb":
            continue
        count = f" ({len(list(path.iterdir()))})" if path.name in ("figures", "tables") else ""
        names.append(f"{path.name}/{count}" if path.is_dir() else path.name)
    return names or ["its records"]


def _shown(folder: Path) -> str:
    """A folder as its user named it; an absolute path, which may name people, by its end."""
    return "/".join(folder.parts[-2:]) if folder.is_absolute() else folder.as_posix()


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r}: name figures and tables with letters, digits, _ and - only")
    return name
