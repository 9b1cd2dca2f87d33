"""The slice viewer in a real browser: the effect of keys is read from the pixels of its canvas."""

import base64
import re
import tomllib
from contextlib import contextmanager
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from browser import browser
from colours import contrast
from toy import BELOW, DEPTH, toy_store

from pekit.common.errors import UserError
from pekit.common.html.render import FOLDER as TEMPLATES
from pekit.dataset.schema import SLICE_LABEL
from pekit.figures.base import HOP_COLOURS, HULL, TRUTH
from pekit.reports.page import Section, write_page
from pekit.reports.viewer import encode
from pekit.reports.viewer.frame import FOLDER
from pekit.reports.viewer.study import StudyView, slice_viewer, view_study
from pekit.voting import Vote

N, Z0, ROWS, COLUMNS = 14, 2, 30, 40
WINDOWS = {"1": (-600, 1500), "2": (100, 700), "3": (40, 400)}  # lung, PE, mediastinum
CENTRE = (ROWS // 2, COLUMNS // 2)


def hu_of(z):
    """The HU that fills the slice z of the study below."""
    return -900 + 100 * z


@pytest.fixture(scope="module")
def view():
    """Ten flat slices of a study of 14; the last hop misclassifies slices 3 and 12."""
    hu = np.stack([np.full((ROWS, COLUMNS), hu_of(z), np.int16) for z in range(Z0, Z0 + 10)])
    labels = np.zeros(N, int)
    labels[3:6] = 1
    last = np.where(labels == 1, 0.9, 0.1)
    last[3], last[12] = 0.2, 0.8
    spot = np.zeros((ROWS, COLUMNS), np.float32)
    spot[CENTRE[0] - 4 : CENTRE[0] + 4, CENTRE[1] - 4 : CENTRE[1] + 4] = 1
    hull = np.zeros(hu.shape, bool)
    hull[:, 3:-3, 3:-3] = True
    return StudyView(
        "study </script><script>alert(1)</script>",
        hu,
        (2.5, 1.0, 1.0),
        {"hop1": np.full(N, 0.3), "hop2": last},
        z0=Z0,
        deltas={"hop1": 0.5, "hop2": 0.5},
        labels=labels,
        outlines={"hull": hull},
        attributions={"hop1": {7: spot}, "hop2": {7: spot}},
        start=7,
    )


class Shown:
    """A viewer in a page or in a frame of it."""

    def __init__(self, inside):
        self.inside = inside
        self.at(7)

    def at(self, z):
        """Wait until slice z is drawn."""
        self.inside.locator(f'#image[data-z="{z}"]').wait_for()
        return self

    def press(self, key, z):
        self.inside.locator("main").press(key)
        return self.at(z)

    def pixels(self, places):
        """Red, green and blue at (row, column) voxels of the crop."""
        return self.inside.locator("#image").evaluate(
            """(canvas, [places, rows, columns]) => {
              const fit = Math.min(canvas.width / columns, canvas.height / rows);
              const left = (canvas.width - columns * fit) / 2;
              const top = (canvas.height - rows * fit) / 2;
              const context = canvas.getContext("2d");
              return places.map(([row, column]) => [...context.getImageData(
                left + (column + 0.5) * fit, top + (row + 0.5) * fit, 1, 1).data].slice(0, 3));
            }""",
            [[list(place) for place in places], ROWS, COLUMNS],
        )

    def pixel(self, row, column):
        return self.pixels([(row, column)])[0]

    def cursor(self):
        return float(self.inside.locator(".cursor").get_attribute("x1"))

    def state(self):
        return self.inside.locator("#state").inner_text()


def expected(z, key):
    centre, width = WINDOWS[key]
    return 255 * min(max((hu_of(z) - centre) / width + 0.5, 0), 1)


@pytest.fixture(scope="module")
def page(view, tmp_path_factory):
    """Two viewers in one page; at the end, no request to a host and no complaint in the console."""
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    write_page(path, "Two", sections=[Section("a", [slice_viewer(view), slice_viewer(view)])])
    with browser(1000) as (tab, asked):
        complaints: list[str] = []
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        frames = tab.locator("iframe")
        frames.nth(1).scroll_into_view_if_needed()
        two = [Shown(frames.nth(k).content_frame) for k in range(2)]
        yield tab, two
        # Chromium warns of canvases that are read often, as these tests do.
        assert [text for text in complaints if "readback" not in text] == []
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


@contextmanager
def another_tab(page, width):
    """A tab of the same browser, and the list of the addresses that it asks for."""
    tab = page[0].context.browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    yield tab, asked
    tab.close()


@pytest.fixture
def shown(page):
    """The first viewer, at its start: slice 7, PE window, no attribution."""
    _, (first, _) = page
    first.press("Home", 0)
    for button in first.inside.locator('button[aria-pressed="true"]').all():
        if "attribution" in button.inner_text():
            button.click()
    first.press("2", 0)
    for _ in range(7):
        first.inside.locator("main").press("ArrowUp")
    return first.at(7)


def test_arrows_and_ends_move_slice_and_cursor(shown):
    for key, z in [
        ("ArrowUp", 8), ("ArrowRight", 9), ("ArrowDown", 8), ("ArrowLeft", 7), ("PageDown", 0),
        ("ArrowDown", 0), ("PageUp", 10), ("End", 13), ("ArrowUp", 13), ("Home", 0),
    ]:  # fmt: skip
        shown.press(key, z)
        assert shown.cursor() == z + 0.5
        assert shown.state().startswith(f"slice {z} of 0–13 · z = {2.5 * z:.1f} mm")
        assert shown.inside.locator("#slice").input_value() == str(z)


@pytest.mark.parametrize("key", WINDOWS)
def test_windows_show_the_hu_that_is_there(shown, key):
    shown.press(key, 7)
    for up in range(4):
        z = 7 + up
        assert shown.pixel(*CENTRE) == pytest.approx([expected(z, key)] * 3, abs=3)
        shown.press("ArrowUp", z + 1)
    pressed = shown.inside.locator('#tools span:first-child [aria-pressed="true"]')
    assert pressed.inner_text().endswith(f"({key})")


def test_outside_the_crop_box_there_is_no_image(shown):
    outside = shown.inside.locator("#outside")
    assert not outside.is_visible()
    shown.press("End", 13)
    assert outside.is_visible()
    assert shown.pixel(*CENTRE) == [0, 0, 0]


def test_next_and_previous_error(shown):
    for key, z, says in [
        ("n", 12, "false positive"), ("n", 3, "false negative"), ("p", 12, "false positive"),
        ("p", 3, "false negative"), ("n", 12, "false positive"),
    ]:  # fmt: skip
        shown.press(key, z)
        assert says in shown.state()
    shown.press("ArrowDown", 11)
    assert "false positive" not in shown.state()
    assert "labelled no PE" in shown.state()
    assert "hop 2 p = 0.100" in shown.state()


def test_attribution_lies_on_its_slice_and_can_be_taken_away(shown):
    plain = shown.pixel(*CENTRE)
    assert max(plain) - min(plain) <= 1
    corner = shown.pixel(6, 6)
    shown.inside.locator("main").press("a")
    shown.inside.locator('#image[data-overlay="hop2"]').wait_for()
    red, green, blue = shown.pixel(*CENTRE)  # inferno's end is a pale yellow
    assert red > 200
    assert green > 200
    assert blue < red
    assert shown.pixel(6, 6) == pytest.approx(corner, abs=6)
    shown.press("ArrowUp", 8)
    assert "attribution not computed here" in shown.state()
    assert max(shown.pixel(*CENTRE)) - min(shown.pixel(*CENTRE)) <= 1
    shown.press("ArrowDown", 7)
    shown.inside.get_by_role("button", name="attribution hop 1").click()
    shown.inside.locator('#image[data-overlay="hop1"]').wait_for()
    shown.inside.locator("main").press("a")
    shown.inside.locator('#image[data-overlay=""]').wait_for()
    assert shown.pixel(*CENTRE) == plain


def test_hull_is_drawn_and_what_lies_outside_is_not(shown):
    def edge():
        return np.array(shown.pixels([(2.2 + k / 25, COLUMNS // 2) for k in range(40)]))

    sky = np.array([0x56, 0xB4, 0xE9])
    assert np.abs(edge() - sky).max(axis=1).min() < 40
    shown.press("h", 7)
    assert np.abs(edge() - sky).max(axis=1).min() > 60
    shown.press("1", 7)
    assert shown.pixel(1, 1) == [0, 0, 0]
    assert shown.pixel(*CENTRE)[0] > 100
    shown.press("h", 7)
    assert np.abs(edge() - sky).max(axis=1).min() < 40


def test_mouse_wheel_curve_and_slider(page, shown):
    tab, _ = page
    shown.inside.locator("#stage").click()
    tab.mouse.wheel(0, 100)
    shown.at(6)
    tab.mouse.wheel(0, -100)
    shown.at(7)
    curve = shown.inside.locator("#curve")
    width = curve.bounding_box()["width"]
    curve.click(position={"x": width * 10.5 / N, "y": 20})
    shown.at(10)
    shown.inside.locator("#slice").fill("4")
    shown.at(4)
    assert shown.cursor() == 4.5


def test_two_viewers_do_not_disturb_each_other(page, shown):
    _, (first, second) = page
    second.press("End", 13)
    assert first.state().startswith("slice 7 ")
    first.press("ArrowUp", 8)
    assert second.state().startswith("slice 13 ")


def test_focus_is_seen_and_named(shown):
    main = shown.inside.locator("main")
    main.focus()
    style = "element => getComputedStyle(element).borderTopColor"
    assert main.evaluate(style) == "rgb(240, 228, 66)"
    assert main.get_attribute("aria-label").startswith("Slice viewer: study")
    main.evaluate("element => element.blur()")
    assert main.evaluate(style) != "rgb(240, 228, 66)"


def test_texts_are_taken_literally(view, shown):
    assert shown.inside.locator("h1").inner_text() == view.title
    assert "<script>alert" not in slice_viewer(view).document()


def test_truth_is_shaded_and_deltas_are_dashed(shown):
    shaded = shown.inside.locator(".truth")
    assert [shaded.nth(k).get_attribute("x") for k in range(shaded.count())] == ["3", "4", "5"]
    assert shown.inside.locator(".delta").count() == 2
    points = shown.inside.locator('polyline[data-hop="hop2"]').get_attribute("points").split()
    assert points[12] == "12.5,0.19999999999999996"


def test_in_a_notebook_exported_to_html(page, view, tmp_path):
    nbconvert = pytest.importorskip("nbconvert")
    output = nbformat.v4.new_output(
        "execute_result", {"text/html": slice_viewer(view)._repr_html_()}
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("v", outputs=[output])])
    body, _ = nbconvert.HTMLExporter(template_name="classic").from_notebook_node(notebook)
    path = tmp_path / "notebook.html"
    path.write_text(body)
    with another_tab(page, 1000) as (tab, _):
        # The export's own scripts come from elsewhere: without a network there are none.
        tab.route(re.compile("^https?:"), lambda route: route.abort())
        tab.goto(path.as_uri())
        shown = Shown(tab.locator("iframe").content_frame)
        shown.press("n", 12)
        assert tab.locator("iframe").count() == 1


def test_an_unlabelled_study_as_a_page_on_a_phone(page, view, tmp_path):
    path = slice_viewer(
        StudyView("plain", view.hu, view.spacing_mm, {"hop1": view.probs["hop1"]}, z0=Z0, start=7)
    ).write(tmp_path / "viewer.html")
    with another_tab(page, 375) as (tab, asked):
        tab.goto(path.as_uri())
        shown = Shown(tab)
        assert tab.get_by_role("button", name="next error").is_disabled()
        shown.press("n", 7)
        shown.press("a", 7)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 375
        tab.mouse.move(100, 200)
        tab.mouse.wheel(0, -10)  # alone on its page it need not be clicked first
        shown.at(8)
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_grey_levels_keep_every_window_within_a_few_steps():
    hu = np.arange(-1500, 700).astype(np.int16)
    hus, levels = zip(*encode.LEVELS, strict=True)
    back = np.interp(encode.to_levels(hu), levels, hus)
    for centre, width in WINDOWS.values():
        windowed = [np.clip((x - centre) / width + 0.5, 0, 1) * 255 for x in (hu, back)]
        assert np.abs(windowed[0] - windowed[1]).max() < 2


def test_a_large_real_ct_stays_small(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(shared_data / "chest_ct" / "lung2_image.nrrd"))
    hu = sitk.GetArrayFromImage(image).astype(np.int16)[:50, 80:430, 80:430]
    view = StudyView("real", hu, (5, 0.6, 0.6), {"hop1": np.linspace(0, 1, 50)})
    # 250 slices like these are below 10 MB.
    assert len(slice_viewer(view).document()) < 2e6
    assert len(slice_viewer(view, side=175, quality=80).document()) < 0.6e6


def test_colours_are_those_of_the_figures():
    """On paper the same; on the dark screen as light as is needed to be seen."""
    screen, paper = (FOLDER / "viewer.css").read_text().split("@media print")
    named, printed = (dict(re.findall(r"--(\w+): (#\w+)", css)) for css in (screen, paper))
    hops = [f"hop{k}" for k in range(1, 5)]
    assert [printed[hop] for hop in hops] == [colour.lower() for colour in HOP_COLOURS]
    assert (named["hull"], printed["truth"]) == (HULL.lower(), TRUTH.lower())
    for line in (*hops, "truth", "wrong", "focus", "text", "faint"):
        assert contrast(named[line], named["plot"]) >= 4.5, line
        assert contrast(printed[line], printed["plot"]) >= 3, line


def test_hops_differ_without_colour(shown):
    dashes = [
        shown.inside.locator(f'polyline[data-hop="{hop}"]').evaluate(
            "line => getComputedStyle(line).strokeDasharray"
        )
        for hop in ("hop1", "hop2")
    ]
    assert dashes[0] == "none"
    assert dashes[1] != "none"


def test_the_image_is_never_stretched(shown):
    """Where the page is printed it gets another size without being drawn again."""
    image = shown.inside.locator("#image")
    assert image.evaluate("image => getComputedStyle(image).objectFit") == "contain"
    image.evaluate("(image) => { image.style.display = 'none'; return draw(); }")
    assert image.evaluate("image => [image.width, image.height]") == [4 * COLUMNS, 4 * ROWS]
    image.evaluate("(image) => { image.style.display = ''; return draw(); }")
    assert image.evaluate("image => image.width === image.clientWidth * devicePixelRatio")


@pytest.mark.parametrize(
    ("package", "folder"), [("pekit.reports.viewer", FOLDER), ("pekit.common.html", TEMPLATES)]
)
def test_the_browsers_files_are_in_an_installed_package(package, folder):
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    tools = project["tool"]["setuptools"]
    assert package in tools["packages"]
    files = {file for pattern in tools["package-data"][package] for file in folder.glob(pattern)}
    assert files == {file for file in folder.iterdir() if file.suffix in (".js", ".css", ".html")}
    assert files


def test_prepared_study_as_the_store_and_the_predictions_have_it(tmp_path):
    store, _ = toy_store(tmp_path, n=2)
    studies = store.studies.assign(spacing_z=2.0, spacing_y=0.5, spacing_x=0.7)
    studies.to_parquet(store.root / "studies.parquet")
    rows = store.slices.assign(hop1=0.1, hop2=np.where(store.slices[SLICE_LABEL] == 1, 0.4, 0.1))
    votes = {"hop1": Vote(1, 0.5), "hop2": Vote(1, 0.3)}
    shown = view_study(store, rows.sample(frac=1, random_state=0), "000000000001", votes)
    assert (shown.slices, shown.z0, len(shown.hu)) == (DEPTH + BELOW, BELOW, DEPTH)
    assert shown.spacing_mm == (2.0, 0.5, 0.7)
    assert np.flatnonzero(shown.labels).tolist() == [6, 7, 8]
    assert shown.errors() == []
    assert shown.outlines == {}  # this store is not masked: no hull is known
    late = view_study(store, rows, "000000000001", {"hop2": Vote(1, 0.4)})
    assert late.errors() == [6, 7, 8]
    with pytest.raises(UserError, match="study 000000000001: not every slice is predicted"):
        view_study(store, rows[rows["z"] != 3], "000000000001", votes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probs": {}}, "no probabilities"),
        ({"z0": 5}, r"crop \(10, 30, 40\) from slice 5 on does not lie in 14"),
        ({"labels": np.zeros(3)}, r"labels has \(3,\) values for 14"),
        ({"outlines": {"hull": np.zeros((1, 2, 3), bool)}}, "hull is"),
        ({"attributions": {"hop1": {1: np.zeros((ROWS, COLUMNS))}}}, "hop1 of z=1 does not fit"),
    ],
)
def test_what_does_not_fit_is_named(view, changes, message):
    with pytest.raises(UserError, match=message):
        StudyView(**(vars(view) | changes))
    with pytest.raises(UserError, match="start=20"):
        slice_viewer(StudyView(**(vars(view) | {"start": 20})))


def test_shrinking_keeps_proportions():
    planes = np.zeros((2, 100, 60), np.int16)
    assert encode.shrink(planes, 50).shape == (2, 50, 30)
    assert encode.shrink(planes, None) is planes
    assert encode.shrink(planes, 200) is planes
    share = encode.attribution_share(np.array([[0.0, -2.0], [1.0, 2.0]]))
    assert share.tolist() == [[0, 255], [128, 255]]
    coded = np.frombuffer(base64.b64decode(encode.jpeg(share).split(",")[1]), np.uint8)
    assert cv2.imdecode(coded, cv2.IMREAD_UNCHANGED).shape == (2, 2)
