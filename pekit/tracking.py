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

W&B logs offline unless an account is configured, then online; WANDB_MODE overrules both. It gets
no host or user name, no path, no code and no console output.
"""

import atexit
import netrc
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pandas as pd

from pekit.errors import UserError
from pekit.page import Figure
from pekit.progress import say
from pekit.provenance import device, git_state, hash_path, package_versions
from pekit.record import CsvLog, to_json, without_paths
from pekit.store import atomic, write_json

MODES = ("online", "offline", "disabled")


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
        mode = _wandb_mode()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").unlink(missing_ok=True)
        write_json(self.folder / "params.json", to_json(settings))
        self._csv = CsvLog(self.folder / "log.csv", resume)
        self._wandb, mode = _start_wandb(mode, self.folder, stage, group, settings)
        self._manifest = {
            "stage": stage,
            "group": group,
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "inputs": hashes,
            "git": git_state(),
            "packages": package_versions(),
            "wandb": {"mode": mode, "id": self._wandb.id if self._wandb else None},
        }
        write_json(self.folder / "manifest.json", self._manifest)
        atexit.register(self._close, "failed")

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers of one step, to log.csv at once and to W&B."""
        row = to_json(values)
        self._csv.write({"step": int(step), **row})
        if self._wandb:
            # As a value, not as W&B's own counter, which drops a step that comes twice.
            self._wandb.log({"step": int(step), **row})

    def figure(self, name: str, figure: Figure) -> Path:
        """Save a matplotlib figure as figures/<name>.png and log it."""
        path = self.folder / "figures" / f"{_checked(name)}.png"
        with atomic(path) as beside:
            figure.savefig(beside, format="png", bbox_inches="tight", dpi=110)
        if self._wandb:
            import wandb

            self._wandb.log({f"figures/{name}": wandb.Image(str(path))})
        return path

    def table(self, name: str, table: pd.DataFrame) -> Path:
        """Save a table as tables/<name>.csv and log it."""
        path = self.folder / "tables" / f"{_checked(name)}.csv"
        with atomic(path) as beside:
            table.to_csv(beside, index=False)
        if self._wandb:
            import wandb

            # A wandb.Table would be staged in the home folder and record that path.
            html = table.to_html(index=False, border=0)
            self._wandb.log({f"tables/{name}": wandb.Html(html)})
        return path

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Record the results and end the run. metrics.json comes last; NaN is null in it."""
        if self._manifest["status"] != "running":
            raise RuntimeError(f"the run of {self.stage} has ended already")
        results = to_json(metrics)
        if self._wandb:
            self._wandb.summary.update(results)
        self._close("finished")
        write_json(self.folder / "metrics.json", results)

    def _close(self, status: str) -> None:
        if self._manifest["status"] != "running":
            return
        self._manifest["status"] = status
        self._manifest["wall_s"] = round(time.monotonic() - self._start, 1)
        self._manifest["device"] = device()
        self._csv.close()
        if self._wandb:
            self._wandb.finish(exit_code=0 if status == "finished" else 1)
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


def _wandb_mode() -> str:
    """WANDB_MODE, else online where an account is configured, else offline."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode and mode not in MODES:
        raise UserError(f"WANDB_MODE={mode}: it must be one of {', '.join(MODES)}")
    if mode:
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    import wandb

    host = urlsplit(wandb.setup().settings.base_url).hostname
    try:
        file = os.environ.get("NETRC") or str(Path.home() / ".netrc")
        return "online" if netrc.netrc(file).authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


def _start_wandb(
    mode: str, folder: Path, stage: str, group: str, settings: Mapping[str, Any]
) -> tuple[Any, str]:
    """The W&B run and its mode; an account that cannot be reached ends in an offline run."""
    if mode == "disabled":
        return None, mode
    import wandb

    private = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        host="",
        username="",
        email="",
        program="",
        notebook_name=stage,
        silent=True,
        init_timeout=30,
    )
    options = {
        "project": os.environ.get("WANDB_PROJECT", "pekit"),
        "name": f"{group}/{stage}" if group else stage,
        "group": group or None,
        "job_type": stage,
        "dir": str(folder),
        "config": without_paths(to_json(settings)),
        "settings": private,
        "reinit": "finish_previous",
    }
    try:
        run = wandb.init(mode=mode, **options)
    except wandb.errors.Error as error:
        if mode == "offline":
            raise
        reason = str(error).splitlines()[0]
        say(f"W&B: {reason}\nThis run is logged offline (WANDB_MODE=offline spares the wait).")
        mode = "offline"
        run = wandb.init(mode=mode, **options)
    run.define_metric("*", step_metric="step")
    return run, mode
