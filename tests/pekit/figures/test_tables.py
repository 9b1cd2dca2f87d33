"""Tables as a notebook shows them."""

import re

import pandas as pd
from browser import browser

from pekit.figures.tables import show

TABLE = pd.DataFrame(
    {
        "model": ["hop 1", "a < b"],
        "F1": ["0.929 [0.886, 0.957]", "undefined"],
        "p": [0.123456, None],
        "studies": [12.0, None],
    }
)


def cells(styler):
    rows = re.findall(r"<tr>(.*?)</tr>", styler.to_html(), re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t", row) for row in rows]


def test_cells_are_those_of_the_pages():
    assert cells(show(TABLE)) == [
        ["model", "F1", "p", "studies"],
        ["hop 1", "0.929<br>[0.886, 0.957]", "0.123", "12"],
        ["a &lt; b", "undefined", "–", "–"],
    ]
    assert cells(show(TABLE, digits=1))[1][2] == "0.1"
    assert "<caption>a &lt; b</caption>" in show(TABLE, "a < b").to_html()


def test_an_index_that_says_something_is_shown():
    by_model = TABLE.set_index("model")
    assert cells(show(by_model))[0] == ["model", "F1", "p", "studies"]
    assert cells(show(by_model.rename_axis(None)))[1][0] == "hop 1"
    assert cells(show(TABLE[1:]))[1][0] == "a &lt; b", "row numbers are not"
    assert cells(show(TABLE[:0])) == [["model", "F1", "p", "studies"]]


def test_text_is_on_the_left_and_numbers_on_the_right(tmp_path):
    """Also under the style of JupyterLab, which sets all cells on the right."""
    lab = "<style>.jp td, .jp th { text-align: right; white-space: nowrap; }</style>"
    page = tmp_path / "page.html"
    page.write_text(f'{lab}<div class="jp">{show(TABLE).to_html()}</div>')
    with browser(600) as (tab, _):
        tab.goto(page.as_uri())
        for part in ("th", "tbody tr:first-child td"):
            sides = tab.eval_on_selector_all(
                part, "all => all.map(cell => getComputedStyle(cell).textAlign)"
            )
            assert sides == ["left", "left", "right", "right"]
