"""Commands beside the batch: predict one study, compare experiments, make a review, export."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from batch.contents import DONE
from batch.experiment import find_experiment, read_experiment
from batch.notebook import NOTEBOOKS, ROOT, locked, run_notebook, shown
from pekit.common.errors import UserError, nearest, printable

LAST_HOP = "hop2"


def predict_study(
    dicom: str, model: str, out: str, masks: str = "", segmenter: str = "", series: str = ""
) -> None:
    """Run the notebook that predicts one study: a folder of DICOM files, or a NIfTI or NRRD file.

    `masks` is a folder of the study's own masks, `segmenter` a method in place of the experiment's,
    `series` the number of a series where there are several. The study is read and audited first: a
    refusal names the user's own files and leaves nothing behind. Neither the result's folder nor
    the executed notebook, failed or not, contains the study's path: clinical folders and files are
    often named after the patient.
    """
    study, given_masks = Path(dicom), Path(masks)
    _check_given(dicom, masks, series)
    experiment = _experiment_with_model(model)
    _check_study(study, series)
    code = hashlib.sha256(os.fsencode(study.resolve())).hexdigest()[:8]
    folder = Path(out).resolve() if out else ROOT / "runs" / "predict" / f"study-{code}"
    notebook = _notebook("predict_one_study")
    # The notebook records its parameters, so it gets the study by links with neutral names.
    # The ending stays: it gives the format of an image file.
    ending = _ending(study)
    links = {"DICOM": (folder / ("dicom" if study.is_dir() else f"study{ending}"), study)}
    if masks:
        links["MASKS"] = (folder / "masks", given_masks)
    paths = {"MODEL": experiment.resolve(), "RUN": folder}
    paths |= {key: link for key, (link, _) in links.items()}
    params = {key: os.path.relpath(path, NOTEBOOKS) for key, path in paths.items()}
    params |= {"SEGMENTER": segmenter, "SERIES": series}
    # One study of a clinic is no experiment: W&B gets it only if asked to.
    os.environ.setdefault("WANDB_MODE", "disabled")
    made = folder / notebook.name
    with _writable(out, folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".study.lock"
        lock.touch()
    # A second call would remove the link of the first. (run_notebook has a lock of its own.)
    with locked(lock, f"{shown(folder)} is being predicted by another call"):
        try:
            for link, target in links.values():
                link.unlink(missing_ok=True)
                # Not resolved: the data file of a .mhd lies beside the user's own path.
                link.symlink_to(os.path.abspath(target), target_is_directory=target.is_dir())
            run_notebook(notebook, made, params, name="predict", makes=folder / DONE)
        except UserError as error:
            _forget_messages(made.with_suffix(".failed.ipynb"))
            message = str(error)
            for key, (_, target) in links.items():
                message = message.replace(params[key], printable(target))
            raise UserError(message) from None
        finally:
            for link, _ in links.values():
                link.unlink(missing_ok=True)
    for page in sorted(folder.glob("*.html")):
        print(f"Page: {shown(page)}")


def _notebook(name: str) -> Path:
    """The notebook of that name, whatever its number."""
    found = sorted(NOTEBOOKS.glob(f"*_{name}.ipynb"))
    if len(found) != 1:
        raise UserError(f"{len(found)} notebooks are named *_{name}.ipynb; one must be")
    return found[0]


def _check_given(dicom: str, masks: str, series: str) -> None:
    """Refuse options that name nothing."""
    from data_prep.images import SUFFIXES, is_image  # 1 s, and only here

    study = Path(dicom)
    if not dicom:
        raise UserError("which study? Give its folder: make predict DICOM=<folder of DICOM files>")
    if not study.exists():
        raise UserError(f"DICOM={printable(study)}: no such folder or image file")
    if study.is_file() and not is_image(study):
        raise UserError(
            f"DICOM={printable(study)}: give the folder of the DICOM files, or one image file "
            f"({', '.join(SUFFIXES)})"
        )
    if masks and not Path(masks).is_dir():
        raise UserError(f"MASKS={masks}: no such folder")
    if series and not re.fullmatch(r"\d{1,4}(\.\d{1,4})?", series):  # no UID: it would be kept
        raise UserError(f"SERIES={series}: give a number of the list, such as SERIES=2")


def _check_study(study: Path, series: str) -> None:
    """Read and audit the study, before any network is loaded, and refuse it by its own path."""
    from data_prep.audit.rules import audit_alone

    audit, _ = audit_alone(study, series or None)
    if audit.status == "excluded":
        raise UserError(f"{printable(study)} cannot be used: {'; '.join(audit.reasons)}")


def _ending(study: Path) -> str:
    from data_prep.images import SUFFIXES

    return next((e for e in SUFFIXES if study.name.lower().endswith(e)), "")


@contextlib.contextmanager
def _writable(out: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"OUT={out or shown(folder)}: cannot be written to ({error.strerror}); choose another "
            "folder"
        ) from None


def _forget_messages(notebook: Path) -> None:
    """Cut the messages of errors out of a kept notebook: they may name files of the study."""
    if not notebook.exists():
        return
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                output |= {"evalue": "its message was shown, and is not kept", "traceback": []}
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def review(name: str, out: str, images: str) -> None:
    """Gather a finished experiment in one folder that opens from disk (pekit/review)."""
    from pekit.review.build import make_review

    if images not in ("yes", "no"):
        raise UserError(f"IMAGES={images}: it must be yes or no")
    experiment = read_experiment(find_experiment(name))
    stages = {stage.name: stage.notebook.name for stage in experiment.stages.values()}
    folder = experiment.folder
    target = Path(out) if out else folder / "review"
    if not folder.is_dir():
        raise UserError(f"{name} has not been run: `make experiment NAME={name}` does it")
    with locked(folder / ".lock", f"{name} is running: wait for its end"):
        made = make_review(folder, target, stages, images == "yes")
    print(f"Review: {shown(made.folder / 'index.html')} ({made.size_mb:.1f} MB)")
    print(f"Zip:    {shown(made.archive)} ({made.archive_mb:.1f} MB)")
    print(f"Hash:   {made.sha256} (of SHA256SUMS; tell it to the reader)")


def compare(names: str, stage: str, out: str) -> None:
    """Compare experiments by the notebook for it: the last hops of their runs of `stage`.

    `names` are two or more experiments, with blanks between them.
    """
    experiments = dict.fromkeys(find_experiment(name).stem for name in names.split())
    if len(experiments) < 2:
        raise UserError('which experiments? Name two or more: make compare NAMES="demo nocrop"')
    models = []
    for name in experiments:
        predictions = ROOT / "runs" / name / stage
        if not (predictions / "predictions.parquet").exists():
            made = sorted(p.parent.name for p in predictions.parent.glob("*/predictions.parquet"))
            made = f"STAGE may be {', '.join(made)}" if made else f"make experiment NAME={name}"
            raise UserError(f"{shown(predictions)} holds no predictions: {made}")
        models.append([name, os.path.relpath(predictions, NOTEBOOKS), ""])
    folder = Path(out).resolve() if out else ROOT / "runs" / "compare" / "_".join(experiments)
    notebook = _notebook("compare")
    params = {"MODELS": models, "RUN": os.path.relpath(folder, NOTEBOOKS)}
    run_notebook(notebook, folder / notebook.name, params, name="compare", makes=folder / DONE)


def export(model: str, out: str, formats: str, store: str) -> None:
    """Write a trained network for ONNX Runtime or OpenVINO, and print its difference to PyTorch.

    `model` names an experiment, of which hop 2 is written, or one of its networks. They are
    compared on stacks of the prepared studies in `store`, or on noise without one.
    """
    folder = _network(model)
    from pekit.checkpoint import load_hops  # torch: seconds, and only here
    from pekit.dataset.stacks import middle_stacks
    from pekit.dataset.store import Store
    from pekit.inference.export import FORMATS, export_model

    target = Path(out) if out else folder / "exported"
    chosen = (formats,) if formats else FORMATS
    stacks, source = None, "noise"
    if store:
        stacks = middle_stacks(Store(Path(store)), load_hops(folder)[1].image_size)
        source = f"{len(stacks)} stacks of {shown(Path(store))}"
    card = export_model(folder, target, chosen, stacks)
    for file, difference in card["max_difference"].items():
        print(f"{shown(target / file)}: at most {difference:.2e} off PyTorch, on {source}")


def _network(model: str) -> Path:
    """The network that MODEL names: that in a folder, else the last hop of an experiment."""
    if model and any((Path(model) / place / "model.json").exists() for place in ("", "model")):
        return Path(model)
    return _experiment_with_model(model) / LAST_HOP


def _experiment_with_model(model: str) -> Path:
    """The experiment that MODEL names by its name or folder; by default the demo, or the newest."""
    cards = (ROOT / "runs").glob(f"*/{LAST_HOP}/model/model.json")
    cards = sorted(cards, key=lambda card: card.stat().st_mtime, reverse=True)
    known = {card.parents[2].name: card.parents[2] for card in cards}
    if not model and known:
        folder = known.get("demo") or next(iter(known.values()))
        print(f"MODEL={folder.name}", flush=True)
        return folder
    if model in known:
        return known[model]
    if model and (Path(model) / LAST_HOP / "model" / "model.json").exists():
        return Path(model)
    near = nearest(Path(model).name, known) if known else "`make demo` makes runs/demo"
    raise UserError(f"MODEL={model}: no experiment with a trained hop 2; {near}")
