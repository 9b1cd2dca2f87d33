"""The bundle is made from a toy experiment and opened from disk in Chromium."""

import base64
import getpass
import hashlib
import io
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import browser, faults
from matplotlib.figure import Figure
from PIL import Image
from toy_experiment import SLICE, STAGES, png, toy_experiment

import run
from batch import commands
from batch.experiment import Experiment, Stage
from batch.notebook import locked
from pekit.common.errors import UserError
from pekit.figures.base import KitFigure
from pekit.review.build import make_review
from pekit.review.bundle import check_sums, files_of
from pekit.review.privacy import HIDDEN, TEXTS, check_privacy, scrub
from pekit.tracking.run import Run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return toy_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def bundles(experiment):
    """With images and without."""
    return {
        images: make_review(experiment, experiment / f"review-{images}", STAGES, images).folder
        for images in (True, False)
    }


@pytest.fixture
def copy(experiment, tmp_path):
    """The experiment, to be changed."""
    leave = shutil.ignore_patterns("review*")
    return shutil.copytree(experiment, tmp_path / "runs" / "toy", ignore=leave)


def pictures(bundle: Path) -> list[np.ndarray]:
    """Pixels of every picture in a bundle: PNG files, and those embedded in pages and texts."""
    found = [path.read_bytes() for path in bundle.rglob("*.png")]
    for path in bundle.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            encoded = re.findall(rb"iVBORw0KGgo[A-Za-z0-9+/=]+", path.read_bytes())
            found += [base64.b64decode(code) for code in encoded]
    return [np.asarray(Image.open(io.BytesIO(data))) for data in found]


def holds_slice(pixels: np.ndarray) -> bool:
    """Whether a picture shows the patient: charts are almost entirely white."""
    return (pixels[..., :3] > 250).mean() < 0.7


def test_what_a_bundle_holds(bundles):
    bundle = bundles[True]
    names = set(files_of(bundle))
    assert {"index.html", "bundle.json", "requirements.lock"} <= names
    for stage in STAGES:
        parts = ("notebook.html", "params.json", "metrics.json", "manifest.json", "log.csv")
        assert {f"stages/{stage}/{part}" for part in parts} <= names
    assert {
        "stages/prepare/split.csv", "stages/prepare/split.csv.sha256",
        "stages/prepare/figures/hull.png", "stages/hop1/figures/loss.png",
        "stages/predict/predictions.parquet", "stages/evaluate/predictions.parquet",
        "stages/evaluate/studies.parquet", "stages/evaluate/evaluation.json",
        "stages/evaluate/report.html", "stages/evaluate/tables/study_metrics.csv",
    } <= names  # fmt: skip
    assert check_sums(bundle) == []
    assert not list(bundle.rglob("*.ipynb")), "as pages only"


def test_zip_is_the_folder(experiment, bundles):
    bundle = bundles[True]
    with zipfile.ZipFile(bundle.with_name("review-True.zip")) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {
        f"toy-review/{path.relative_to(bundle).as_posix()}": path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file()
    }


def test_no_image_survives(bundles):
    with_images = [picture for picture in pictures(bundles[True]) if holds_slice(picture)]
    # The figure; in each of five notebooks a picture, markup and an attachment; the report.
    assert len(with_images) == 1 + 3 * len(STAGES) + 1, "the check finds what is to be left out"
    bundle = bundles[False]
    left = pictures(bundle)
    assert [picture for picture in left if holds_slice(picture)] == []
    names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*.png")]
    assert names == ["stages/hop1/figures/loss.png"]
    assert len(left) == 1
    code = base64.b64encode(png(SLICE))
    for path in bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert code[:60] not in content
            assert b"data:image" not in content
            if path.name != "index.html":
                assert b"<img" not in content
    card = json.loads((bundle / "bundle.json").read_text())
    assert card["left_out"] == ["prepare/figures/hull.png", "evaluate/report.html"]
    page = (bundle / "stages" / "hop1" / "notebook.html").read_text()
    assert page.count("[picture left out]") == 5  # markdown, figure, markup, widget, viewer
    assert "<td>train</td>" in page, "a table stays"


def test_the_index_says_what_figures_show_and_shows_no_table_twice(copy):
    with Run(copy / "hop1", {}) as run:
        run.figure("loss", KitFigure(patient=False, caption="Loss by epoch, 3 < 4"))
        run.figure("odd_one", Figure())  # of a notebook's own
        run.finish({})
    stages = {stage: STAGES[stage] for stage in ("hop1", "evaluate")}
    index = (make_review(copy, copy / "review", stages).folder / "index.html").read_text()
    assert 'alt="Loss by epoch, 3 &lt; 4"' in index
    assert "</a>: odd one</figcaption>" in index
    assert (copy / "evaluate/tables/summary.csv").read_text() == (
        copy / "evaluate/table.csv"
    ).read_text()
    assert "evaluate: study_metrics" in index
    assert "evaluate: summary" not in index, "the same as table.csv"


