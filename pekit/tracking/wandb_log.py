"""What a run sends to Weights & Biases, or keeps for it in `<folder>/wandb` until it is synced.

W&B logs offline unless an account is configured, then online; WANDB_MODE overrules both. It gets
no host or user name, no absolute path, no code and no console output.

Files that a stage made or read are logged as artifacts, so that W&B shows which run made what and
which used it. Their files stay beside the run as hard links, which a rerun of the stage does not
change, and are known by their place relative to the folder of the notebooks: sync from there,

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
# MB of the largest file that goes into an artifact. Of a larger one its SHA-256 does: the lineage
# is the same, and a model of the paper's size (0.5 GB a hop) is not uploaded by every stage.
LIMIT = "PEKIT_ARTIFACT_MB"
DEFAULT_LIMIT_MB = 100.0


class WandbLog:
    """One W&B run; in the mode `disabled` it takes everything and does nothing.

    Args:
        mode: of `wandb_mode`; where the service cannot be reached, `self.mode` is offline after.
        folder: the stage's folder; W&B's own files go to `<folder>/wandb`.
        stage, group: the run's name and kind of job, and the experiment.
        settings: what was set; texts that look like a path stay here.

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
        """Numbers of one step."""
        if self._run:
            self._run.log(dict(values))

    def image(self, name: str, path: Path) -> None:
        """A PNG file."""
        if self._run:
            self._run.log({name: self._wandb.Image(str(path))})

    def html(self, name: str, html: str) -> None:
        """A table as HTML: a wandb.Table would be staged in the home folder, with that path."""
        if self._run:
            self._run.log({name: self._wandb.Html(html)})

    def artifact(
        self, name: str, kind: str, root: Path, files: Sequence[Path], used: bool
    ) -> dict[str, str] | None:
        """Log `files`, named as they lie in `root`, as made or as used by this run.

        The same files under the same name are the same artifact: a run that used it is joined to
        the one that made it by their digest. Returns name, type and digest; None when disabled, and
        where the way from the working folder to the run's would tell where this machine keeps it.
        """
        if not self._run:
            return None
        name = re.sub(r"[^\w.-]+", "-", name)
        if Path(os.path.relpath(self._run.dir)).parts[:2] == ("..", ".."):
            way_out = "run in the notebooks' folder"
            say(f"W&B: {name} is no artifact, as its path would be told: {way_out}")
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
            # As it lies there: W&B would copy it to the home folder, and keep it in a cache.
            artifact.add_file(
                os.path.relpath(link), name=inside.as_posix(), policy="immutable", skip_cache=True
            )
        if used:
            # What run.use_artifact does with files that W&B has yet to see, and refuses to do
            # offline, although the record is the same and is synced as well.
            self._run._log_artifact(
                artifact, aliases=[], is_user_created=True, use_after_commit=True
            )
        else:
            self._run.log_artifact(artifact)
        return {"name": name, "type": kind, "digest": artifact.digest}

    def summary(self, results: Mapping[str, Any]) -> None:
        """The run's results."""
        if self._run:
            self._run.summary.update(dict(results))

    def finish(self, succeeded: bool) -> None:
        """End the run."""
        if self._run:
            self._run.finish(exit_code=0 if succeeded else 1)


def _link(file: Path, link: Path) -> None:
    """The file's content under another name, whatever becomes of the first."""
    try:
        os.link(file, link)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(file, link)


def _limit() -> float:
    value = os.environ.get(LIMIT, str(DEFAULT_LIMIT_MB))
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{LIMIT}={value}: it must be a number of MB") from None


def wandb_mode() -> str:
    """WANDB_MODE, else online where an account is configured, else offline.

    Raises UserError when WANDB_MODE is not a mode.
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
    """The W&B run and its mode; an account that cannot be reached ends in an offline run."""
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
        say(f"W&B: {reason}\nThis run is logged offline (WANDB_MODE=offline spares the wait).")
        mode = "offline"
        run = wandb.init(mode=mode, **options)
    run.define_metric("*", step_metric="step")
    return run, mode
