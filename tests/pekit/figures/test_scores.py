"""Charts of an evaluation draw the values of the tables."""

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from pekit.evaluation.published import published
from pekit.figures.base import to_png
from pekit.figures.scores import forest, reliability_curves, roc_curves

TRUTH, SCORE = np.array([1, 1, 0, 0]), np.array([0.8, 0.5, 0.5, 0.1])


def points_of(ax):
    """x, y of each marker-only line of an axis, by label."""
    return {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if line.get_linestyle() == "None" and line.get_marker() != "None"
    }


def reliability_table():
    rows = []
    for model in ("hop 1", "hop 2"):
        for forecast, value in (("raw", 0.3), ("scaled", 0.6)):
            rows.append((model, forecast, 0.0, 0.1, 0, np.nan, np.nan, np.nan, np.nan))
            rows.append((model, forecast, 0.5, 0.6, 40, 0.55, value, value - 0.1, value + 0.2))
    columns = ["model", "forecast", "bin_low", "bin_high", "slices", "predicted", "value"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high"])


def subgroup_table():
    rows = []
    for model, value in (("hop 1", 0.5), ("hop 2", 1.0)):
        rows.append((model, "all studies", "", "sensitivity", 8, value, 0.2, 0.9 + value / 10))
        rows.append((model, "location", "left", "sensitivity", 0, np.nan, np.nan, np.nan))
        rows.append((model, "all studies", "", "specificity", 9, value, 0.4, 1.0))
    columns = ["model", "subgroup", "level", "measure", "n", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def test_a_vote_is_a_dot_on_its_curve():
    figure = roc_curves({"hop 1": (TRUTH, SCORE)}, votes={"hop 1": [[601, 24], [15, 196]]})
    (dot,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == pytest.approx(24 / 625)
    assert dot.get_ydata()[0] == pytest.approx(196 / 211)


def test_published_points_name_their_source():
    figure = roc_curves({"hop 1": (TRUTH, SCORE)}, theirs=published("IV"))
    _, corner = figure.axes
    points = points_of(corner)
    assert points["Condrea et al., + hop 2"] == (pytest.approx(1 - 0.961), 0.929)
    assert points["Buls 2021, AI"] == (pytest.approx(0.05), 0.73)
    assert len(points) == 10
    for x, y in points.values():
        assert corner.get_xlim()[0] < x < corner.get_xlim()[1]
        assert corner.get_ylim()[0] < y < corner.get_ylim()[1]
    legend = corner.get_legend()
    assert legend.get_title().get_text() == "published, on other studies"
    with pytest.raises(UserError, match="lacks source"):
        roc_curves({"a": (TRUTH, SCORE)}, theirs=published("IV").drop(columns="source"))


def test_the_legend_takes_intervals_from_a_table():
    text = pd.Series({"hop 1": "0.9 [0.8, 1.0]"})
    legend = roc_curves({"hop 1": (TRUTH, SCORE)}, text).axes[0].get_legend()
    assert legend.get_title().get_text() == "95 % intervals over studies"
    (entry,) = legend.get_texts()
    assert entry.get_text() == "hop 1: AUROC 0.9 [0.8, 1.0]"


def test_reliability_has_one_panel_per_model_and_no_empty_bins():
    figure = reliability_curves(reliability_table())
    curves = figure.axes[:2]
    assert [ax.get_title() for ax in curves] == ["hop 1", "hop 2"]
    drawn = [c.lines[0] for c in curves[0].containers]
    assert [line.get_ydata().tolist() for line in drawn] == [[0.3], [0.6]]
    assert [line.get_xdata().tolist() for line in drawn] == [[0.55], [0.55]]
    counts = figure.axes[2]
    assert sorted(bar.get_height() for bar in counts.patches) == [0, 0, 40, 40]
    assert figure.get_supxlabel() == "predicted probability of PE"


def test_forest_gives_each_level_its_estimate_and_number():
    figure = forest(subgroup_table())
    sensitivity, specificity = figure.axes
    assert (sensitivity.get_xlabel(), specificity.get_xlabel()) == ("sensitivity", "specificity")
    names = [t.get_text() for t in sensitivity.get_yticklabels()]
    assert names == ["all studies", "location: left"]
    assert [t.get_text() for t in sensitivity.texts] == ["n=8", "n=0"]
    assert [t.get_text() for t in specificity.texts] == ["n=9"]
    values = [c.lines[0].get_xdata()[0] for c in sensitivity.containers]
    assert values == [0.5, 1.0]
    ends = sensitivity.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.2, 0.95])
    assert len(to_png(figure)) > 5000


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: forest(subgroup_table(), measures=["PPV"]), "none of the measures PPV"),
        (lambda: forest(subgroup_table().drop(columns="n")), "lacks n"),
        (lambda: reliability_curves(reliability_table().iloc[:0]), "empty"),
    ],
)
def test_bad_input_is_named(draw, message):
    with pytest.raises(UserError, match=message):
        draw()
