"""Figures draw the given data, and every axis has a label."""

import io
from itertools import combinations

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from colours import contrast
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from pekit.common.errors import UserError
from pekit.dataset.schema import LANDMARKS
from pekit.figures.base import (
    BLUE,
    CLOT,
    GREEN,
    HOP_COLOURS,
    HULL,
    LANDMARK,
    ORANGE,
    PURPLE,
    RED,
    to_png,
)
from pekit.figures.base import BOX as BOX_COLOUR
from pekit.figures.curves import slice_curves, study_case
from pekit.figures.overlays import spread
from pekit.figures.preparation import (
    audit_overview,
    crop_gain,
    landmark_errors,
    landmark_presence,
    volume_ratio_histogram,
)
from pekit.figures.scores import confusion_tables, roc_curves
from pekit.figures.slices import attribution_overlay, coronal, slice_grid
from pekit.figures.training import loss_curves
from pekit.voting import Vote

SHAPE = (6, 40, 48)
SPACING = (4.0, 1.0, 1.0)


@pytest.fixture
def volume():
    """Soft tissue with a vessel in front on the patient's left, near the head."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 8:32, 8:40] = 40
    hu[4, 10:16, 30:36] = 400
    return hu


@pytest.fixture
def hull():
    mask = np.zeros(SHAPE, bool)
    mask[1:5, 10:30, 10:38] = True
    return mask


BOX = np.array([[1, 5], [10, 30], [10, 38]])
LANDMARK_TABLE = pd.DataFrame(
    {"name": ["Heart", "T4"], "z": [4, 0], "y": [20, 20], "x": [24, 10], "present": [True, False]}
)


def pixels(figure):
    """The rendered figure `(rows, columns, 3)` RGB in [0,1]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)  # with its margins, unlike `to_png`
    image = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return image[..., ::-1] / 255


def count_of(figure, colour):
    return int((np.abs(pixels(figure) - to_rgb(colour)).max(axis=2) < 0.02).sum())


def labels_of(figure):
    axes = [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel())]
    return " ".join([*axes, figure.get_supxlabel(), figure.get_supylabel()])


def texts_of(figure):
    return [t.get_text() for ax in figure.axes for t in (*ax.texts, ax.title, ax._left_title)]


def log_table():
    train = pd.DataFrame(
        {"epoch": [0, 0, 1, 2], "train_loss": [0.9, 0.7, 0.5, 0.3], "lr": [0, 1, 2, 1]}
    )
    validation = pd.DataFrame({"epoch": [0, 1, 2], "validation_loss": [0.6, 0.4, 0.5]})
    return pd.concat([train, validation])


def predictions_table():
    z = np.arange(20)
    label = ((z > 5) & (z < 10)).astype(int)
    positive = pd.DataFrame({"StudyInstanceUID": "pos", "z": z, "pe_present_on_image": label})
    positive = positive.assign(hop1=0.2 + 0.3 * label, hop2=0.1 + 0.8 * label)
    negative = positive.assign(StudyInstanceUID="neg", pe_present_on_image=0, hop1=0.1, hop2=0.05)
    return pd.concat([positive, negative])


def errors_table():
    return pd.DataFrame({"name": ["T4", "Heart", "Heart"], "error_mm": [3.0, 10.0, 20.0]})


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: slice_grid(np.zeros(SHAPE), [0, 1], spacing_mm=SPACING), ("x to", "(mm)")),
        (lambda: slice_grid(np.zeros(SHAPE), [0]), ("y to the back (voxels)",)),
        (lambda: coronal(np.zeros(SHAPE), SPACING), ("z to the head (mm)", "left (mm)")),
        (
            lambda: attribution_overlay(np.zeros((1, 9, 9)), np.ones((1, 9, 9)), ["a"]),
            ("x (voxels", "y (voxels", "attribution (share"),
        ),
        (lambda: loss_curves(log_table()), ("epoch", "loss (nats)", "learning rate")),
        (
            lambda: slice_curves(predictions_table()),
            ("slice z (feet to head)", "probability of PE"),
        ),
        (
            lambda: roc_curves({"a": (np.array([0, 1]), np.array([0.2, 0.8]))}),
            ("1 - specificity", "sensitivity"),
        ),
        (lambda: confusion_tables({"a": np.eye(2, dtype=int)}), ("verdict", "truth")),
        (lambda: volume_ratio_histogram([0.2, 0.4]), ("(% of the study)", "studies")),
        (
            lambda: landmark_presence(LANDMARK_TABLE.assign(StudyInstanceUID="a")),
            ("studies with the landmark (%)",),
        ),
        (lambda: landmark_errors(errors_table()), ("distance to the true landmark (mm)",)),
        (
            lambda: study_case(predictions_table().query("StudyInstanceUID == 'pos'"), {}),
            ("slice z", "probability of PE"),
        ),
    ],
)
def test_every_figure_renders_with_named_axes(draw, said):
    figure = draw()
    assert pixels(figure).std() > 0.01
    assert all(text in labels_of(figure) for text in said)


