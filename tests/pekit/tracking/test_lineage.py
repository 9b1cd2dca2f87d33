"""Parts of different origin are not mixed without a word."""

import pytest

from pekit.common.errors import UserError
from pekit.tracking.run import Run


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """prepare -> hop2 -> predict -> evaluate, each a few bytes, as the notebooks record them."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    files = {
        "split": tmp_path / "lab" / "prepare" / "split.csv",
        "studies": tmp_path / "lab" / "prepare" / "store" / "studies.parquet",
        "model": tmp_path / "lab" / "hop2" / "model" / "model.safetensors",
        "predictions": tmp_path / "lab" / "predict" / "predictions.parquet",
        "thresholds": tmp_path / "lab" / "evaluate" / "thresholds.json",
    }
    for name in files:
        make(files, name)
    return files


READS = {
    "split": [],
    "studies": [],
    "model": ["split", "studies"],
    "predictions": ["split", "studies", "model"],
    "thresholds": ["split", "predictions"],
}


def make(files, name, content="first"):
    """Run the stage that makes a file, with what it reads as it is now."""
    stage = next(p for p in files[name].parents if p.parent.name == "lab")
    files[name].parent.mkdir(parents=True, exist_ok=True)
    run = Run(stage, {}, inputs={read: files[read] for read in READS[name]})
    files[name].write_text(f"{name} {content}")
    run.finish({})


def report(files, *names):
    Run(files["split"].parents[1] / "report", {}, inputs={name: files[name] for name in names})


def test_parts_that_belong_together_are_read(experiment):
    report(experiment, *experiment)


@pytest.mark.parametrize(
    ("changed", "read", "message"),
    [
        ("split", ("split", "predictions"), "predict was made from another split than lab/prepare"),
        ("studies", ("studies", "model"), "hop2 was made from another store of prepared"),
        (
            "model",
            ("model", "predictions"),
            "predict was made from another model than lab/hop2",
        ),
        (
            "predictions",
            ("predictions", "thresholds"),
            "evaluate was made from another table of",
        ),
    ],
)
def test_what_was_made_from_something_else_is_refused(experiment, changed, read, message):
    make(experiment, changed, "second")
    with pytest.raises(UserError, match=message):
        report(experiment, *read)
    # Made again in the order of the chain, all is well.
    for name in list(READS)[list(READS).index(changed) + 1 :]:
        make(experiment, name, "second")
    report(experiment, *read)


def test_the_notebook_to_run_again_is_named(experiment):
    (experiment["predictions"].parent / "30_predict.ipynb").write_text("{}")
    make(experiment, "model", "second")
    with pytest.raises(UserError, match=r"run 30_predict\.ipynb again"):
        report(experiment, "model", "predictions")


def test_nothing_is_written_before_the_refusal(experiment):
    make(experiment, "model", "second")
    with pytest.raises(UserError):
        report(experiment, "model", "predictions")
    assert not (experiment["split"].parents[1] / "report").exists()
