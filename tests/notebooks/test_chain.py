"""All notebooks in a row at smoke size, as `make smoke` runs them; then one real study.

One run serves all tests of this file: they read what it left in runs/chain.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import browser, faults

from batch.experiment import read_experiment
from data_prep.phantom import crop_truth
from pekit.checkpoint import load_hops
from pekit.dataset.schema import UIDS
from pekit.dataset.store import Store
from pekit.evaluation.evaluate import evaluate, read_inputs
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.evaluation.thresholds import read_thresholds
from pekit.review.build import make_review
from pekit.review.verify import verify
from pekit.voting import study_verdicts
from submissions.metric import EXAM_WEIGHTS

ROOT = Path(__file__).parents[2]
# One thread a stage, and side by side those that do not wait for each other: at this size a second
# thread gains nothing, and where other tests share the cores it waits for them, spinning.
BATCH = ("batch", ROOT / "tests" / "notebooks" / "chain.yaml", "--snakemake=--max-threads 1")
RUNS = ROOT / "runs" / "chain"
STAGES = {
    "cohort", "audit", "prepare", "heads", "pretrain", "hop1", "hop1_control", "hop2", "predict",
    "predict_control", "evaluate", "report", "predict_study", "submission", "viewer", "tables",
}  # fmt: skip


def run(*arguments):
    command = [sys.executable, str(ROOT / "notebooks" / "run.py"), *map(str, arguments)]
    # Not the W&B service of this process, and no account.
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env["WANDB_MODE"] = "offline"
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def chain():
    shutil.rmtree(RUNS, ignore_errors=True)
    done = run(*BATCH)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def predictions(chain):
    return pd.read_parquet(RUNS / "predict" / "predictions.parquet")


def test_every_stage_leaves_its_record(chain):
    assert {f.parent.name for f in RUNS.glob("*/metrics.json")} == STAGES
    split = json.loads((RUNS / "prepare" / "metrics.json").read_text())["split_sha256"]
    for stage in STAGES:
        manifest = json.loads((RUNS / stage / "manifest.json").read_text())
        assert manifest["status"] == "finished"
        assert len(list((RUNS / stage / "wandb").glob("offline-run-*/*.wandb"))) == 1
        notebooks = list((RUNS / stage).glob("*.ipynb"))
        assert len(notebooks) == 1
        cells = nbformat.read(notebooks[0], as_version=4).cells
        assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
        if stage not in ("cohort", "audit", "prepare"):
            assert manifest["inputs"]["split"].removeprefix("sha256:") == split


def test_it_ends_with_a_table_and_the_report(chain):
    assert re.search(r"hop 2 +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", chain)
    assert "hop 1, trained as long" in chain
    assert "runs/chain/report/report.html" in chain


@pytest.fixture(scope="module")
def bundle(chain, tmp_path_factory):
    stages = read_experiment(ROOT / "tests" / "notebooks" / "chain.yaml").stages
    notebooks = {name: stage.notebook.name for name, stage in stages.items()}
    return make_review(RUNS, tmp_path_factory.mktemp("handed") / "review", notebooks).folder


def test_the_chain_can_be_handed_over_and_verified(bundle):
    checks = verify(bundle)
    assert [check.name for check in checks if check.equal is False] == []
    tables = [check.name for check in checks if check.equal and check.name.endswith(".csv")]
    recomputed = {name.split("/")[1] for name in tables if "/tables/" in name}
    assert recomputed == {"evaluate", "tables"}


def test_every_page_that_is_handed_over_shows_its_pictures(bundle):
    pages = sorted(bundle.rglob("*.html"))
    assert {"index.html", "notebook.html", "report.html", "study.html", "viewer.html"} == {
        page.name for page in pages
    }
    with browser(1200) as (tab, asked):
        assert [fault for page in pages for fault in faults(tab, page)] == []
        viewers = 0
        for stage in ("viewer", "predict_study"):
            tab.goto((bundle / "stages" / stage / "notebook.html").as_uri())
            viewers += tab.locator("iframe").count()
        assert viewers == 2, "the check looks into them"
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_study_heads_give_the_nine_exam_labels(chain):
    exams = pd.read_parquet(RUNS / "heads" / "exam_predictions.parquet")
    assert exams.columns.tolist()[0] == "StudyInstanceUID"
    assert set(exams.columns[1:]) == set(EXAM_WEIGHTS)
    assert exams.iloc[:, 1:].to_numpy().min() >= 0
    assert exams.iloc[:, 1:].to_numpy().max() <= 1
    assert exams["StudyInstanceUID"].is_unique


def test_a_second_call_runs_nothing(chain):
    again = run(*BATCH)
    assert again.returncode == 0
    assert "run now: none" in again.stdout


def test_both_hops_predict_every_slice(predictions):
    store = Store(RUNS / "prepare" / "store")
    assert {"hop1", "hop2"} <= set(predictions)
    assert predictions[["hop1", "hop2"]].stack().between(0, 1).all()
    slices = store.slices.set_index("SOPInstanceUID")
    assert predictions["SOPInstanceUID"].isin(slices.index).all()
    parts = predictions.groupby("part")["StudyInstanceUID"].nunique()
    assert parts[["validation", "test"]].tolist() == [8, 10]


def test_one_study_is_predicted_as_in_the_batch(predictions):
    """At the same prevalence too, for the thresholds were chosen on such probabilities."""
    alone = pd.read_csv(RUNS / "predict_study" / "slices.csv")
    batch = predictions[predictions["StudyInstanceUID"] == alone["StudyInstanceUID"].iloc[0]]
    batch = batch.sort_values("z")
    np.testing.assert_allclose(alone[["hop1", "hop2"]], batch[["hop1", "hop2"]], atol=1e-6)
    _, card = load_hops(RUNS / "hop2")
    metrics = [json.loads((RUNS / hop / "metrics.json").read_text()) for hop in ("hop1", "hop2")]
    expected = [(m["prevalence"], m["natural_prevalence"]) for m in metrics]
    assert [(at.training, at.natural) for at in card.prevalence] == expected
    assert json.loads((RUNS / "predict" / "params.json").read_text())["prevalence"] == "natural"


def test_table_is_the_vote_on_the_predictions(predictions):
    split = json.loads((RUNS / "prepare" / "metrics.json").read_text())["split_sha256"]
    thresholds = read_thresholds(RUNS / "evaluate" / "thresholds.json", split)
    metrics = json.loads((RUNS / "evaluate" / "metrics.json").read_text())
    test = predictions[predictions["part"] == "test"]
    truth = study_truth(test)
    for hop in ("hop1", "hop2"):
        called = study_verdicts(probs_by_study(test, hop), thresholds.votes[hop])
        expected = (called & truth).sum() / truth.sum()
        assert metrics[f"{hop[:3]} {hop[3:]} sensitivity"] == pytest.approx(expected)


def test_tables_are_those_of_the_inputs_beside_them(chain):
    """Evaluated again from what lies in the stage's folder, every number is the same."""
    folder = RUNS / "evaluate"
    tables = evaluate(*read_inputs(folder)).tables
    assert {f.stem for f in (folder / "tables").glob("*.csv")} == set(tables)
    for name, table in tables.items():
        assert table.to_csv(index=False) == (folder / "tables" / f"{name}.csv").read_text(), name