def test_only_charts_say_that_they_show_no_patient(volume):
    rows = predictions_table().query("StudyInstanceUID == 'pos'")
    with_slices = study_case(rows, {}, [int(rows["z"].iloc[0])], volume[:1])
    images = [
        slice_grid(volume, [0]),
        coronal(volume, SPACING),
        attribution_overlay(np.zeros((1, 9, 9)), np.ones((1, 9, 9)), ["a"]),
        with_slices,
    ]
    charts = [
        loss_curves(log_table()),
        slice_curves(predictions_table()),
        roc_curves({"a": (np.array([0, 1]), np.array([0.2, 0.8]))}),
        confusion_tables({"a": np.eye(2, dtype=int)}),
        volume_ratio_histogram([0.2, 0.4]),
        landmark_errors(errors_table()),
        audit_overview(audit_table()),
        study_case(rows, {}),
    ]
    assert all(figure.patient for figure in images)
    assert not any(figure.patient for figure in charts)


def test_slices_show_only_the_given_overlays(volume, hull):
    clot = np.zeros(SHAPE, bool)
    clot[4, 11:14, 31:34] = True
    plain = slice_grid(volume, [4])
    given = {
        HULL: {"hull": hull},
        BOX_COLOUR: {"box_zyx": BOX},
        CLOT: {"clot": clot},
        LANDMARK: {"landmarks": LANDMARK_TABLE},
    }
    for colour, extra in given.items():
        assert count_of(plain, colour) == 0
        assert count_of(slice_grid(volume, [4], **extra), colour) > 20


def test_hull_is_drawn_where_it_is(volume, hull):
    axes = slice_grid(volume, [0, 4], hull=hull, spacing_mm=(4, 2, 3)).axes
    outlines = [path for c in axes[1].collections for path in c.get_paths()]
    assert not axes[0].collections  # slice 0 has no hull
    # Rows 10 to 29 at 2 mm, columns 10 to 37 at 3 mm; the outline is half a voxel outside.
    corners = np.concatenate([path.vertices for path in outlines])
    assert corners.min(axis=0).tolist() == pytest.approx([9.5 * 3, 9.5 * 2])
    assert corners.max(axis=0).tolist() == pytest.approx([37.5 * 3, 29.5 * 2])


def test_box_and_landmarks_belong_to_their_slices(volume):
    figure = slice_grid(
        volume, [0, 4], box_zyx=BOX, landmarks=LANDMARK_TABLE, spacing_mm=(10, 1, 1)
    )
    outside, inside = figure.axes
    assert outside.get_title() == "z = 0 (outside the crop box)"
    assert not outside.patches
    assert inside.patches[0].get_bbox().bounds == (9.5, 9.5, 28, 20)
    # T4 is on slice 0 but not present.
    assert "T4" not in texts_of(figure)
    assert [t.get_text() for t in inside.texts] == ["Heart"]


def test_window_sets_the_grey_of_a_voxel(volume):
    def grey(window):
        image = slice_grid(volume, [4], window=window).axes[0].images[0]
        return image.cmap(image.norm(40))[0]

    assert grey((100, 700)) == pytest.approx((40 + 250) / 700, abs=0.01)
    assert grey((-600, 1500)) == pytest.approx((40 + 1350) / 1500, abs=0.01)


