"""Command line of the kit: run notebooks (one, an experiment, or the one that predicts a study),
compare experiments, make a folder for review, export a model, open JupyterLab.

    python notebooks/run.py batch demo
    python notebooks/run.py notebook notebooks/21_train_hop1.ipynb --out try.ipynb \\
        --params '{"EPOCHS": 3}'
    python notebooks/run.py predict --dicom FOLDER --model demo
    python notebooks/run.py compare --names "demo nocrop"
    python notebooks/run.py review --name demo --images no
    python notebooks/run.py lab
    python notebooks/run.py export --model demo --format onnx --out exported

An unknown parameter, or a value of another type, is an error before anything runs. Kernels run in
notebooks/, so relative paths in parameters start there. A failed notebook is kept as
<name>.failed.ipynb.
"""

import sys

try:
    import fcntl  # noqa: F401
except ImportError:
    sys.exit("pekit runs on Linux and macOS; on Windows, run it in WSL")

import argparse
import json
import shlex
import traceback
from pathlib import Path

from batch.commands import compare, export, predict_study, review
from batch.experiment import find_experiment
from batch.notebook import run_notebook, shown
from batch.schedule import run_batch, run_stage
from pekit.common.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("notebook", help="execute one notebook")
    one.add_argument("notebook", type=Path)
    one.add_argument("--out", type=Path, required=True, help="where the executed notebook goes")
    one.add_argument("--params", default="{}", help="values of parameters, as JSON")
    batch = commands.add_parser("batch", help="run what an experiment lacks")
    batch.add_argument("experiment", help="its name, or its YAML file")
    batch.add_argument("stages", nargs="*", help="only these stages, and those that they need")
    batch.add_argument("--jobs", type=int, default=1, help="stages that may run at the same time")
    batch.add_argument("--snakemake", default="", help="further Snakemake options, as one string")
    stage = commands.add_parser("stage", help="what Snakemake calls: one stage of plan.json here")
    stage.add_argument("stage")
    study = commands.add_parser("predict", help="predict one study")
    study.add_argument("--dicom", default="", help="folder of DICOM files, or a NIfTI or NRRD file")
    study.add_argument("--model", default="", help="an experiment, by name or folder")
    study.add_argument("--out", default="", help="folder for the result")
    study.add_argument("--masks", default="", help="folder of the study's own lung and heart masks")
    study.add_argument("--series", default="", help="its number, if there are several")
    study.add_argument("--segmenter", default="", help="a method in place of the experiment's")
    several = commands.add_parser("compare", help="experiments on the studies that all judged")
    several.add_argument("--names", default="", help="two or more experiments, in one text")
    several.add_argument("--stage", default="predict", help="that made their predictions")
    several.add_argument("--out", default="", help="folder for the result")
    bundle = commands.add_parser("review", help="one folder that shows a finished experiment")
    bundle.add_argument("--name", default="demo", help="the experiment")
    bundle.add_argument("--out", default="", help="folder; without it runs/<name>/review")
    bundle.add_argument("--images", default="yes", help="no: without images of patients")
    hand = commands.add_parser("lab", help="JupyterLab on copies of the notebooks")
    hand.add_argument("--fresh", default="no", help="yes: the project's notebooks anew")
    hand.add_argument("--options", default="", help="options of JupyterLab, as one string")
    other = commands.add_parser("export", help="write a model for ONNX Runtime or OpenVINO")
    other.add_argument("--model", default="", help="an experiment, or the folder of a network")
    other.add_argument("--format", default="", help="onnx or openvino; empty: both")
    other.add_argument("--out", default="", help="folder for the files; empty: exported/ beside it")
    other.add_argument("--store", default="", help="prepared studies to compare on; empty: noise")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    shown(Path())  # notes where we stand, for messages of processes that run elsewhere
    # Under Snakemake stderr goes to a file; why a stage failed must be seen.
    told = sys.stdout if options.command in ("notebook", "stage") else sys.stderr
    try:
        if options.command == "notebook":
            try:
                params = json.loads(options.params)
            except json.JSONDecodeError as error:
                raise UserError(f"--params is not valid JSON: {error}") from None
            if not isinstance(params, dict):
                raise UserError('--params must be a JSON object, such as {"EPOCHS": 3}')
            run_notebook(options.notebook, options.out, params)
        elif options.command == "stage":
            run_stage(Path.cwd(), options.stage)
        elif options.command == "batch":
            options_of = shlex.split(options.snakemake)
            path = find_experiment(options.experiment)
            run_batch(path, options.stages, options_of, options.jobs)
        elif options.command == "review":
            review(options.name, options.out, options.images)
        elif options.command == "lab":
            from batch.lab import lab  # Jupyter's server: a second, and only here

            if options.fresh not in ("yes", "no"):
                raise UserError(f"FRESH={options.fresh}: it must be yes or no")
            lab(options.fresh == "yes", shlex.split(options.options))
        elif options.command == "compare":
            compare(options.names, options.stage, options.out)
        elif options.command == "export":
            export(options.model, options.out, options.format, options.store)
        else:
            given = options.masks, options.segmenter, options.series
            predict_study(options.dicom, options.model, options.out, *given)
    except UserError as error:
        print(error, file=told, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same call goes on from here", file=sys.stderr)
        return 130
    except Exception:  # a fault of ours: the whole trace, where it is seen
        traceback.print_exc(file=told)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
