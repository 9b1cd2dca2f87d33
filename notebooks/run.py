"""Run notebooks strictly (one, a batch by experiment, or the one that reads one study), and hand
over what they made: a folder for review, an exported model.

    python notebooks/run.py batch notebooks/experiments/demo.yaml
    python notebooks/run.py notebook notebooks/21_train_hop1.ipynb --out try.ipynb \\
        --params '{"EPOCHS": 3}'
    python notebooks/run.py predict --dicom FOLDER --model runs/demo
    python notebooks/run.py review --name demo --images no
    python notebooks/run.py export --model runs/demo/hop2 --format onnx --out exported

An unknown or mistyped parameter is an error before anything runs. Kernels run in notebooks/, so
relative paths among the parameters start there. A failed notebook is kept as <name>.failed.ipynb.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.experiment import DONE, read_experiment
from batch.handover import export, review
from batch.notebook import NOTEBOOKS, ROOT, locked, run_notebook, shown
from pekit.common.errors import UserError, nearest


def run_batch(path: Path, stages: list[str], snakemake_options: list[str], jobs: int = 1) -> None:
    """Bring an experiment (or the named stages of it) up to date by Snakemake.

    Only what is missing or whose fingerprint has changed is run. After a kill the same call goes
    on. `jobs` stages that do not need each other run at a time and share the processors, which
    pays where one stage cannot use them all. Raises UserError for an experiment that is not valid,
    runs already, or fails.
    """
    if jobs < 1:
        raise UserError(f"JOBS={jobs}: at least one stage at a time")
    experiment = read_experiment(path)
    for stage in stages:
        if stage not in experiment.stages:
            near = nearest(stage, experiment.stages)
            raise UserError(f"{path.name}: no stage {stage!r}; {near}")
    folder = experiment.folder
    folder.mkdir(parents=True, exist_ok=True)
    start, before = time.monotonic(), _finished(folder, experiment.stages)
    with locked(folder / ".lock", f"{experiment.name} is running already") as lock:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
        command += ["--directory", str(folder)]
        command += ["--config", f"experiment={path.resolve()}", f"jobs={jobs}"]
        # Our lock ends with the process, so a killed run needs no unlocking by hand.
        command += ["--nolock", "--rerun-incomplete", "--rerun-triggers", "params", "mtime"]
        command += ["--cores", "all", *snakemake_options]
        command += ["--", *(f"{stage}/{DONE}" for stage in stages)]
        # Snakemake's own words and the kernels' go to a file; stages report by stdout.
        # The child holds the lock too, as long as it lives.
        with (folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(command, pass_fds=[lock], stderr=log)
            try:
                status = process.wait()
            except KeyboardInterrupt:  # Snakemake got it as well and puts its things in order
                process.wait()
                raise
    now = _finished(folder, experiment.stages)
    ran = [stage for stage in now if now[stage] != before.get(stage)]
    if status:
        if "CalledProcessError" not in (log_text := Path(log.name).read_text()):
            print(log_text, file=sys.stderr)  # not a stage that failed, which has told why
        raise UserError(
            f"{experiment.name}: stopped; {len(now)} of {len(experiment.stages)} stages are done. "
            f"The same command goes on from there. (Log: {shown(Path(log.name))})"
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
    """When each finished stage was finished."""
    files = {stage: folder / stage / DONE for stage in stages}
    return {stage: file.stat().st_mtime_ns for stage, file in files.items() if file.exists()}


def predict_study(dicom: str, model: str, out: str) -> None:
    """Run the notebook that reads one study on a folder of DICOM files, or a NIfTI or NRRD file.

    Neither the result's folder nor the executed notebook carries the study's name: clinical
    folders are often named after the patient.
    """
    from data_prep.images import SUFFIXES, is_image  # 1 s, and only here

    if not dicom:
        raise UserError("which study? Give its folder: make predict DICOM=<folder of DICOM files>")
    if not Path(dicom).exists():
        raise UserError(f"DICOM={dicom}: no such folder or image file")
    if Path(dicom).is_file() and not is_image(Path(dicom)):
        raise UserError(
            f"DICOM={dicom}: give the folder of the DICOM files, or one image file "
            f"({', '.join(SUFFIXES)})"
        )
    if not Path(model).is_dir():
        raise UserError(
            f"MODEL={model}: no such folder; `make demo` trains runs/demo, or name another run's"
        )
    code = hashlib.sha256(str(Path(dicom).resolve()).encode()).hexdigest()[:8]
    folder = Path(out).resolve() if out else ROOT / "runs" / "predict" / f"study-{code}"
    found = sorted(NOTEBOOKS.glob("*_predict_one_study.ipynb"))
    if len(found) != 1:
        raise UserError(f"{len(found)} notebooks are named *_predict_one_study.ipynb; one must be")
    folder.mkdir(parents=True, exist_ok=True)
    # The notebook records its parameters: it gets the study by a link that says nothing.
    # Its ending stays, for it says the format of an image file.
    ending = next((e for e in SUFFIXES if dicom.lower().endswith(e)), "")
    link = folder / ("dicom" if Path(dicom).is_dir() else f"study{ending}")
    paths = {"DICOM": link, "MODEL": Path(model).resolve(), "RUN": folder}
    params = {key: os.path.relpath(path, NOTEBOOKS) for key, path in paths.items()}
    # A second call would take the link from under the first. (run_notebook has a lock of its own.)
    with locked(folder / ".study.lock", f"{shown(folder)} is being predicted by another call"):
        link.unlink(missing_ok=True)
        link.symlink_to(Path(dicom).resolve(), target_is_directory=Path(dicom).is_dir())
        try:
            made = folder / found[0].name
            run_notebook(found[0], made, params, name="predict", makes=folder / DONE)
        finally:
            link.unlink()
    for page in sorted(folder.glob("*.html")):
        print(f"Page: {shown(page)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("notebook", help="execute one notebook")
    one.add_argument("notebook", type=Path)
    one.add_argument("--out", type=Path, required=True, help="where the executed notebook goes")
    one.add_argument("--params", default="{}", help="values of parameters, as JSON")
    one.add_argument("--name", default="", help="what to call it in the lines printed")
    one.add_argument("--makes", type=Path, help="a file that the notebook must write")
    batch = commands.add_parser("batch", help="bring an experiment up to date")
    batch.add_argument("experiment", type=Path, help="a YAML file of notebooks/experiments/")
    batch.add_argument("stages", nargs="*", help="only these stages and what they need")
    batch.add_argument("--jobs", type=int, default=1, help="how many stages may run at a time")
    batch.add_argument("--snakemake", default="", help="more options for Snakemake, in one string")
    study = commands.add_parser("predict", help="read one study")
    study.add_argument("--dicom", default="", help="folder of DICOM files, or a NIfTI or NRRD file")
    study.add_argument("--model", default="runs/demo", help="folder of a finished experiment")
    study.add_argument("--out", default="", help="folder for the result")
    bundle = commands.add_parser("review", help="one folder that shows a finished experiment")
    bundle.add_argument("--name", default="demo", help="the experiment")
    bundle.add_argument("--out", default="", help="folder; without it runs/<name>/review")
    bundle.add_argument("--images", default="yes", help="no leaves images of patients out")
    other = commands.add_parser("export", help="write a model for ONNX Runtime or OpenVINO")
    other.add_argument("--model", default="runs/demo/hop2", help="folder of a trained hop")
    other.add_argument("--format", default="", help="onnx or openvino; empty: both")
    other.add_argument("--out", default="", help="folder for the files; empty: exported/ beside it")
    other.add_argument("--store", default="", help="prepared studies to compare on; empty: noise")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "notebook":
            try:
                params = json.loads(options.params)
            except json.JSONDecodeError as error:
                raise UserError(f"--params is not valid JSON: {error}") from None
            if not isinstance(params, dict):
                raise UserError('--params must be a JSON object, such as {"EPOCHS": 3}')
            makes = options.makes
            run_notebook(options.notebook, options.out, params, name=options.name, makes=makes)
        elif options.command == "batch":
            options_of = shlex.split(options.snakemake)
            run_batch(options.experiment, options.stages, options_of, options.jobs)
        elif options.command == "review":
            review(options.name, options.out, options.images)
        elif options.command == "export":
            export(options.model, options.out, options.format, options.store)
        else:
            predict_study(options.dicom, options.model, options.out)
    except UserError as error:
        # A stage's failure is its report, and under Snakemake stderr goes to a file.
        print(error, file=sys.stdout if options.command == "notebook" else sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
