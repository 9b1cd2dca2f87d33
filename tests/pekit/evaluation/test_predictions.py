"""Predictions that can be evaluated, and all those that cannot."""

import numpy as np
import pandas as pd
import pytest
from toy_cohort import SLICES, cohort

from pekit.common.errors import UserError
from pekit.common.files import write_json, write_table
from pekit.evaluation.predictions import LONG, check_long, long_predictions, read_predictions


@pytest.fixture(scope="module")
def good():
    return cohort()


def test_one_long_table_of_the_parts_that_are_used(good):
    long = good.long("validation", "test")
    assert tuple(long) == LONG
    assert long["model"].unique().tolist() == ["hop 1", "hop 2", "control"]
    assert len(long) == 3 * (24 + 30) * SLICES
    assert set(good.long("test", "test")["part"]) == {"test"}
    first = long[long["model"] == "hop 2"].set_index("SOPInstanceUID")["prob"]
    source = good.predictions.set_index("SOPInstanceUID")["hop2"]
    assert first.to_dict() == source.loc[first.index].to_dict()
    shuffled = good.predictions.sample(frac=1, random_state=0)
    again = long_predictions({"hop 1": (shuffled, "hop1")}, good.split, good.slices, ["test"])
    pd.testing.assert_frame_equal(again, good.long("test").query("model == 'hop 1'"))
    check_long(long, ("validation", "test"))


def test_other_parts_may_hold_anything(good):
    """Competition studies have neither labels nor a place in the split."""
    extra = good.predictions.iloc[:3].assign(part="competition", pe_present_on_image=-1)
    table = pd.concat([good.predictions, extra])
    long = long_predictions({"hop 1": (table, "hop1")}, good.split, good.slices, ["test"])
    assert len(long) == 30 * SLICES


def at(table, study, column, value):
    """One value of the study's first slice changed."""
    table = table.copy()
    row = table.index[table["StudyInstanceUID"] == study][0]
    table[column] = table[column].astype(float if column == "hop1" else object)
    table.loc[row, column] = value
    return table


CASES = {
    "a study is missing": (
        lambda t: t[t["StudyInstanceUID"] != "tes003"],
        "hop 1: 1 of 30 studies of 'test' have no predictions, such as tes003",
    ),
    "a study of another part": (
        lambda t: t.assign(part=t["part"].where(t["StudyInstanceUID"] != "val001", "test")),
        "hop 1: study val001 is in part 'validation', not in 'test'",
    ),
    "a study of no part": (
        lambda t: t.assign(
            StudyInstanceUID=t["StudyInstanceUID"].where(t["StudyInstanceUID"] != "tes003", "new")
        ),
        "hop 1: study new is not in the split",
    ),
    "a study twice": (
        lambda t: pd.concat([t, t[t["StudyInstanceUID"] == "tes003"]]),
        "study tes003: slice z=0 is predicted twice",
    ),
    "a slice twice under another z": (
        lambda t: pd.concat([t, t[t["StudyInstanceUID"] == "tes003"].iloc[:1].assign(z=99)]),
        "study tes003: slice z=99 is predicted twice",
    ),
    "a slice is missing": (
        lambda t: t[t["SOPInstanceUID"] != "tes003.4"],
        "study tes003 has slices without a prediction",
    ),
    "a slice of no study": (
        lambda t: pd.concat(
            [t, t[t["SOPInstanceUID"] == "tes003.4"].assign(SOPInstanceUID="x", z=77)]
        ),
        "study tes003 has predicted slices that the store lacks",
    ),
    "NaN": (lambda t: at(t, "tes003", "hop1", np.nan), r"study tes003: slice probability nan"),
    "above 1": (lambda t: at(t, "tes003", "hop1", 1.5), r"tes003: slice probability 1\.5 is not"),
    "below 0": (lambda t: at(t, "tes003", "hop1", -0.1), r"tes003: slice probability -0\.1"),
    "no label": (
        lambda t: at(t, "tes003", "pe_present_on_image", -1),
        "study tes003 has slices without a label",
    ),
    "another label": (
        lambda t: at(t, "tes003", "pe_present_on_image", 0),
        "study tes003: pe_present_on_image differs from the prepared study's",
    ),
    "another z": (lambda t: at(t, "tes003", "z", 50), "study tes003: z differs"),
    "no such hop": (lambda t: t.drop(columns="hop1"), "hop 1: the predictions lack hop1"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_evaluated_is_named(good, case):
    change, message = CASES[case]
    bad = change(good.predictions)
    with pytest.raises(UserError, match=message):
        long_predictions({"hop 1": (bad, "hop1")}, good.split, good.slices, ["validation", "test"])


def test_a_folder_of_another_split_is_refused(good, tmp_path):
    write_table(tmp_path / "predictions.parquet", good.predictions)
    write_json(tmp_path / "manifest.json", {"inputs": {"split": "41bb82"}})
    pd.testing.assert_frame_equal(read_predictions(tmp_path, "41bb82"), good.predictions)
    with pytest.raises(UserError, match=r"another split \(41bb82.*cafe"):
        read_predictions(tmp_path, "cafe")


def test_a_part_that_the_split_lacks_is_named(good):
    with pytest.raises(UserError, match="no part 'holdout': it has test, train, validation"):
        good.long("holdout")
    with pytest.raises(UserError, match="no models"):
        long_predictions({}, good.split, good.slices, ["test"])


LONG_CASES = {
    "no rows": (lambda t: t.iloc[:0], "empty"),
    "no column": (lambda t: t.drop(columns="prob"), "lack prob"),
    "another part": (lambda t: t.assign(part="train"), "study tes000 is in part 'train'"),
    "two parts": (
        lambda t: t.assign(part=["validation", *t["part"].iloc[1:]]),
        "hop 1: study tes000 is in two parts",
    ),
    "one class": (
        lambda t: t.assign(pe_present_on_image=0),
        "all 30 studies of 'test' are without PE",
    ),
    "one class of PE": (
        lambda t: t[t["StudyInstanceUID"].str[-1].astype(int) % 2 == 1],
        "all 15 studies of 'test' are with PE",
    ),
    "twice": (lambda t: pd.concat([t, t.iloc[:1]]), "hop 1: study tes000: slice z=0 is"),
    "NaN": (lambda t: t.assign(prob=np.nan), "slice probability nan"),
    "another study of one model": (
        lambda t: t[(t["model"] != "control") | (t["StudyInstanceUID"] != "tes001")],
        "control and hop 1 have other studies",
    ),
    "another label of one model": (
        lambda t: t.assign(
            pe_present_on_image=t["pe_present_on_image"].where(t["model"] != "control", 0)
        ),
        "control and hop 1 have other studies, slices or labels",
    ),
}


@pytest.mark.parametrize("case", LONG_CASES)
def test_a_long_table_that_cannot_be_evaluated_is_named(good, case):
    change, message = LONG_CASES[case]
    with pytest.raises(UserError, match=message):
        check_long(change(good.long("test")), ("validation", "test"))
