"""Log of a run for Weights & Biases: sent, or kept in `<folder>/wandb` until it is synced.

W&B itself says whether and where it sends: by WANDB_MODE, `wandb offline` or `wandb disabled`
(called in the checkout or in notebooks/), its settings, netrc files and own servers. Without an
account a run is kept offline. A line says what was decided. W&B gets no host or user name, no
absolute path, no code and no console output.

A folder is one W&B run, which a rerun of its stage replaces. A fault of W&B ends its log, never the
stage.

Files that a stage made or read are logged as artifacts, so that W&B shows which run made a file and
which runs used it. The files are kept beside the run as hard links, which a rerun of the stage does
not change. Their paths are relative to the folder of the notebooks: sync from there,

    cd notebooks && wandb sync ../runs/demo/*/wandb/offline-run-*
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from pekit.common.code_hash import ROOT
from pekit.common.errors import UserError, first_line
from pekit.common.files import file_hash, read_json, write_json
from pekit.common.progress import say
from pekit.tracking.csv_log import to_json, without_paths

# Values of WANDB_MODE, strictest first; dryrun and run are W&B's old names of offline and online.
MODES = {
    "disabled": "disabled",
    "offline": "offline",
    "dryrun": "offline",
    "online": "online",
    "run": "online",
}
# Size limit in MB of a file in an artifact. A larger file is replaced by its SHA-256: the lineage
# is the same, and a model of the paper's size (0.5 GB per hop) is not uploaded by every stage.
LIMIT = "PEKIT_ARTIFACT_MB"
DEFAULT_LIMIT_MB = 100.0


def _never_fails(method: Callable) -> Callable:
    """An error of W&B ends the log, and not the stage."""

    @functools.wraps(method)
    def guarded(self: "WandbLog", *arguments: Any, **options: Any) -> Any:
        if not self._run:
            return None
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            self._run = None
            say(f"W&B: {first_line(error)}: the rest of this run is in its folder only")
            return None

    return guarded


class WandbLog:
    """One W&B run; where W&B is disabled, its methods do nothing.

    Args:
        folder: the stage's folder; W&B's own files go to `<folder>/wandb`.
        group, stage: names of the experiment and of the stage.
        job: kind of stage.
        config: what W&B shows of the run; it does not get texts that look like a path.

    Attributes:
        mode: online, offline or disabled.
        id: of the W&B run; None if disabled.

    Raises:
        UserError: WANDB_MODE or PEKIT_ARTIFACT_MB has a bad value.
    """

    def __init__(self, folder: Path, group: str, stage: str, job: str, config: Mapping[str, Any]):
        self._limit = _limit()
        self._run, self._wandb, self.id = None, None, None
        asked = _asked_mode()
        if asked == "disabled":
            self.mode, why = asked, "WANDB_MODE"
        else:
            import wandb

            self._wandb = wandb
            self.mode, why = _mode(wandb, asked)
        if self.mode != "disabled":
            options = _options(wandb, folder, group, stage, job, config)
            self._run, self.mode, why = _start(wandb, self.mode, why, folder, options)
        if self._run:
            self.id = self._run.id
        say(f"W&B: {_decision(self.mode, self._run)} ({why})")

    @_never_fails
    def row(self, values: Mapping[str, Any]) -> None:
        """Log numbers of one step."""
        self._run.log(dict(values))

    @_never_fails
    def image(self, name: str, path: Path) -> None:
        """Log a PNG file."""
        self._run.log({name: self._wandb.Image(str(path))})

    @_never_fails
    def table(self, name: str, table: pd.DataFrame) -> None:
        """Log a table."""
        rows = to_json(table.astype(object).where(table.notna(), None).to_numpy())
        shown = self._wandb.Table(
            columns=[str(name) for name in table], data=rows, allow_mixed_types=True
        )
        # Bound first: else W&B makes an artifact too, whose record has a path in the home folder.
        shown.bind_to_run(self._run, name, 0)
        self._run.log({name: shown})

    @_never_fails
    def artifact(
        self, name: str, kind: str, root: Path, files: Sequence[Path], used: bool
    ) -> dict[str, str] | None:
        """Log `files`, with paths relative to `root`, as an artifact that this run made or used.

        The same files under the same name have the same digest, by which W&B links the run that
        used them to the run that made them. Returns name, type and digest; None if disabled, or if
        the relative path from the working folder to the run would reveal folders of this machine.
        """
        name = re.sub(r"[^\w.-]+", "-", name)
        if Path(os.path.relpath(self._run.dir)).parts[:2] == ("..", ".."):
            why = "its relative path would reveal folders: run in the notebooks' folder"
            say(f"W&B: {name} is no artifact, {why}")
            return None
        artifact = self._wandb.Artifact(name, kind)
        # A folder for each call: an artifact that is logged again leaves the files of the first.
        beside = Path(self._run.dir).parent / "artifacts"
        links = beside / name
        if links.exists():
            links = beside / f"{name}-{len(list(beside.iterdir()))}"
        for file in sorted(files):
            inside = file.relative_to(root)
            link = links / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            if file.stat().st_size > self._limit * 1e6:
                inside = inside.with_name(inside.name + ".sha256")
                link = links / inside
                link.write_text(f"{file_hash(file)}  {file.name}\n")
            else:
                _link(file, link)
            # Not copied: by default W&B copies files to the home folder, and into a cache.
            artifact.add_file(
                os.path.relpath(link), name=inside.as_posix(), policy="immutable", skip_cache=True
            )
        if used:
            # This is what run.use_artifact does with new files. It refuses to do so offline,
            # although the record is the same and syncs as well.
            self._run._log_artifact(
                artifact, aliases=[], is_user_created=True, use_after_commit=True
            )
        else:
            self._run.log_artifact(artifact)
        return {"name": name, "type": kind, "digest": artifact.digest}

    @_never_fails
    def summary(self, results: Mapping[str, Any]) -> None:
        """Log the results of the run."""
        self._run.summary.update(dict(results))

    @_never_fails
    def finish(self, succeeded: bool) -> None:
        """End the run."""
        run, self._run = self._run, None
        run.finish(exit_code=0 if succeeded else 1)


def _link(file: Path, link: Path) -> None:
    """Give the file's content a second name, which outlasts the first."""
    try:
        os.link(file, link)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(file, link)


