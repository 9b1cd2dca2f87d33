"""A small finished experiment of six stages: real evaluation, no training."""

import base64
import hashlib
import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from toy_cohort import cohort

from pekit.common.files import write_table
from pekit.dataset.schema import public_uid
from pekit.evaluation.ablation import AblationSettings, ablation
from pekit.evaluation.ablation import write_inputs as write_inputs_of_ablation
from pekit.evaluation.evaluate import EvaluationSettings, evaluate, write_inputs
from pekit.figures.base import KitFigure
from pekit.reports.page import Picture, Section, write_page
from pekit.reports.viewer.study import StudyView, slice_viewer
from pekit.tracking.run import Run

STAGES = {
    "prepare": "12_prepare.ipynb",
    "hop1": "21_train_hop1.ipynb",
    "predict": "30_predict.ipynb",
    "control": "30_predict.ipynb",
    "evaluate": "31_evaluate.ipynb",
    "tables": "32_ablation_tables.ipynb",
}
# The slice of a patient: no other picture has its pixels.
SLICE = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def toy_experiment(root: Path) -> Path:
    """Write the folders of all stages; needs WANDB_MODE=disabled in the environment."""
    folder = root / "runs" / "toy"
    data = cohort()
    tables = [data.split, data.studies, data.slices, data.predictions, data.control]
    for table in tables:
        for column in table.columns.intersection(["StudyInstanceUID", "SOPInstanceUID"]):
            table[column] = table[column].map(public_uid)
    split = _prepare(folder / "prepare", data.split)
    _train(folder / "hop1", split)
    for stage, table in (("predict", data.predictions), ("control", data.control)):
        with Run(folder / stage, {}, inputs={"split": split}) as run:
            write_table(folder / stage / "predictions.parquet", table)
            run.finish({"studies": table["StudyInstanceUID"].nunique()})
    _evaluate(folder, data, split)
    _tables(folder, split)
    for stage, name in STAGES.items():
        nbformat.write(_executed(stage), folder / stage / name)
    return folder


def _prepare(folder: Path, split: pd.DataFrame) -> str:
    with Run(folder, {"data": "/data/smith/rsna"}, seed=0) as run:
        split.to_csv(folder / "split.csv", index=False)
        digest = hashlib.sha256((folder / "split.csv").read_bytes()).hexdigest()
        (folder / "split.csv.sha256").write_text(f"{digest}  split.csv\n")
        figure = KitFigure()
        figure.subplots().imshow(SLICE, cmap="gray")
        run.figure("hull", figure)
        run.finish({"studies": len(split)})
    return digest


def _train(folder: Path, split: str) -> None:
    with Run(folder, {"lr": 0.1}, seed=1, inputs={"split": split}) as run:
        run.log({"loss": 0.5}, step=1)
        figure = KitFigure(patient=False)
        figure.subplots().plot([3, 2, 1])
        run.figure("loss", figure)
        run.finish({"train_loss": 0.25})


def _evaluate(folder: Path, data, split: str) -> None:
    settings = EvaluationSettings(n_boot=20)
    given = data.long("validation", "test")
    inputs = {"split": split}
    inputs |= {s: folder / s / "predictions.parquet" for s in ("predict", "control")}
    out = folder / "evaluate"
    with Run(out, settings.model_dump(), inputs=inputs) as run:
        found = evaluate(given, data.studies, settings)
        write_inputs(out, given, data.studies, settings)
        for name, table in found.tables.items():
            run.table(name, table)
        found.tables["summary"].to_csv(out / "table.csv", index=False)
        (out / "table.txt").write_text("toy: 30 test studies, 15 with PE\n\n...\n")
        figure = KitFigure()
        figure.subplots().imshow(SLICE, cmap="gray")
        sections = [Section("Errors", [Picture(figure, "a slice")])]
        write_page(out / "report.html", "toy", sections=sections)
        run.finish({"hop 2 F1": 0.9})


def _tables(folder: Path, split: str) -> None:
    inputs = {s: folder / s / "predictions.parquet" for s in ("predict", "control")}
    given = pd.concat(
        [
            pd.read_parquet(path).query("part != 'train'").assign(stage=stage, level="", seed=0)
            for stage, path in inputs.items()
        ],
        ignore_index=True,
    )
    rows = {"hop 1": "predict/hop1", "longer": "control/hop1", "hop 2": "predict/hop2"}
    settings = AblationSettings(tables={"III": rows}, n_boot=20)
    out, inputs = folder / "tables", {"split": split, **inputs}
    with Run(out, settings.model_dump(), inputs=inputs) as run:
        write_inputs_of_ablation(out, given, settings)
        for name, table in ablation(given, settings).items():
            run.table(name, table)
        run.finish({"hop 2 F1": 0.9})


def _executed(stage: str) -> nbformat.NotebookNode:
    """A notebook with every kind of output that could carry a picture or a path."""
    code = base64.b64encode(png(SLICE)).decode()
    picture = {"image/png": code, "text/plain": "<Figure size 320x320>"}
    tables = pd.DataFrame({"part": ["train"], "studies": [4]}).to_html()
    embedded = f'<table><tr><td><img src="data:image/png;base64,{code}"></td></tr></table>'
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}
    noise = np.random.default_rng(1).integers(-100, 400, (3, 32, 32), dtype=np.int16)
    view = StudyView("toy", noise, (2, 1, 1), {"hop1": [0, 1, 0]})
    viewer = {"text/html": slice_viewer(view)._repr_html_(), "text/plain": "Viewer(...)"}
    outputs = [
        new_output("stream", name="stderr", text="/home/smith/kit/a.py:5: UserWarning: odd\n"),
        new_output("display_data", data=picture),
        new_output("display_data", data={"text/html": embedded}),
        new_output("display_data", data=widget),
        new_output("execute_result", data=viewer),
        new_output("execute_result", data={"text/html": tables, "text/plain": "part studies"}),
    ]
    markdown = new_markdown_cell("What it is: ![slice](attachment:slice.png)")
    markdown["attachments"] = {"slice.png": {"image/png": code}}
    cells = [
        new_markdown_cell(f"# {stage}"),
        markdown,
        new_code_cell('DATA = "/mnt/smith/rsna"\nRUN = "../runs/toy"', execution_count=1),
        new_code_cell("figure", outputs=outputs, execution_count=2),
    ]
    return new_notebook(cells=cells)
