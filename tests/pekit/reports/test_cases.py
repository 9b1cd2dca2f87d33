"""Error analysis: the studies with a wrong verdict, their order, and what is shown of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy import BELOW, SIDE, toy_store

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL
from pekit.dataset.stacks import resize_slices, volume_stacks
from pekit.evaluation.errors import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    facts,
    most_telling,
    study_errors,
    top_slices,
)
from pekit.explain import explain
from pekit.hop import HopNet
from pekit.model.encoder import Encoder
from pekit.reports.cases import Explainer, error_sections
from pekit.reports.page import render_page
from pekit.voting import Vote

VOTE = Vote(2, 0.5)
BOX = {"box_z0": 1, "box_z1": 4, "box_y0": 0, "box_y1": 9, "box_x0": 0, "box_x1": 9}


def table(**studies):
    """Predictions of studies given as (labels, probabilities)."""
    rows = [
        pd.DataFrame({"StudyInstanceUID": name, "z": range(4), SLICE_LABEL: labels, "hop2": probs})
        for name, (labels, probs) in studies.items()
    ]
    return pd.concat(rows, ignore_index=True)


NO, PE = [0, 0, 0, 0], [1, 1, 0, 0]
PREDICTIONS = table(
    right=(PE, [0.9, 0.9, 0.1, 0.1]),
    alarm=(NO, [0.1, 0.7, 0.8, 0.1]),  # its second highest is the score: 0.7
    louder=(NO, [0.1, 0.95, 0.9, 0.1]),
    moved=(NO, [0.1, 0.6, 0.6, 0.1]),
    missed=(PE, [0.9, 0.2, 0.1, 0.1]),
    dark=(PE, [0.1, 0.3, 0.9, 0.1]),
    quiet=(NO, [0.9, 0.1, 0.1, 0.1]),
)
FLAGS = {"moved": {"qa_motion": 1}, "missed": {"central_pe": 1, "chronic_pe": 1}, "dark": {}}
STUDIES = pd.DataFrame(
    [
        {"StudyInstanceUID": name, "reasons": "", **BOX, **FLAGS.get(name, {})}
        for name in PREDICTIONS["StudyInstanceUID"].unique()
    ]
)
STUDIES.loc[STUDIES["StudyInstanceUID"] == "dark", "reasons"] = "gap of 2 slices after z=1"


@pytest.fixture
def errors():
    return study_errors(PREDICTIONS, STUDIES, "hop2", VOTE)


def test_errors_are_grouped_and_the_most_confident_come_first(errors):
    shown = errors[["StudyInstanceUID", "kind", "group"]].to_numpy().tolist()
    assert shown == [
        ["louder", FALSE_POSITIVE, "no flag"],
        ["alarm", FALSE_POSITIVE, "no flag"],
        ["moved", FALSE_POSITIVE, "motion"],
        ["missed", FALSE_NEGATIVE, "central"],
        ["dark", FALSE_NEGATIVE, "no location"],
    ]
    assert errors["score"].tolist() == [0.9, 0.7, 0.6, 0.2, 0.3]
    # At delta 0.5 the log-odds are 0.
    assert errors["confidence"].tolist() == pytest.approx(
        [np.log(9), np.log(7 / 3), np.log(1.5), np.log(4), np.log(7 / 3)]
    )
    assert errors["slices with PE"].tolist() == [0, 0, 0, 2, 2]
    assert errors["of them cropped away"].tolist() == [0, 0, 0, 1, 1]


def test_an_error_in_one_line(errors):
    lines = [facts(error) for _, error in errors.iterrows()]
    assert lines[2] == "false positive, score 0.600; motion"
    assert lines[3] == (
        "false negative, score 0.200; 2 slices with PE; 1 of them cropped away; PE central; chronic"
    )
    assert lines[4].endswith("no flags; audit: gap of 2 slices after z=1")


def test_the_study_to_look_at_first(errors):
    assert most_telling(PREDICTIONS, errors, "hop2", VOTE) == "louder"
    assert most_telling(PREDICTIONS, errors.iloc[2:], "hop2", VOTE) == "missed"
    others = PREDICTIONS[PREDICTIONS["StudyInstanceUID"] != "louder"]
    assert most_telling(others, errors.iloc[:0], "hop2", VOTE) == "right"


def test_no_errors_are_an_empty_table():
    none = study_errors(table(a=(NO, [0.1] * 4), b=(PE, [0.9] * 4)), _studies("ab"), "hop2", VOTE)
    assert none.empty
    assert "group" in none
    assert "gets no study wrong" in render_page("t", sections=error_sections(none, []))


def _studies(names):
    return pd.DataFrame([{"StudyInstanceUID": name, **BOX} for name in names])


def test_bad_predictions_are_named():
    with pytest.raises(UserError, match="b is predicted but not in the store"):
        study_errors(table(a=(NO, [0.1] * 4), b=(PE, [0.9] * 4)), _studies("a"), "hop2", VOTE)
    unlabelled = table(a=([0, -1, 0, 0], [0.1] * 4))
    with pytest.raises(UserError, match="study a has slices without a label"):
        study_errors(unlabelled, _studies("a"), "hop2", VOTE)


def test_top_slices_are_apart_and_may_have_to_be_positive():
    rows = pd.DataFrame(
        {"z": range(6), "hop2": [0.1, 0.8, 0.9, 0.7, 0.6, 0.2], SLICE_LABEL: [0, 0, 0, 1, 1, 1]}
    )
    assert top_slices(rows, "hop2", n=2) == [2, 4]
    assert top_slices(rows, "hop2", n=3, apart=1) == [2, 1, 3]
    assert top_slices(rows, "hop2", only_labelled=True, n=5) == [3, 5]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    store, _ = toy_store(tmp_path_factory.mktemp("toy"), n=4)
    studies = store.studies.assign(spacing_z=2.0, spacing_y=1.0, spacing_x=1.0, reasons="")
    studies.to_parquet(store.root / "studies.parquet")
    rows = store.slices.assign(hop1=0.2, hop2=0.1)
    rows.loc[rows["z"] == 9, "hop2"] = 0.7  # a false alarm in each, where no clot is
    rows.loc[rows["z"] == 7, "hop2"] = 0.3
    rows.loc[rows["z"] == 0, "hop2"] = 0.6  # outside the crop box
    return store, rows


@pytest.fixture(scope="module")
def explainer(toy):
    torch.manual_seed(0)
    net = HopNet([Encoder("tf_efficientnet_lite0", init="package")]).add_hop()
    votes = {"hop1": Vote(1, 0.5), "hop2": Vote(1, 0.65)}
    return Explainer(*toy, votes, net, 32, "saliency")


def test_a_case_holds_each_hops_own_attribution(explainer, toy):
    store, _ = toy
    case = explainer.case("000000000001", facts="why")
    assert case.slices == [9, 7]
    assert case.view.start == 9
    assert case.view.facts == "why"
    assert "no baseline" in case.view.caption
    assert case.hu.shape == (2, SIDE, SIDE)
    np.testing.assert_array_equal(case.hu, store.read_volume("000000000001")[[7, 5]])
    stacks = volume_stacks(resize_slices(store.read_volume("000000000001"), 32))[[9 - BELOW]]
    for k, hop in enumerate(("hop1", "hop2")):
        one = explain(explainer.net, stacks, "saliency", hop=k).maps[0]
        assert case.attributions[hop].maps[0].sum() == pytest.approx(
            one.sum() * (SIDE / 32) ** 2, rel=0.1
        )
    assert explainer.case("000000000001", n=1, only_labelled=True).slices == [7]


def test_share_of_attribution_inside_the_clots(explainer):
    clots = np.zeros((10, SIDE, SIDE), bool)
    clots[6, :, : SIDE // 4] = True  # in the slice below the explained one, which the stack holds
    case = explainer.case("000000000001", n=1, clots=clots)
    focus = pd.DataFrame(case.focus())
    assert focus["hop"].tolist() == ["hop1", "hop2"]
    assert focus["z"].tolist() == [9, 9]
    assert focus["chance"].tolist() == [0.25, 0.25]
    share = case.attributions["hop1"].maps[0][:, : SIDE // 4].sum()
    share /= case.attributions["hop1"].maps[0].sum()
    assert focus["inside_clots"].iloc[0] == pytest.approx(share)


def test_the_page_with_and_without_images(explainer, toy):
    store, rows = toy
    errors = study_errors(rows, store.studies, "hop2", explainer.votes["hop2"])
    assert errors["kind"].tolist() == [FALSE_POSITIVE] * 2
    cases = [explainer.case(study) for study in errors["StudyInstanceUID"]]
    page = render_page("Error analysis", sections=error_sections(errors, cases))
    assert page.count("<iframe") == page.count('<img src="data:image/png') == 2
    assert "False positive: no flag (2)" in page
    assert "script-src" in page
    bare = render_page("Error analysis", sections=error_sections(errors, cases, images=False))
    assert "<iframe" not in bare
    assert "image/jpeg" not in bare
    assert bare.count("top slices") == 0
    assert bare.count('<img src="data:image/png') == 2  # the curves
    without = render_page("Error analysis", sections=error_sections(errors, cases, side=0))
    assert "<iframe" not in without
    assert without.count("top slices") == 2 * 2


def test_without_a_network_there_is_no_attribution(explainer):
    bare = Explainer(explainer.store, explainer.predictions, explainer.votes)
    case = bare.case("000000000000")
    assert case.attributions == {}
    assert case.view.attributions == {}
    assert case.figure().axes