def _limit() -> float:
    value = os.environ.get(LIMIT, str(DEFAULT_LIMIT_MB))
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{LIMIT}={value}: it must be a number of MB") from None


def _asked_mode() -> str:
    """WANDB_MODE as online, offline or disabled; empty if it is not set."""
    value = os.environ.get("WANDB_MODE", "")
    if value and value not in MODES:
        raise UserError(f"WANDB_MODE={value}: it must be one of online, offline, disabled")
    return MODES.get(value, "")


def _mode(wandb: Any, asked: str) -> tuple[str, str]:
    """Mode and reason, as W&B decides; it starts its service on the way."""
    try:
        session = wandb.setup(wandb.Settings(silent=True)).settings
        if asked:
            return asked, "WANDB_MODE"
        # `wandb offline` and `wandb disabled` hold for the folder in which they were called.
        found = {MODES.get(session.mode, "online")}
        for folder in (Path.cwd(), ROOT):
            there = wandb.Settings(root_dir=str(folder), silent=True)
            there.settings_system = session.settings_system
            there.update_from_system_settings()
            found.add(MODES.get(there.mode, "online"))
        strictest = next(mode for mode in ("disabled", "offline", "online") if mode in found)
        if strictest != "online":
            return strictest, "W&B's settings; `wandb online` or `wandb enabled` changes them"
        if wandb.login(prompt=False, verify=False):
            return "online", "W&B has an account; WANDB_MODE=offline keeps it here"
        return "offline", f"no account for {urlsplit(session.base_url).hostname}"
    except Exception as error:
        return "disabled", f"its service cannot be started: {first_line(error)}"


def _decision(mode: str, run: Any) -> str:
    if mode == "online":  # not its address, which names the account
        server = urlsplit(run.settings.base_url).hostname
        return f"this run is sent to {server}, project {run.project}, as run {run.id}"
    if mode == "offline":
        return "this run is kept in its folder, to be synced later"
    return "this run is not logged"


def _options(
    wandb: Any, folder: Path, group: str, stage: str, job: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of wandb.init, all but mode and id."""
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
    # A stage that runs over axes is called hop1_difficulty1_seed0.
    tags = [tag[:64] for tag in (group, job, *stage.split("_")) if tag]
    return {
        "project": os.environ.get("WANDB_PROJECT", "pekit"),
        "name": f"{group}/{stage}" if group else stage,
        "group": group or None,
        "job_type": job,
        "tags": list(dict.fromkeys(tags)),
        "dir": str(folder.resolve()),  # the service may have started elsewhere
        "config": _with_plain_keys(without_paths(to_json(config))),
        "settings": private,
        "reinit": "finish_previous",
    }


def _with_plain_keys(value: Any) -> Any:
    """W&B takes a point in a key for a level."""
    if isinstance(value, Mapping):
        return {key.replace(".", "_"): _with_plain_keys(item) for key, item in value.items()}
    return value


def _start(
    wandb: Any, mode: str, why: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Any, str, str]:
    """The W&B run, its mode and the reason: offline if the server cannot be reached."""
    known = folder / "wandb" / "run.json"
    # A copied or moved folder is another run: its W&B run must not replace the first one's.
    place = hashlib.sha256(f"{platform.node()} {folder.resolve()}".encode()).hexdigest()[:16]
    noted = read_json(known) if known.exists() else {}
    run_id = noted["id"] if noted.get("place") == place else uuid.uuid4().hex[:8]
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(mode=mode, id=run_id, **options)
    except Exception as error:
        if mode == "offline":
            return None, "disabled", first_line(error)
        if "deleted" in str(error):  # by its owner; W&B never takes such an id again
            run_id = uuid.uuid4().hex[:8]
        mode, why = "offline", f"{first_line(error)}; WANDB_MODE=offline skips the wait"
        try:
            wandb.teardown()  # its service still holds the run that it could not start
            wandb.setup(wandb.Settings(silent=True))
            run = wandb.init(mode=mode, id=run_id, **options)
        except Exception as second:
            return None, "disabled", first_line(second)
    write_json(known, {"id": run_id, "place": place})
    here = Path(run.dir).parent
    # Of two that start in the same second, W&B calls the later one ...-<id>-1.
    for earlier in (folder / "wandb").glob(f"*run-*-{run_id}*"):
        if earlier.resolve() != here.resolve() and not earlier.is_symlink():
            shutil.rmtree(earlier)
    run.define_metric("*", step_metric="step")
    return run, mode, why
