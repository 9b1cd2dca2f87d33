"""Run the stages of an experiment by Snakemake: those that are missing or out of date."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.experiment import DONE, read_experiment
from batch.notebook import NOTEBOOKS, locked, shown
from pekit.common.errors import UserError, nearest


def run_batch(path: Path, stages: list[str], snakemake_options: list[str], jobs: int = 1) -> None:
    """Run the stages of an experiment (or the named ones) that are missing or out of date.

    A stage is out of date when its fingerprint has changed. After a kill, the same call resumes.
    Up to `jobs` stages that do not need each other run at the same time and share the processors.

    Raises:
        UserError: an experiment that is not valid, runs already, or fails.
    """
    if jobs < 1:
        raise UserError(f"JOBS={jobs}: it must be 1 or more")
    experiment = read_experiment(path)
    for stage in stages:
        if stage not in experiment.stages:
            near = nearest(stage, experiment.stages)
            raise UserError(f"{path.name}: no stage {stage!r}; {near}")
    folder = experiment.folder
    folder.mkdir(parents=True, exist_ok=True)
    start, before = time.monotonic(), _finished(folder, experiment.stages)
    if experiment.about and len(before) < len(experiment.stages):
        print(f"{experiment.name}: {experiment.about}", flush=True)
    with locked(folder / ".lock", f"{experiment.name} is running already") as lock:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
        command += ["--directory", str(folder)]
        command += ["--config", f"experiment={path.resolve()}", f"jobs={jobs}"]
        # Our own lock ends with the process, so a killed run needs no unlocking by hand.
        command += ["--nolock", "--rerun-incomplete", "--rerun-triggers", "params", "mtime"]
        command += ["--cores", "all", *snakemake_options]
        command += ["--", *(f"{stage}/{DONE}" for stage in stages)]
        # What Snakemake and the kernels print goes to a file; stages report on stdout.
        # The child process holds the lock too, as long as it lives.
        with (folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(command, pass_fds=[lock], stderr=log)
            try:
                status = process.wait()
            except KeyboardInterrupt:  # Snakemake got it as well and cleans up
                process.wait()
                raise
    now = _finished(folder, experiment.stages)
    ran = [stage for stage in now if now[stage] != before.get(stage)]
    if status:
        if "CalledProcessError" not in (log_text := Path(log.name).read_text()):
            print(log_text, file=sys.stderr)  # a failed stage has printed its reason already
        raise UserError(
            f"{experiment.name}: stopped; {len(now)} of {len(experiment.stages)} stages are done. "
            f"Run the same command again to continue. (Log: {shown(Path(log.name))})"
        )
    for stage in experiment.stages:
        for table in sorted((folder / stage).glob("table.txt")):
            print("\n" + table.read_text().rstrip() + "\n")
    for stage in experiment.stages:
        for page in sorted((folder / stage).glob("*.html")):
            print(f"{stage}: {shown(page)}")
    print(
        f"{experiment.name}: {len(now)} of {len(experiment.stages)} stages are done; run now: "
        f"{', '.join(ran) or 'none'} ({time.monotonic() - start:.0f} s)"
    )


def _finished(folder: Path, stages: Mapping[str, Any]) -> dict[str, int]:
    """Time at which each finished stage was finished, ns."""
    files = {stage: folder / stage / DONE for stage in stages}
    return {stage: file.stat().st_mtime_ns for stage, file in files.items() if file.exists()}
