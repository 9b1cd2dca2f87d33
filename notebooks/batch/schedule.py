"""Run the stages of an experiment by Snakemake: those that are missing or out of date."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from batch.adopt import adopt
from batch.changed import changed_notebooks
from batch.checks import check_files, check_values
from batch.contents import DONE
from batch.experiment import Experiment, read_experiment
from batch.fingerprint import Fingerprint, fingerprints
from batch.notebook import NOTEBOOKS, locked, run_notebook, shown
from batch.record import NEW, begin, end, keep_edited, stages_to_run
from pekit.common.errors import UserError, nearest
from pekit.common.files import read_json, write_json
from pekit.common.processors import processors

PLAN = "plan.json"


def run_batch(path: Path, stages: list[str], snakemake_options: list[str], jobs: int = 1) -> None:
    """Run the stages of an experiment (or the named ones) that are missing or out of date.

    After a kill, the same call resumes. Up to `jobs` stages that do not need each other run at the
    same time and share the processors.

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
    check_files(experiment)
    folder, start = experiment.folder, time.monotonic()
    prints = fingerprints(experiment)
    # So that a first call that is refused leaves nothing behind.
    reasons = _wanted(experiment, stages_to_run(experiment, prints), stages)
    if reasons:
        check_values(experiment, reasons)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"{experiment.name} is running already") as lock:
        reasons = _wanted(experiment, stages_to_run(experiment, prints), stages)
        if taken := adopt(experiment, prints, reasons):
            for base, names in taken.items():
                print(f"{experiment.name}: taken over from {base}: {', '.join(names)}", flush=True)
            reasons = _wanted(experiment, stages_to_run(experiment, prints), stages)
        if reasons:
            _announce(experiment, reasons)
            _write_plan(experiment, prints, reasons, jobs)
            for name in reasons:  # before Snakemake removes what says that a stage is done
                keep_edited(folder / name)
            _run_snakemake(experiment, snakemake_options, lock)
    for stage in experiment.stages:
        for table in sorted((folder / stage).glob("table.txt")):
            print("\n" + table.read_text().rstrip() + "\n")
    for stage in experiment.stages:
        for page in sorted((folder / stage).glob("*.html")):
            print(f"{stage}: {shown(page)}")
    print(
        f"{experiment.name}: {_done(experiment)}; run now: {', '.join(reasons) or 'none'} "
        f"({time.monotonic() - start:.0f} s)"
    )


def run_stage(folder: Path, name: str) -> None:
    """Run one stage of the plan in an experiment's folder, and leave the record of it there.

    Raises:
        UserError: the stage fails.
    """
    stage = read_json(folder / PLAN)["stages"][name]
    (folder / name).mkdir(exist_ok=True)
    record = begin(folder, name, stage["after"], stage["fingerprint"])
    notebook, made = NOTEBOOKS / stage["notebook"], folder / name / DONE
    run_notebook(notebook, made.with_name(notebook.name), stage["params"], name=name, makes=made)
    end(folder / name, record)


def _wanted(experiment: Experiment, reasons: dict[str, str], stages: list[str]) -> dict[str, str]:
    """Those of the stages to run that are asked for, or that these need; all if none is named."""
    wanted = set(stages or experiment.stages)
    for name in reversed(experiment.stages):
        if name in wanted:
            wanted |= set(experiment.stages[name].after)
    return {name: why for name, why in reasons.items() if name in wanted}


def _announce(experiment: Experiment, reasons: Mapping[str, str]) -> None:
    """What will run and why, and which notebooks are not those of the commit."""
    if experiment.about:
        print(f"{experiment.name}: {experiment.about}", flush=True)
    notebooks = {stage.notebook for stage in experiment.stages.values()}
    for notebook, what in changed_notebooks(sorted(notebooks)).items():
        print(f"not as in the commit: {shown(notebook)}{what}", flush=True)
    again = {name: why for name, why in reasons.items() if why != NEW}
    if again:
        print(f"{experiment.name}: to run again, or for the first time:", flush=True)
        for name, why in reasons.items():
            print(f"  {name}: {why}", flush=True)


def _write_plan(
    experiment: Experiment,
    prints: Mapping[str, Fingerprint],
    reasons: Mapping[str, str],
    jobs: int,
) -> None:
    plan = {}
    for name in reasons:
        stage, fingerprint = experiment.stages[name], prints[name]
        plan[name] = {
            "notebook": stage.notebook.name,
            "params": stage.params,
            "after": stage.after,
            "share": stage.share,
            "fingerprint": {"fingerprint": fingerprint.digest, "parts": fingerprint.parts},
        }
    write_json(experiment.folder / PLAN, {"jobs": jobs, "stages": plan})


def _run_snakemake(experiment: Experiment, options: list[str], lock: int) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(experiment.folder)]
    # Our own lock ends with the process, so a killed run needs no unlocking by hand; and all that
    # is planned runs, whatever Snakemake remembers.
    command += ["--nolock", "--forceall", "--rerun-incomplete", "--drop-metadata"]
    command += ["--cores", str(processors()), *options]
    # What Snakemake and the kernels print goes to a file; stages report on stdout.
    # The child process holds the lock too, as long as it lives.
    with (experiment.folder / "snakemake.log").open("w") as log:
        process = subprocess.Popen(command, pass_fds=[lock], stderr=log)
        try:
            status = process.wait()
        except KeyboardInterrupt:  # Snakemake got it as well and cleans up
            process.wait()
            raise
    if status:
        if "CalledProcessError" not in (log_text := Path(log.name).read_text()):
            print(log_text, file=sys.stderr)  # a failed stage has printed its reason already
        raise UserError(
            f"{experiment.name}: stopped; {_done(experiment)}. Run the same command again to "
            f"continue. (Log: {shown(Path(log.name))})"
        )


def _done(experiment: Experiment) -> str:
    done = [name for name in experiment.stages if (experiment.folder / name / DONE).exists()]
    return f"{len(done)} of {len(experiment.stages)} stages are done"