def test_hop_2_keeps_hop_1_as_it_was(chain):
    one, _ = load_hops(RUNS / "hop1")
    two, _ = load_hops(RUNS / "hop2")
    ours, theirs = one.encoders[0].state_dict(), two.encoders[0].state_dict()
    assert all((ours[k] == theirs[k]).all() for k in ours)
    assert (two.encoders[1].net.conv_stem.weight[:, 9:] != 0).any()


def test_submission_lists_what_the_sample_lists(chain):
    sample = pd.read_csv(RUNS / "cohort" / "sample_submission.csv", dtype={"id": str})
    submission = pd.read_csv(RUNS / "submission" / "submission.csv", dtype={"id": str})
    assert submission["id"].tolist() == sample["id"].tolist()
    assert submission["label"].between(0, 1).all()
    metrics = json.loads((RUNS / "submission" / "metrics.json").read_text())
    assert metrics["weighted_log_loss"] > 0


def test_attributions_are_compared_with_true_clots(chain, predictions):
    metrics = json.loads((RUNS / "report" / "metrics.json").read_text())
    focus = pd.read_csv(RUNS / "report" / "tables" / "attribution_focus.csv", dtype={"study": str})
    assert len(focus) == 2 * metrics["explained_studies"]  # of each hop
    boxes = Store(RUNS / "prepare" / "store").studies.set_index("StudyInstanceUID")
    assert focus.groupby("study")["hop"].apply(list).map(["hop1", "hop2"].__eq__).all()
    for study, inside, chance in focus[["study", "inside_clots", "chance"]].itertuples(index=False):
        of_study = predictions[predictions["StudyInstanceUID"] == study].set_index("z")
        box = boxes.loc[study]
        row = int(of_study["hop2"].idxmax() - box["box_z0"])
        clot = crop_truth(RUNS / "cohort", study, "clot", box)
        assert chance == pytest.approx(clot[max(row - 1, 0) : row + 2].any(axis=0).mean())
        assert 0 <= inside <= 1