def image_part(figure):
    """Pixels of the first panel without its frame and letters."""
    figure.draw_without_rendering()
    x0, y0, x1, y1 = figure.axes[0].get_position().bounds
    shown = pixels(figure)
    rows, columns = shown.shape[:2]
    top, bottom = round((1 - y0 - y1) * rows), round((1 - y0) * rows)
    return shown[top + 4 : bottom - 4, round(x0 * columns) + 4 : round((x0 + x1) * columns) - 4]


def centre_of_bright(shown):
    rows, columns = np.nonzero(shown.mean(axis=2) > 0.9)
    return rows.mean() / shown.shape[0], columns.mean() / shown.shape[1]


def test_left_is_on_the_right_front_and_head_are_up(volume):
    volume[:, :8] = -1000  # keep the letters' corners dark
    shown = image_part(slice_grid(volume, [4], window=(100, 500)))
    shown[: len(shown) // 6] = 0
    row, column = centre_of_bright(shown)
    assert row < 0.5 < column
    shown = image_part(coronal(volume, (4, 1, 1), y=12, window=(100, 500)))
    row, column = centre_of_bright(shown[:, : int(0.9 * shown.shape[1])])
    assert row < 0.5 < column


def test_coronal_names_the_present_landmarks(volume, hull):
    figure = coronal(volume, SPACING, hull=hull, box_zyx=BOX, landmarks=LANDMARK_TABLE)
    assert "Heart" in texts_of(figure)
    assert not any("T4" in text for text in texts_of(figure))
    assert "y = 20" in figure.axes[0].get_title()  # the middle of the box
    for colour in (HULL, BOX_COLOUR, LANDMARK):
        assert count_of(figure, colour) > 20


@pytest.mark.parametrize("draw", ["coronal", "axial"])
def test_names_of_near_landmarks_do_not_overlap(volume, draw):
    z, y, x = (np.full(20, middle) for middle in (4, 20, 20))
    points = pd.DataFrame({"name": LANDMARKS, "z": z, "y": y, "x": x + np.arange(20) / 10})
    points = points if draw == "coronal" else points[:6]
    if draw == "coronal":
        figure = coronal(volume, (8, 1, 8), landmarks=points)
    else:
        figure = slice_grid(volume, [4], landmarks=points)
    figure.draw_without_rendering()
    names = [t for t in figure.axes[0].texts if t.get_text() not in ("R", "L")]
    assert [t.get_text().replace("\n", " ") for t in sorted(names, key=lambda t: t.xy[0])] == (
        list(points.name)
    )
    boxes = [Text.get_window_extent(text) for text in names]  # without the lines to the points
    pairs = [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert not pairs


def test_a_landmark_outside_the_crop_lies_on_black(volume):
    point = pd.DataFrame({"name": ["Sternum Tip"], "z": [4], "y": [-15], "x": [20]})
    figure = slice_grid(volume, [4], landmarks=point)
    assert figure.axes[0].get_facecolor()[:3] == (0, 0, 0)


def test_spread_keeps_the_order_and_the_distance():
    spread_out = spread(np.array([0.0, 0.1, 0.2, 5.0, 9.9]), 1, 0, 10)
    assert spread_out.tolist() == [0, 1, 2, 5, 9.9]
    assert spread(np.array([9.0, 9.5, 9.9]), 1, 0, 10).tolist() == [8, 9, 10]
    assert spread(np.zeros(5), 7, 0, 10).tolist() == [0, 2.5, 5, 7.5, 10], "as far as it goes"


def test_a_clot_is_seen_on_a_grey_of_its_own_brightness():
    """Its outline has a black edge on both sides."""
    grey = np.full((1, 40, 40), 100)
    clot = np.zeros(grey.shape, bool)
    clot[0, 10:30, 10:30] = True
    shown = image_part(slice_grid(grey, [0], clot=clot))
    rows, columns = shown.shape[:2]
    middle = shown[rows // 8 : -rows // 8, columns // 8 : -columns // 8]
    assert (middle.max(axis=2) < 0.1).sum() > 300


def test_hops_are_told_apart_without_colour():
    figure = slice_curves(predictions_table(), n=1)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 20]
    assert len({str(line._dash_pattern) for line in curves}) == len(curves) == 2
    shown = {f"model {k}": (np.array([0, 1]), np.array([0.2, 0.8])) for k in range(6)}
    lines = roc_curves(shown).axes[0].lines[1:]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 6


def test_lines_on_white_have_contrast():
    for colour in (*HOP_COLOURS, BLUE, ORANGE, GREEN, RED, PURPLE):
        assert contrast(colour, "#ffffff") >= 3, colour


def test_slices_fill_their_rows():
    rows = {}
    for n in range(1, 9):
        figure = slice_grid(np.zeros((9, 8, 8)), range(n))
        rows[n] = figure.axes[0].get_subplotspec().get_gridspec().get_geometry()
    assert rows == {
        1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (1, 4), 5: (2, 3), 6: (2, 3), 7: (2, 4), 8: (2, 4),
    }  # fmt: skip


def test_a_png_says_what_it_shows():
    figure = slice_grid(np.zeros((2, 9, 9)), [0, 1], hull=np.ones((2, 9, 9), bool))
    said = Image.open(io.BytesIO(to_png(figure))).info["Description"]
    assert said == "Axial slices with hull"


def test_attribution_lights_up_its_place_only(volume):
    attribution = np.zeros((2, *SHAPE[1:]))
    attribution[0, 5:9, 5:9] = -3e-4  # of any scale and sign
    figure = attribution_overlay(volume[:2], attribution, ["a", "b"])
    heat = [ax.images[1] for ax in figure.axes[2:4]]
    alpha = np.asarray(heat[0].get_alpha())
    assert (alpha > 0).sum() == 16
    assert (alpha[5:9, 5:9] > 0.8).all()
    assert np.asarray(heat[1].get_alpha()).max() == 0  # no attribution, nothing lit
    assert [ax.get_title() for ax in figure.axes[:2]] == ["a", "b"]


def test_attribution_of_each_hop_has_its_row(volume):
    maps = {"hop1": np.zeros((2, *SHAPE[1:])), "hop2": np.zeros((2, *SHAPE[1:]))}
    maps["hop1"][0, 5:9, 5:9] = maps["hop2"][1, 5:7, 5:7] = 1
    figure = attribution_overlay(volume[:2], maps, ["a", "b"], caption="from zero")
    lit = [(np.asarray(ax.images[1].get_alpha()) > 0).sum() for ax in figure.axes[2:6]]
    assert lit == [16, 0, 0, 4]
    assert [figure.axes[k].get_ylabel() for k in (2, 4)] == [
        "hop 1\ny (voxels)",
        "hop 2\ny (voxels)",
    ]
    assert "from zero" in labels_of(figure)


def test_a_case_shows_slices_attributions_and_curve(volume):
    rows = predictions_table().query("StudyInstanceUID == 'pos'")
    votes = {"hop1": Vote(1, 0.55), "hop2": Vote(1, 0.5)}
    maps = {hop: np.ones((2, *SHAPE[1:])) for hop in votes}
    figure = study_case(rows, votes, [7, 9], volume[:2], maps, caption="from zero")
    assert len(figure.axes) == 7
    assert {"z = 7, PE", "hop 1, p = 0.500", "hop 2, p = 0.900"} <= set(texts_of(figure))
    upright = [line.get_xdata() for line in figure.axes[-1].lines]
    assert [x[0] for x in upright if len(x) == 2 and x[0] == x[1]] == [7, 9]
    assert "from zero" in labels_of(figure)
    assert "pos: PE, hop1 negative, hop2 positive" in texts_of(figure)
    assert len(study_case(rows, votes, [7, 9]).axes) == 1  # without images
    with pytest.raises(UserError, match="hop2 has 1 images for 2 slices"):
        study_case(rows, votes, [7, 9], volume[:2], maps | {"hop2": maps["hop2"][:1]})


def test_the_crop_gives_the_heart_a_larger_share(volume):
    heart = np.zeros(SHAPE, bool)
    heart[2:4, 15:25, 14:26] = True  # 10 x 12 of 40 x 48 voxels, then of 20 x 28
    lungs = np.zeros(SHAPE, bool)
    lungs[1:5, 12:20, 12:20] = True
    cropped = volume[1:5, 10:30, 10:38]
    figure = crop_gain(volume, lungs, heart, cropped, BOX, [2, 4])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "z = 2, whole slice: heart 6%",
        "z = 4, whole slice: lungs 3%",
        "its crop: heart 21%",
        "its crop: lungs 11%",
    ]
    assert pixels(figure).std() > 0.01
    with pytest.raises(UserError, match=r"choose slices in 1\.\.4"):
        crop_gain(volume, lungs, heart, cropped, BOX, [5])
    with pytest.raises(UserError, match="not of the box"):
        crop_gain(volume, lungs, heart, volume, BOX, [2])
    with pytest.raises(UserError, match="masks"):
        crop_gain(volume, lungs[1:], heart, cropped, BOX, [2])


def test_loss_curves_merge_the_rows_of_an_epoch():
    loss = loss_curves(log_table().assign(stacks_per_s=3.0)).axes[0]
    train, validation = loss.lines
    assert train.get_ydata().tolist() == [0.7, 0.5, 0.3]
    assert validation.get_ydata().tolist() == [0.6, 0.4, 0.5]


def test_slice_curves_show_truth_and_verdicts():
    votes = {"hop1": Vote(1, 0.6), "hop2": Vote(2, 0.5)}
    figure = slice_curves(predictions_table(), vote=votes)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [
        "pos: PE, hop1 negative, hop2 positive",
        "neg: no PE, hop1 negative, hop2 negative",
    ]
    hop1, delta, hop2 = figure.axes[0].lines[:3]
    assert hop1.get_ydata().max() == 0.5
    assert delta.get_ydata()[0] == 0.6
    assert hop2.get_ydata().max() == pytest.approx(0.9)
    shaded = figure.axes[0].collections[0].get_paths()[0].vertices
    assert shaded[shaded[:, 1] == 1][:, 0].min() == 5.5
    assert shaded[shaded[:, 1] == 1][:, 0].max() == 9.5


def test_slice_curves_of_unlabelled_studies_show_no_truth():
    table = predictions_table().assign(pe_present_on_image=-1)
    figure = slice_curves(table, hops=("hop2",), n=1)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["pos"]
    assert not figure.axes[0].collections


def test_roc_legend_gives_auroc_and_interval():
    truth, score = np.array([1, 1, 0, 0]), np.array([0.8, 0.5, 0.5, 0.1])
    figure = roc_curves({"hop2": (truth, score)}, {"hop2": "0.875 [0.500, 1.000]"})
    (entry,) = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert entry == "hop2: AUROC 0.875 [0.500, 1.000]"
    bare = roc_curves({"hop2": (truth, score)})
    assert bare.axes[0].get_legend().get_texts()[0].get_text() == "hop2: AUROC 0.875"


def test_confusion_tables_give_counts_and_shares_of_the_class():
    figure = confusion_tables({"paper": np.array([[601, 24], [15, 196]])})
    assert texts_of(figure)[:4] == ["601\n96.2%", "24\n3.8%", "15\n7.1%", "196\n92.9%"]
    assert figure.axes[0].get_title() == "paper"


def test_histogram_and_landmark_figures_count_by_hand():
    histogram = volume_ratio_histogram([0.2, 0.21, 0.61])
    assert sorted(bar.get_height() for bar in histogram.axes[0].patches)[-2:] == [1, 2]
    assert "mean 34 %, 3 studies" in histogram.axes[0].get_legend().get_texts()[0].get_text()

    both = [LANDMARK_TABLE.assign(StudyInstanceUID=s) for s in "ab"]
    both[1].loc[1, "present"] = True
    presence = landmark_presence(pd.concat(both)).axes[0]
    assert [t.get_text() for t in presence.get_yticklabels()] == ["Heart", "T4"]
    assert [bar.get_width() for bar in presence.patches] == [100, 50]

    errors = landmark_errors(errors_table()).axes[0]
    assert errors.lines[-1].get_xdata().tolist() == [15, 3]
    assert errors.get_title() == "median of all 10.0 mm"


def test_jupyter_shows_a_figure_and_nothing_stays_open():
    figure = volume_ratio_histogram(np.array([0.3]))
    shown, _ = DisplayFormatter().format(figure)
    assert shown["image/png"].startswith(b"\x89PNG")
    assert plt.get_fignums() == []


def test_every_hop_has_its_curve():
    hops = [f"hop{k}" for k in range(1, 7)]
    table = predictions_table()[["StudyInstanceUID", "z"]].assign(**dict.fromkeys(hops, 0.5))
    figure = slice_curves(table, hops=hops, n=1)
    assert len(figure.axes[0].lines) == 6


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda v: slice_grid(v, [6]), r"z_indices \[6\].*0\.\.5"),
        (lambda v: slice_grid(v, []), "z_indices"),
        (lambda v: slice_grid(v, [0], hull=v[1:]), "hull has the shape"),
        (lambda v: slice_grid(v[0], [0]), "3 axes"),
        (lambda v: coronal(v, SPACING, y=40), r"y=40.*0\.\.39"),
        (lambda v: attribution_overlay(v, v[1:], ["a"] * 6), "attribution has the shape"),
        (lambda v: attribution_overlay(v, v, ["a"]), "1 titles for 6 slices"),
        (lambda v: loss_curves(log_table().drop(columns="lr")), "lacks lr"),
        (lambda v: slice_curves(predictions_table(), hops=("hop3",)), "lacks hop3"),
        (lambda v: slice_curves(predictions_table().iloc[:0]), "empty"),
        (lambda v: confusion_tables({"a": np.eye(3)}), "a: .* 2x2"),
        (lambda v: confusion_tables({}), "nothing to draw"),
        (lambda v: volume_ratio_histogram([0.2, np.nan]), "volume ratios"),
        (lambda v: landmark_errors(errors_table().replace("T4", "Nose")), "'Nose'"),
        (lambda v: landmark_errors(errors_table().replace(3.0, np.nan)), "NaN"),
    ],
)
def test_bad_input_is_named(volume, draw, message):
    with pytest.raises(UserError, match=message):
        draw(volume)


