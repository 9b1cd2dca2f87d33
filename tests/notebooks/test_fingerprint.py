"""What makes the demo's stages run again: each kind of change, on a copy of the project."""

import json
import shutil
from pathlib import Path

import pytest

from batch.experiment import read_experiment
from batch.fingerprint import fingerprints as fingerprints_of

ROOT = Path(__file__).resolve().parents[2]
SHOWS = {"report", "viewer", "predict_study"}  # stages whose product is a page
PREPARES = {"cohort", "audit", "prepare"}
FOLDERS = ("pekit", "data_prep", "submissions", "notebooks")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project's files in a folder of their own."""
    root = tmp_path_factory.mktemp("project")
    for folder in FOLDERS:
        left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / folder, root / folder, ignore=left_out)
    return root


@pytest.fixture(scope="module")
def fingerprints(copy):
    """Fingerprints of the demo's stages as the files of the copy are now."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("experiment", "notebook"):
            patch.setattr(f"batch.{module}.ROOT", copy)
            patch.setattr(f"batch.{module}.NOTEBOOKS", copy / "notebooks")

        def digests():
            experiment = read_experiment(copy / "notebooks" / "experiments" / "demo.yaml")
            return {name: made.digest for name, made in fingerprints_of(experiment).items()}

        yield digests


@pytest.fixture(scope="module")
def before(fingerprints):
    return fingerprints()


@pytest.fixture
def changed(copy, fingerprints, before):
    """Stages of the demo whose fingerprint a change alters; the change is undone afterwards."""
    originals = {}

    def change(path: str, text: str) -> set[str]:
        file = copy / path
        originals.setdefault(file, file.read_text(encoding="utf-8"))
        file.write_text(originals[file] + text, encoding="utf-8")
        after = fingerprints()
        return {name for name in after if after[name] != before[name]}

    yield change
    for file, text in originals.items():
        file.write_text(text, encoding="utf-8")


def test_a_comment_anywhere_reruns_nothing(copy, changed):
    files = [file for folder in FOLDERS for file in sorted((copy / folder).rglob("*.py"))]
    assert len(files) > 100
    for file in files[:-1]:
        file.write_text(file.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    assert changed(files[-1].relative_to(copy).as_posix(), "\n# a comment\n") == set()


def test_text_and_comments_of_a_notebook_rerun_nothing(copy, changed):
    path = copy / "notebooks" / "21_train_hop1.ipynb"
    whole = path.read_text(encoding="utf-8")
    notebook = json.loads(whole)
    for cell in notebook["cells"]:
        comment = "\n# more" if cell["cell_type"] == "code" else "\nMore text."
        cell["source"] = "".join(cell["source"]) + comment
    path.write_text(json.dumps(notebook), encoding="utf-8")
    try:
        assert changed("notebooks/Snakefile", "\n") == set()
    finally:
        path.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "pekit/reports/viewer/viewer.css",
        "pekit/reports/viewer/viewer.js",
        "pekit/reports/viewer/encode.py",
        "pekit/reports/page.py",
        "pekit/common/html/style.css",
        "pekit/figures/base.py",
        "pekit/figures/curves.py",
    ],
)
def test_how_results_are_shown_reruns_pages_alone(changed, path):
    more = "\nMORE = 1\n" if path.endswith(".py") else "\n/* more */\n"
    stages = changed(path, more)
    assert stages
    assert stages <= SHOWS


@pytest.mark.parametrize("path", ["pekit/tracking/run.py", "pekit/review/build.py"])
def test_records_and_review_rerun_nothing(changed, path):
    assert changed(path, "\nMORE = 1\n") == set()


def test_the_hops_rerun_trainings_and_what_follows(changed):
    stages = changed("pekit/hop.py", "\nMORE = 1\n")
    assert {"hop1", "hop2", "hop1_control", "predict", "evaluate", "report"} <= stages
    assert not stages & PREPARES


def test_preparing_reruns_all_that_needs_it(changed):
    stages = changed("data_prep/prepare/study.py", "\nMORE = 1\n")
    assert {"prepare", "pretrain", "hop1", "hop2", "predict", "evaluate"} <= stages
    assert not stages & {"cohort", "audit"}
