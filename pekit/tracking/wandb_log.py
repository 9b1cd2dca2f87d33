"""Log of a run for Weights & Biases: sent, or kept in `<folder>/wandb` until it is synced.

The mode is online if an account is configured, else offline; WANDB_MODE overrules both. W&B gets
no host or user name, no absolute path, no code and no console output.

Files that a stage made or read are logged as artifacts, so that W&B shows which run made a file and
which runs used it. The files are kept beside the run as hard links, which a rerun of the stage does
not change. Their paths are relative to the folder of the notebooks: sync from there,

    cd notebooks && wandb sync ../runs/demo/*/wandb/offline-run-*
"""

import netrc
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pekit.common.errors import UserError
from pekit.common.files import file_hash
from pekit.common.progress import say
from pekit.tracking.csv_log import to_json, without_paths

MODES = ("online", "offline", "disabled")
# Size limit in MB of a file in an artifact. A larger file is replaced by its SHA-256: the lineage
# is the same, and a model of the paper's size (0.5 GB per hop) is not uploaded by every stage.
LIMIT = "PEKIT_ARTIFACT_MB"
DEFAULT_LIMIT_MB = 100.0


class WandbLog:
    """One W&B run; with the mode `disabled` its methods do nothing.

    Args:
        mode: see `wandb_mode`; if the service cannot be reached, `self.mode` becomes offline.
        folder: the stage's folder; W&B's own files go to `<folder>/wandb`.
        stage, group: names of the stage and of the experiment.
        settings: all settings; W&B does not get texts that look like a path.

    Raises:
        UserError: PEKIT_ARTIFACT_MB is not a number.
    """

    def __init__(
        self, mode: str, folder: Path, stage: str, group: str, settings: Mapping[str, Any]
    ) -> None:
        self.mode = mode
        self._limit = _limit()
        self._run, self._wandb = None, None
        if self.mode != "disabled":
            import wandb

            self._wandb = wandb
            self._run, self.mode = _start(wandb, self.mode, folder, stage, group, settings)
        self.id = self._run.id if self._run else None

    def row(self, values: Mapping[str, Any]) -> None:
        """Log numbers of one step."""
        if self._run:
            self._run.log(dict(values))

    def image(self, name: str, path: Path) -> None:
        """Log a PNG file."""
        if self._run:
            self._run.log({name: self._wandb.Image(str(path))})

    def html(self, name: str, html: str) -> None:
        """Log a table as HTML: a wandb.Table would record a path in the home folder."""
        if self._run:
            self._run.log({name: self._wandb.Html(html)})

    def artifact(
        self, name: str, kind: str, root: Path, files: Sequence[Path], used: bool
    ) -> dict[str, str] | None:
        """Log `files`, with paths relative to `root`, as an artifact that this run made or used.

        The same files under the same name have the same digest, by which W&B links the run that
        used them to the run that made them. Returns name, type and digest; None if disabled, or if
        the relative path from the working folder to the run would reveal folders of this machine.
        """
        if not self._run:
            return None
        name = re.sub(r"[^\w.-]+", "-", name)
        if Path(os.path.relpath(self._run.dir)).parts[:2] == ("..", ".."):
            why = "its relative path would reveal folders: run in the notebooks' folder"
            say(f"W&B: {name} is no artifact, {why}")
            return None
        artifact = self._wandb.Artifact(name, kind)
        links = Path(self._run.dir).parent / "artifacts" / name
        for file in sorted(files):
            inside = file.relative_to(root)
            link = links / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            if file.stat().st_size > self._limit * 1e6:
                inside = inside.with_name(inside.name + ".sha256")
                link = links / inside
                link.write_text(f"{file_hash(file)}  {file.name}\n")
            elif not link.exists():
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

    def summary(self, results: Mapping[str, Any]) -> None:
        """Log the results of the run."""
        if self._run:
            self._run.summary.update(dict(results))

    def finish(self, succeeded: bool) -> None:
        """End the run."""
        if self._run:
            self._run.finish(exit_code=0 if succeeded else 1)


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


def wandb_mode() -> str:
    """WANDB_MODE; if it is not set, online if an account is configured, else offline.

    Raises:
        UserError: WANDB_MODE is none of online, offline and disabled.
    """
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


def _start(
    wandb: Any, mode: str, folder: Path, stage: str, group: str, settings: Mapping[str, Any]
) -> tuple[Any, str]:
    """The W&B run and its mode: offline if the service cannot be reached."""
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
        "dir": str(folder.resolve()),  # the service may have started elsewhere
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
        say(
            f"W&B: {reason}\nThis run is logged offline (to skip the wait, set WANDB_MODE=offline)."
        )
        mode = "offline"
        run = wandb.init(mode=mode, **options)
    run.define_metric("*", step_metric="step")
    return run, mode