def test_every_error_is_in_the_report_with_slices_to_scroll(chain, predictions):
    metrics = json.loads((RUNS / "report" / "metrics.json").read_text())
    errors = pd.read_csv(RUNS / "report" / "tables" / "errors.csv", dtype={UIDS[0]: str})
    votes = read_thresholds(RUNS / "evaluate" / "thresholds.json").votes
    test = predictions[predictions["part"] == "test"]
    called = study_verdicts(probs_by_study(test, "hop2"), votes["hop2"])
    truth = study_truth(test)
    assert set(errors["StudyInstanceUID"]) == set(truth.index[truth != called])
    assert metrics["errors"] == len(errors) > 0
    with browser(1280) as (tab, asked):
        tab.goto((RUNS / "report" / "report.html").as_uri(), wait_until="networkidle")
        assert tab.locator("iframe").count() == len(errors)
        first = tab.locator("iframe").first
        first.scroll_into_view_if_needed()
        inside = first.content_frame
        inside.locator("#image[data-z]").wait_for()
        inside.locator("main").press("Home")
        assert inside.locator("#state").inner_text().startswith("slice 0 of")
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("page", ["report/report.html", "predict_study/study.html"])
def test_pages_open_with_no_request(chain, page):
    check_page(RUNS / page)


def test_wrong_model_folder_is_one_line(chain, tmp_path):
    study = next((RUNS / "cohort" / "test").iterdir())
    failed = run("predict", "--dicom", study, "--model", tmp_path)
    assert failed.returncode == 1
    assert "no experiment with a trained hop 2" in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr


@pytest.fixture(scope="module")
def real_study(chain, shared_data, tmp_path_factory):
    """`make predict` on 79 DICOM files of a real, non-contrast chest CT."""
    out = tmp_path_factory.mktemp("real")
    # As a clinical folder may be called.
    folder = tmp_path_factory.mktemp("named") / "DOE^JANE"
    folder.symlink_to(shared_data / "chest_dicom", target_is_directory=True)
    done = run("predict", "--dicom", folder, "--model", RUNS, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_real_study_slices_in_order(real_study):
    table = pd.read_csv(real_study / "slices.csv")
    assert table["z"].tolist() == list(range(79))
    steps = np.diff(table["z_mm"])
    assert (steps > 3.9).all()
    assert (steps < 4.1).all()
    assert table["SOPInstanceUID"].is_unique
    assert table["SOPInstanceUID"].str.fullmatch(r"[0-9a-f]{12}").all(), "hashed, not the UIDs"
    assert set(UIDS[:1]) <= set(table)


def test_name_of_the_folder_is_kept_nowhere(real_study):
    files = [f for f in real_study.rglob("*") if f.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        assert b"DOE^JANE" not in content
        assert b"chest_dicom" not in content
    assert not (real_study / "dicom").exists()


def test_real_study_is_called_out_of_distribution(real_study):
    page = (real_study / "study.html").read_text()
    assert "Out of distribution: the heart region has" in page
    metrics = json.loads((real_study / "metrics.json").read_text())
    assert metrics["out_of_distribution"]
    assert metrics["slices"] == 79
    check_page(real_study / "study.html")


def check_page(path):
    with browser(1280) as (tab, asked):
        tab.goto(path.as_uri(), wait_until="networkidle")
        pictures = tab.locator("figure img")
        assert pictures.count() >= 1
        for k in range(pictures.count()):
            assert pictures.nth(k).evaluate("image => image.complete && image.naturalWidth") > 300
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
