"""Published results: their arithmetic holds, and `published` returns all of them."""

import pytest

from pekit.common.errors import UserError
from pekit.evaluation.published import PAPER_PREVALENCE, TABLES, published


def test_tables_have_the_papers_rows():
    rows = {number: published(number)["row"].unique().tolist() for number in TABLES}
    assert rows["I"] == ["uncropped", "crop"]
    assert rows["II"] == ["random", "ImageNet-21K", "landmarks"]
    assert rows["III"] == ["hop 1", "hop 2"]
    assert rows["IV"][-4:] == ["baseline", "+ crop", "+ landmarks", "+ hop 2"]
    everything = published()
    assert len(everything) == sum(len(published(number)) for number in TABLES)
    assert everything.notna().all(axis=None)
    assert not everything.duplicated(["table", "row", "metric", "dataset"]).any()


def test_f1_follows_from_ppv_and_sensitivity():
    """Finds mistyped values: F1 is the harmonic mean of the two."""
    whole = published().pivot_table(index=["table", "row"], columns="metric", values="value")
    whole = whole.dropna(subset=["sensitivity", "PPV", "F1"])
    assert len(whole) == 15
    harmonic = 2 * whole["sensitivity"] * whole["PPV"] / (whole["sensitivity"] + whole["PPV"])
    assert harmonic.to_numpy() == pytest.approx(whole["F1"].to_numpy(), abs=0.004)


def test_the_rsna_rows_have_one_prevalence():
    """Sensitivity, specificity and PPV fix the share of studies with PE: 211 of 836 in each row."""
    ours = published("IV").pivot_table(index="row", columns="metric", values="value")
    for row in ("baseline", "+ crop", "+ landmarks", "+ hop 2"):
        sens, spec, ppv = ours.loc[row, ["sensitivity", "specificity", "PPV"]]
        assert 211 * sens / (211 * sens + 625 * (1 - spec)) == pytest.approx(ppv, abs=0.007)


def test_the_papers_prevalence_is_that_of_its_counts():
    counts = published("").set_index(["row", "metric"])["value"]["+ hop 2"]
    with_pe = counts["TP"] + counts["FN"]
    assert with_pe / (with_pe + counts["TN"] + counts["FP"]) == PAPER_PREVALENCE


def test_unknown_table_is_named():
    with pytest.raises(UserError, match="no table 'V'"):
        published("V")
