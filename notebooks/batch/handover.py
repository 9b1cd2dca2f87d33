"""What leaves the kit: a finished experiment for review, a trained model for other runtimes."""

from pathlib import Path

from batch.experiment import read_experiment
from batch.notebook import NOTEBOOKS, locked, shown
from pekit.common.errors import UserError, nearest


def review(name: str, out: str, images: str) -> None:
    """Gather a finished experiment in one folder that opens from disk (pekit.review)."""
    from pekit.review.build import make_review

    if images not in ("yes", "no"):
        raise UserError(f"IMAGES={images}: it must be yes or no")
    known = {path.stem: path for path in sorted((NOTEBOOKS / "experiments").glob("*.yaml"))}
    if name not in known:
        raise UserError(f"no experiment {name!r}; {nearest(name, known)}")
    experiment = read_experiment(known[name])
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


def export(model: str, out: str, formats: str, store: str) -> None:
    """Write a trained model for ONNX Runtime or OpenVINO, and say how far it is from PyTorch.

    Compared on stacks of a store of prepared studies, where one is given, else on noise.
    """
    from pekit.checkpoint import load_hops  # torch: seconds, and only here
    from pekit.dataset.stacks import middle_stacks
    from pekit.dataset.store import Store
    from pekit.inference.export import FORMATS, export_model

    folder = Path(model)
    if not any((folder / place / "model.json").exists() for place in ("", "model")):
        found = [str(card.parents[1]) for card in sorted(folder.glob("*/model/model.json"))]
        near = f"there are {', '.join(found)}" if found else "give the folder of a trained hop"
        raise UserError(f"MODEL={model}: no model there; {near}")
    target = Path(out) if out else folder / "exported"
    chosen = (formats,) if formats else FORMATS
    stacks, source = None, "noise"
    if store:
        stacks = middle_stacks(Store(Path(store)), load_hops(folder)[1].image_size)
        source = f"{len(stacks)} stacks of {shown(Path(store))}"
    card = export_model(folder, target, chosen, stacks)
    for file, difference in card["max_difference"].items():
        print(f"{shown(target / file)}: {difference:.2e} off PyTorch at most, on {source}")
