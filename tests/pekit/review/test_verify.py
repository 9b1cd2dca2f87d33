"""Verification finds every change, even if SHA256SUMS is changed accordingly."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from toy_experiment import STAGES, toy_experiment

from pekit.review.build import make_review
from pekit.review.bundle import write_sums
from pekit.review.index import render_index
from pekit.review.recompute import KINDS, first_difference
from pekit.review.verify import main, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        folder = toy_experiment(tmp_path_factory.mktemp("verify"))
    return make_review(folder, folder / "review", STAGES).folder


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "review")


@pytest.fixture
def tables_taken(monkeypatch):
    """Tables are read, not recomputed (2 s), for tests of the other checks."""

    def as_they_are(folder):
        paths = (folder / "tables").glob("*.csv")
        return {p.stem: pd.read_csv(p, dtype=str, keep_default_na=False) for p in paths}

    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, as_they_are)


def failed(bundle) -> dict[str, str]:
    return {check.name: check.text for check in verify(bundle) if check.equal is False}


def test_a_bundle_as_it_was_made(bundle, capsys):
    assert main([str(bundle)]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert verdict.startswith("toy: verified (")
    said = {line[13:].split(": ")[0]: line[:13].strip() for line in lines}
    assert set(said.values()) == {"equal", "not checked"}
    equal = {name for name, word in said.items() if word == "equal"}
    tables = {f"stages/evaluate/tables/{p.name}" for p in bundle.glob("stages/evaluate/tables/*")}
    assert len(tables) > 8
    named = {"stages/evaluate/table.csv", "SHA256SUMS", "index.html", "pictures"}
    assert tables | named <= equal
    assert {"stages/prepare/split.csv", "evaluate, input predict"} <= equal
    assert {f"stages/evaluate/predictions.parquet, {m}" for m in ("hop 1", "control")} <= equal
    assert set(said) - equal == {"log.csv, metrics.json and notebook.html of each stage"}
    command = ["sha256sum", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(command, cwd=bundle, check=False).returncode == 0


def change_probability(bundle):
    """One probability, by a thousandth, of a test study that is shown."""
    path = bundle / "stages" / "evaluate" / "predictions.parquet"
    table = pd.read_parquet(path)
    row = table.index[(table["part"] == "test") & (table["model"] == "hop 2")][0]
    table.loc[row, "prob"] += 0.001
    table.to_parquet(path, index=False)


def test_one_probability_is_changed(bundle, capsys, tables_taken):
    change_probability(bundle)
    found = failed(bundle)
    assert found["SHA256SUMS"] == "stages/evaluate/predictions.parquet has changed"
    assert "not in stages/predict/" in found["stages/evaluate/predictions.parquet, hop 2"]
    assert main([str(bundle)]) == 1
    assert "toy: NOT VERIFIED (" in capsys.readouterr().out


def test_one_probability_is_changed_with_its_hash(bundle):
    change_probability(bundle)
    write_sums(bundle)
    found = failed(bundle)
    assert "SHA256SUMS" not in found
    cell = found["stages/evaluate/tables/calibration.csv"]
    assert re.match(r"row \d+ \(both, hop 2, raw\), column value: 0\.\d+ in the table, 0\.", cell)


def test_one_number_of_a_table_is_changed(bundle):
    path = bundle / "stages" / "evaluate" / "tables" / "study_metrics.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    old = table.loc[3, "value"]
    table.loc[3, "value"] = new = str(float(old) * 0.9)
    table.to_csv(path, index=False)
    about = ", ".join(table.loc[3, ["protocol", "model", "metric"]])
    text = f"row 4 ({about}), column value: {new} in the table, {old} recomputed"
    name = "stages/evaluate/tables/study_metrics.csv"
    found = failed(bundle)
    assert set(found) == {"SHA256SUMS", "index.html", name}
    assert found[name] == text
    (bundle / "index.html").write_text(render_index(bundle))
    write_sums(bundle)
    assert failed(bundle) == {name: text}


def test_one_study_of_an_ablation_is_changed(bundle):
    path = bundle / "stages" / "tables" / "predictions.parquet"
    table = pd.read_parquet(path)
    # All slices of the study with the highest probability, so that its rank changes.
    of_run = table.query("stage == 'predict' and part == 'test'")
    surest = of_run.loc[of_run["hop2"].idxmax(), "StudyInstanceUID"]
    table.loc[of_run.index[of_run["StudyInstanceUID"] == surest], "hop2"] = 0.0
    table.to_parquet(path, index=False)
    write_sums(bundle)
    found = failed(bundle)
    assert "not in stages/predict/" in found["stages/tables/predictions.parquet, predict 0 hop2"]
    cell = found["stages/tables/tables/arms.csv"]
    assert re.match(r"row \d+ \(III, hop 2, (paper|held-out)\), column value: ", cell)


def test_what_the_page_shows(bundle, tables_taken):
    page = bundle / "index.html"
    interval = pd.read_csv(bundle / "stages/evaluate/table.csv")["AUROC"][0].split(" ", 1)[1]
    assert interval in page.read_text()
    page.write_text(page.read_text().replace(interval, "[1.000, 1.000]"))
    write_sums(bundle)
    assert failed(bundle) == {"index.html": "it shows other values than the files of the tables"}


def test_the_split(bundle, tables_taken):
    split = bundle / "stages" / "prepare" / "split.csv"
    split.write_text(split.read_text().replace("test", "train", 1))
    write_sums(bundle)
    text = "it is not the frozen split: its hash differs"
    assert failed(bundle) == {"stages/prepare/split.csv": text}


def test_a_stage_that_used_another_split(bundle, tables_taken):
    manifest = bundle / "stages" / "hop1" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["inputs"]["split"] = "0" * 64
    manifest.write_text(json.dumps(content))
    write_sums(bundle)
    assert failed(bundle) == {"stages/prepare/split.csv": "another split was used by hop1"}


def test_files_that_are_changed_missing_or_new(bundle, tables_taken):
    (bundle / "stages" / "hop1" / "figures" / "loss.png").write_bytes(b"")
    (bundle / "stages" / "hop1" / "log.csv").unlink()
    (bundle / "stages" / "hop1" / "more.txt").write_text("x")
    text = failed(bundle)["SHA256SUMS"]
    assert text == (
        "stages/hop1/figures/loss.png has changed, stages/hop1/log.csv is missing, "
        "stages/hop1/more.txt is not listed"
    )


@pytest.mark.parametrize(
    ("kind", "first", "pictures"),
    [("jpeg", "/9j/", 3), ("png", "iVBORw0KGgo", 3)],  # slices of the viewer; cells and outputs
)
def test_pictures_that_do_not_decode(bundle, tables_taken, kind, first, pictures):
    """As where a path is sought in base64, and hidden."""
    page = bundle / "stages" / "hop1" / "notebook.html"
    code = rf"(?<=data:image/{kind};base64,){first}[\w+/]+=*"
    text, number = re.subn(code, "[path]", page.read_text())
    assert number == pictures
    page.write_text(text)
    write_sums(bundle)
    found = failed(bundle)
    assert set(found) == {"pictures"}
    assert found["pictures"].startswith(
        f"{pictures} do not decode: stages/hop1/notebook.html (pict"
    )
    assert main([str(bundle)]) == 1


def test_a_picture_that_is_cut_short(bundle, tables_taken):
    figure = bundle / "stages" / "hop1" / "figures" / "loss.png"
    figure.write_bytes(figure.read_bytes()[:-2000])
    write_sums(bundle)
    text = "1 do not decode: stages/hop1/figures/loss.png"
    assert failed(bundle) == {"pictures": text}


def test_predictions_that_cannot_be_evaluated(bundle):
    path = bundle / "stages" / "evaluate" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "prob"] = 1.5
    table.to_parquet(path, index=False)
    assert "it cannot be recomputed: " in failed(bundle)["stages/evaluate"]


def test_nothing_to_recompute_is_not_verified(bundle):
    (bundle / "stages" / "evaluate" / "evaluation.json").unlink()
    (bundle / "stages" / "tables" / "ablation.json").unlink()
    write_sums(bundle)
    assert set(failed(bundle)) == {"tables"}


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "is no review bundle"),
        ({"version": 99, "commit": "abc"}, "of version 99, this kit reads version 2.*commit abc"),
    ],
)
def test_no_bundle_or_another_version(tmp_path, capsys, card, message):
    if card:
        (tmp_path / "bundle.json").write_text(json.dumps(card))
    assert main([str(tmp_path)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_command(tmp_path):
    command = [sys.executable, "-m", "pekit.review.verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is no review bundle (no bundle.json): " + (
        "make one with `make review`\n"
    )


def texts(**columns):
    return pd.DataFrame(columns, dtype=str)


@pytest.mark.parametrize(
    ("shown", "computed", "difference"),
    [
        (texts(m=["a"], v=["0.1"]), texts(m=["a"], v=["0.10000000001"]), ""),
        (texts(m=["a"], v=["0.1"]), texts(m=["a"], v=["0.1001"]), "row 1 (a), column v: 0.1 in"),
        (texts(m=["a"], v=[""]), texts(m=["a"], v=["0.5"]), "row 1 (a), column v: nothing in"),
        (texts(n=["10000001"]), texts(n=["10000002"]), "row 1 (), column n"),
        (texts(u=["12e456789012"]), texts(u=["12e456789013"]), "row 1 (12e456789012), column u"),
        (texts(v=["1", "2"]), texts(v=["1"]), "it has 2 rows, recomputed 1"),
        (texts(v=["1"]), texts(w=["1"]), "its columns are ['v'], recomputed ['w']"),
    ],
)
def test_first_difference(shown, computed, difference):
    found = first_difference(shown, computed)
    assert found.startswith(difference)
    assert bool(found) == bool(difference)
