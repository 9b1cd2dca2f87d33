"""The page is opened in a real browser, Debian's Chromium, driven by Playwright."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from browser import browser
from matplotlib.figure import Figure

from pekit.common.html.render import table
from pekit.evaluation.metrics import SUMMARY
from pekit.reports.page import Picture, Section, render_page, write_page

mpl.use("agg")


@pytest.fixture
def page_arguments():
    figure = Figure(figsize=(9, 3))
    figure.subplots().plot([0, 1, 4, 2])
    table = pd.DataFrame(
        {
            "hop": ["hop 1", "hop 2 <script>alert(1)</script>"],
            "AUROC": [0.87654, float("nan")],
            "studies": [120, 120],
            **{f"measure {number}": [0.5, 0.25] for number in range(12)},
        }
    )
    items = ["Probability of each slice.", Picture(figure, 'Curve of "hop 1" & hop 2'), table]
    return {
        "title": "Study <1a2b>",
        "lead": "PE suspected.\nSecond line.",
        "notes": ["Low contrast & another scanner"],
        "sections": [Section("Slices", items)],
    }


def test_texts_are_escaped_and_values_rounded(page_arguments):
    html = render_page(**page_arguments)
    assert "<h1>Study &lt;1a2b&gt;</h1>" in html
    assert "Low contrast &amp; another scanner" in html
    assert "<script" not in html
    assert "script-src" not in html
    number = '<td class="number">'
    assert f"{number}0.877</td>{number}120</td>" in html
    assert f"{number}–</td>{number}120</td>" in html


def test_a_table_as_texts():
    frame = pd.DataFrame(
        {
            "study": ["a", None, "b"],
            "AUROC": [1.0, 0.12345, np.nan],
            "p": [0.0, 2e-5, 0.5],
            "slices": [12.0, np.nan, 3.0],  # counts, which a missing value makes fractions
            "why": ["", "x" * 50, ""],
            "F1": ["0.929 [0.886, 0.957]", "undefined", ""],
        }
    )
    shown = table(frame, limit=2)
    kinds = ["", "number", "number", "number", "long", "estimate"]
    assert [kind for _, kind in shown["columns"]] == kinds
    assert shown["rows"] == [
        [["a"], ["1.000"], ["0.000"], ["12"], [""], ["0.929", "[0.886, 0.957]"]],
        [["–"], ["0.123"], ["2e-05"], ["–"], ["x" * 50], ["undefined"]],
    ]
    assert shown["length"] == 3


def test_nothing_else_than_texts_pictures_and_tables():
    with pytest.raises(TypeError, match="not int"):
        render_page("title", sections=[Section("numbers", [3])])


def test_a_page_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = write_page(tmp_path / "page.html", "old")

    def no_space(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pekit.common.files.os.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_page(path, "new")
    assert "old" in path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("width", [420, 1200])
def test_opens_in_chromium_with_no_request_to_any_host(tmp_path, page_arguments, width):
    path = write_page(tmp_path / "page.html", **page_arguments)
    with browser(width) as (tab, asked):
        complaints: list[str] = []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri(), wait_until="networkidle")
        picture = tab.locator("figure img")
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 500
        assert tab.locator(".note").inner_text() == "Low contrast & another scanner"
        assert tab.locator("tbody tr").count() == 2
        # No sideways scrolling of the page, on a phone either.
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
    assert complaints == []
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A page of a table of results as an evaluation writes it, and of a figure in a section."""
    metrics = {metric: ["0.929 [0.886, 0.957]"] * 3 for metric in SUMMARY}
    models = ["hop 1", "hop 2", "hop 1, trained as long"]
    table = pd.DataFrame({"protocol": "held-out", "model": models, **metrics})
    figure = Figure(figsize=(9, 3))
    figure.subplots().plot([0, 1, 4, 2])
    picture = Picture(figure, "a curve")
    sections = [Section("Results", [table]), Section("Curve", ["A text.", picture])]
    return write_page(tmp_path_factory.mktemp("results") / "page.html", "t", sections=sections)


RIGHT = "cell => cell.getBoundingClientRect().right"
FITS = "table => table.scrollWidth <= table.clientWidth"


def test_results_are_seen_on_every_screen(results):
    with browser(1200) as (tab, _):
        tab.goto(results.as_uri())
        frame = tab.locator(".table")
        assert frame.evaluate(FITS)
        tab.set_viewport_size({"width": 420, "height": 900})
        heads = tab.locator("th")
        assert heads.all_inner_texts()[2:4] == ["F1", "AUROC"]
        assert heads.nth(3).evaluate(RIGHT) <= 420
        assert not frame.evaluate(FITS)
        bar = frame.evaluate("table => table.offsetHeight - table.clientHeight")
        assert bar == 10, "a bar of our own, which no system hides: there is more"
        cell = tab.locator("td.estimate").first
        assert cell.inner_text().split("\n") == ["0.929", "[0.886, 0.957]"]


def test_results_fit_on_paper(results):
    with browser(round(182 / 25.4 * 96)) as (tab, _):  # A4 less its margins, CSS pixels
        tab.emulate_media(media="print")
        tab.goto(results.as_uri())
        assert tab.locator("th").last.evaluate(RIGHT) <= tab.viewport_size["width"]
        kept = tab.locator(".keep")
        assert kept.evaluate("block => getComputedStyle(block).breakInside") == "avoid"
        assert kept.locator("h2").inner_text() == "Curve"
        assert kept.locator("figure img").count() == 1
        adjusted = "body => getComputedStyle(body).printColorAdjust"
        assert tab.locator("body").evaluate(adjusted) == "exact", "colours of swatches"


def test_a_request_would_be_seen(tmp_path):
    """The control of the test above: a page that does ask a host is caught."""
    path = tmp_path / "page.html"
    path.write_text('<img src="http://127.0.0.1:9/picture.png">')
    with browser(800) as (tab, asked):
        tab.goto(path.as_uri(), wait_until="networkidle")
    assert "http://127.0.0.1:9/picture.png" in asked