def test_a_figure_that_is_not_declared_stays_out(copy):
    """Such as in a run of an older kit, whose manifest does not list charts."""
    manifest = copy / "hop1" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["charts"]
    manifest.write_text(json.dumps(content))
    stage = {"hop1": STAGES["hop1"]}
    bundle = make_review(copy, copy / "review", stage, images=False).folder
    assert not list(bundle.rglob("*.png"))


def test_texts_hold_no_path(experiment, bundles):
    for bundle in bundles.values():
        for path in bundle.rglob("*"):
            if path.is_file() and path.suffix in TEXTS:
                private = ("smith", str(experiment), str(ROOT), f"{Path.home()}/")
                assert [text for text in private if text in path.read_text()] == [], path
        params = json.loads((bundle / "stages" / "prepare" / "params.json").read_text())
        assert params == {"data": HIDDEN}
        page = (bundle / "stages" / "hop1" / "notebook.html").read_text()
        assert f"{HIDDEN}:5: UserWarning: odd" in page
        assert "../runs/toy" in page, "a relative path says nothing"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ('DATA = "/data/smith/x_1"', f'DATA = "{HIDDEN}"'),
        ("'/data' and \"~/x\"", f"'{HIDDEN}' and \"{HIDDEN}\""),
        ("in /home/smith/a b", f"in {HIDDEN} b"),
        (r"C:\Users\smith\x", HIDDEN),
        ("file:///home/smith/x", HIDDEN),
        ("../runs/demo/hop1 and a/b/c, 1/2/3 and n/a", None),
        ("https://example.org/a/b </td></tr> <br/>", None),
        ("data:image/jpeg;base64,/9j/4AAQ/SkZJ", None),
        (f"['data:image/webp;base64,{'/ab/cd+e' * 8}\n/ef/gh==']", None),  # in lines, as of MIME
        (f"url(data:font/woff2;charset=utf-8;base64,{'/ab/cd+e' * 3})", None),
        (
            '"data:image/png;base64,iVBO" in "/home/smith/x"',
            f'"data:image/png;base64,iVBO" in "{HIDDEN}"',
        ),
        ('hop.replace(/^hop/, "hop ")', None),
        (f"&quot;/9j/{'4AAQSkZJRg/' * 10}&quot;", None),  # a JPEG in base64
        (f'"/home/{"smith/" * 20}x"', f'"{HIDDEN}"'),
    ],
)
def test_scrub(text, scrubbed):
    assert scrub(text) == (text if scrubbed is None else scrubbed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("page.html", "<p>made in /home/smith/kit</p>", "page.html holds an absolute path"),
        ("table.csv", "reason\n/mnt/x/smith.dcm\n", "table.csv holds an absolute path"),
        ("a.json", '{"uid": "1.2.840.113654.2.55.1.2.3.4"}', "a.json holds a DICOM UID"),
        ("t.csv", "StudyInstanceUID\nDOE\n", "t.csv: column StudyInstanceUID holds a UID that is"),
        ("image.bin", f"x {ROOT} x", "image.bin holds the path of the kit"),
        ("log.txt", "ran on node-17 today", "log.txt holds the host's name"),
        ("log.csv", "by asmith", "log.csv holds the user's name"),
    ],
)
def test_privacy_check(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(platform, "node", lambda: "node-17")
    monkeypatch.setattr(getpass, "getuser", lambda: "asmith")
    (tmp_path / "ok.html").write_text("<p>The asmiths' ../runs/demo; aortic root, 0.1/0.2</p>")
    check_privacy(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        check_privacy(tmp_path)


def test_a_study_that_is_not_hashed_stops_it(copy):
    path = copy / "predict" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "StudyInstanceUID"] = "1.2.840.1"
    table.to_parquet(path)
    with pytest.raises(UserError, match=r"predictions.parquet: column StudyInstanceUID"):
        make_review(copy, copy / "review", {"predict": STAGES["predict"]})
    assert not list(copy.glob("*review*")), "nothing is left half written"


def test_a_picture_that_does_not_decode_stops_it(copy):
    (copy / "hop1" / "figures" / "loss.png").write_bytes(png(SLICE)[:500])
    with pytest.raises(UserError, match=r"hop1/figures/loss.png does not decode: run its stage"):
        make_review(copy, copy / "review", {"hop1": STAGES["hop1"]})


def test_a_page_that_loads_from_another_host_stops_it(copy):
    page, out = copy / "evaluate" / "report.html", copy / "review"
    stage = {"evaluate": STAGES["evaluate"]}
    page.write_text('<a href="https://example.org">fine</a>')
    make_review(copy, out, stage)
    page.write_text('<script src="https://example.org/x.js"></script>')
    with pytest.raises(UserError, match="loads from another host"):
        make_review(copy, out, stage)
    assert "fine" in (out / "stages" / "evaluate" / "report.html").read_text(), "the older one"


def test_unfinished_experiments_and_folders_in_the_way(copy, tmp_path):
    (copy / "hop1" / "metrics.json").unlink()
    shutil.rmtree(copy / "control")
    message = (
        "toy is not finished, these stages are missing: hop1, control; run `make experiment NAME="
    )
    with pytest.raises(UserError, match=re.escape(message)):
        make_review(copy, copy / "review", STAGES)
    other = tmp_path / "mine"
    other.mkdir()
    with pytest.raises(UserError, match="exists and is no review bundle"):
        make_review(copy, other, {"prepare": STAGES["prepare"]})
    assert other.is_dir()


def test_a_split_that_was_changed_stops_it(copy):
    split = copy / "prepare" / "split.csv"
    split.write_text(split.read_text() + "x,test\n")
    with pytest.raises(UserError, match=r"prepare/split.csv is not the frozen split"):
        make_review(copy, copy / "review", {"prepare": STAGES["prepare"]})


def test_notes_on_commits_and_changes(copy):
    for stage, git in (("hop1", {"commit": "a" * 40, "dirty": True}), ("predict", {})):
        path = copy / stage / "manifest.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"git": git}))
    stages = {stage: STAGES[stage] for stage in ("hop1", "predict")}
    index = (make_review(copy, copy / "review", stages).folder / "index.html").read_text()
    assert "The stages ran at different commits" in index
    assert "These stages ran with uncommitted changes: hop1." in index
    assert "aaaaaaaaaa + changes" in index


def test_a_kill_leaves_the_older_one(copy):
    """Killed while it writes: the older bundle stays, and the next one is complete."""
    out, stage = copy / "review", {"hop1": STAGES["hop1"]}
    make_review(copy, out, stage)
    (out / "old").touch()
    code = (
        "import sys, time; from pathlib import Path\n"
        "import pekit.review.build as build\n"
        "build.write_sums = lambda bundle: (print('now', flush=True), time.sleep(60))\n"
        f"build.make_review(Path({str(copy)!r}), Path({str(out)!r}), {stage!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout.readline() == "now\n"
        made.send_signal(signal.SIGKILL)
    assert (out / "old").exists()
    assert len(list(copy.glob(".review*"))) == 1
    make_review(copy, out, stage)
    assert not (out / "old").exists()
    assert check_sums(out) == []
    assert not list(copy.glob(".review*"))


@pytest.mark.parametrize("images", [True, False])
def test_opens_from_disk_with_no_request(bundles, tmp_path, images):
    bundle = bundles[images]
    pages = sorted(bundle.rglob("*.html"))
    with browser(1200) as (tab, asked):
        for page in pages:
            for width in (420, 1200):
                tab.set_viewport_size({"width": width, "height": 800})
                tab.goto(page.as_uri(), wait_until="load")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, page
        assert [fault for page in pages for fault in faults(tab, page)] == []
        assert len(pages) == len(STAGES) + 1 + images
        tab.goto((bundle / "index.html").as_uri())
        assert tab.locator("h1").inner_text() == "toy: review bundle"
        assert "30 test studies" in tab.locator("section h3").first.inner_text()
        tab.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        tab.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth)")
        assert tab.locator("img").count() == 1 + images
        links = tab.eval_on_selector_all("a", "all => all.map(a => a.href)")
        files = {link.split("#")[0] for link in links}
        assert all(Path(link.removeprefix("file://")).is_file() for link in files)
        assert len(files) > 40
        tab.click("a[href='#hop1']")
        assert tab.get_by_text("train_loss").is_visible(), "a link opens its details"
        tab.goto((bundle / "stages" / "hop1" / "notebook.html").as_uri())
        if images:
            tab.locator("iframe").scroll_into_view_if_needed()
            viewer = tab.locator("iframe").content_frame
            viewer.locator('#image[data-z="1"]').wait_for()  # set when the slice is drawn
        assert tab.locator("iframe").count() == images
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "dmo"], "no experiment 'dmo'; did you mean demo or smoke?"),
        (["--name", "peers", "--images", "nein"], "IMAGES=nein: it must be yes or no"),
    ],
)
def test_command_names_what_is_wrong(capsys, arguments, message):
    assert run.main(["review", *arguments]) == 1
    assert capsys.readouterr().err.strip() == message


def test_command_on_an_experiment(capsys, monkeypatch, experiment, tmp_path):
    stages = {name: Stage(name, Path(notebook), (), {}) for name, notebook in STAGES.items()}
    toy = Experiment("demo", experiment, stages)
    monkeypatch.setattr(commands, "read_experiment", lambda path: toy)
    assert run.main(["review", "--images", "no", "--out", str(tmp_path / "handed")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"Review: {tmp_path}/handed/index.html (")
    assert said[1].startswith(f"Zip:    {tmp_path}/handed.zip (")
    sums = hashlib.sha256((tmp_path / "handed" / "SHA256SUMS").read_bytes()).hexdigest()
    assert said[2] == f"Hash:   {sums} (of SHA256SUMS; tell it to the reader)"
    with locked(experiment / ".lock", ""):
        assert run.main(["review"]) == 1
    assert "demo is running: wait for its end" in capsys.readouterr().err