def test_real_ct_shows_lungs_dark_inside_a_bright_chest(shared_data):
    pydicom = pytest.importorskip("pydicom")
    files = [pydicom.dcmread(f) for f in (shared_data / "chest_dicom").glob("*.dcm")]
    files.sort(key=lambda f: float(f.ImagePositionPatient[2]))
    volume = np.stack([f.pixel_array * f.RescaleSlope + f.RescaleIntercept for f in files])
    shown = image_part(slice_grid(volume, [len(volume) // 2], spacing_mm=(4, 4.2, 4.2)))
    middle = shown[len(shown) // 3 : 2 * len(shown) // 3].mean(axis=2)
    assert 0.05 < (middle < 0.05).mean() < 0.9
    assert (middle > 0.3).any()


def audit_table(**changes):
    table = pd.DataFrame(
        {
            "status": ["ok", "ok", "repaired", "excluded", "excluded"],
            "slices": [200, 240, 180, 60, None],
            "missing": [0, 2, 0, 0, None],
            "spacing_z": [1.25, 1.0, 1.25, 5.0, None],
        }
    )
    return table.assign(**changes)


def test_audit_overview_shows_heights_and_counts_the_unreadable():
    figure = audit_overview(audit_table())
    where, counts = figure.axes
    heights = [points.get_offsets().data[:, 1].tolist() for points in where.collections]
    assert heights == [[199 * 1.25, 241.0], [179 * 1.25], [59 * 5.0]]
    labels = [text.get_text() for text in where.get_legend().get_texts()]
    assert labels == ["ok: 2", "repaired: 1", "excluded: 2 (1 not readable)"]
    assert sum(bar.get_height() for bar in counts.patches) == 4
    assert "mm" in where.get_xlabel()
    with pytest.raises(UserError, match="unknown status 'odd'"):
        audit_overview(audit_table(status="odd"))
    with pytest.raises(UserError, match="no study could be read"):
        audit_overview(audit_table(slices=None))
