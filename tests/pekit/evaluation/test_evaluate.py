"""`evaluate`: the contents of its tables, and that the same inputs give the same tables."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, roc_auc_score
from toy_cohort import cohort

from pekit.common.errors import UserError
from pekit.evaluation.calibration import apply_temperature
from pekit.evaluation.evaluate import EvaluationSettings, evaluate, read_inputs, write_inputs
from pekit.evaluation.paired import delong
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.voting import Vote, best_vote, study_verdicts

TABLES = {
    "thresholds", "study_metrics", "optimism", "summary", "confusion", "paired", "slice_metrics",
    "temperatures", "calibration", "reliability", "subgroups", "verdicts",
}  # fmt: skip
SETTINGS = {
    "apart": EvaluationSettings(n_boot=100),
    "same": EvaluationSettings(n_boot=100, choose_on="test"),
}


@pytest.fixture(scope="module")
def data():
    return cohort(seed=3)


@pytest.fixture(scope="module")
def found(data):
    return {
        name: evaluate(data.long(*settings.parts), data.studies, settings)
        for name, settings in SETTINGS.items()
    }


def one(table, **keys):
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1, keys
    return table.iloc[0]


@pytest.mark.parametrize("case", SETTINGS)
def test_every_table_has_models_and_both_protocols(found, case):
    tables = found[case].tables
    assert set(tables) == TABLES
    for name, table in tables.items():
        models = ["hop 2", "control"] if name == "paired" else ["hop 1", "hop 2", "control"]
        models += ["all positive"] if name in ("study_metrics", "summary") else []
        assert table["model"].unique().tolist() == models, name
        if name == "optimism":
            assert {"paper", "held-out"} <= set(table)
        elif name == "slice_metrics":
            assert set(table["protocol"]) == {"both"}
        else:
            assert {"paper", "held-out"} <= set(table["protocol"]), name


@pytest.mark.parametrize("case", SETTINGS)
def test_nothing_is_nan_without_a_note(found, case):
    for name, table in found[case].tables.items():
        if "note" in table:
            lacking = table[table.drop(columns="note").isna().any(axis=1)]
            assert (lacking["note"] != "").all(), name
        else:
            assert table.notna().all(axis=None), name


@pytest.mark.parametrize("case", SETTINGS)
def test_metrics_follow_from_the_verdicts(found, case):
    tables = found[case].tables
    verdicts = tables["verdicts"]
    for (protocol, model), rows in verdicts.groupby(["protocol", "model"]):
        assert len(rows) == 30
        keys = {"protocol": protocol, "model": model}
        counts = one(tables["confusion"], **keys)[["TN", "FP", "FN", "TP"]].tolist()
        assert counts == confusion_matrix(rows["truth"], rows["verdict"]).ravel().tolist()
        f1 = one(tables["study_metrics"], **keys, metric="F1")
        assert f1["value"] == pytest.approx(f1_score(rows["truth"], rows["verdict"]))
        auroc = one(tables["study_metrics"], **keys, metric="AUROC")
        assert auroc["value"] == pytest.approx(roc_auc_score(rows["truth"], rows["score"]))
        sens = one(tables["study_metrics"], **keys, metric="sensitivity")
        everyone = one(tables["subgroups"], **keys, subgroup="all studies", measure="sensitivity")
        assert (
            everyone[["value", "low", "high"]].tolist() == sens[["value", "low", "high"]].tolist()
        )
        text = one(tables["summary"], **keys)["sensitivity"]
        assert text == f"{sens['value']:.3f} [{sens['low']:.3f}, {sens['high']:.3f}]"


def test_votes_are_those_of_their_parts(data, found):
    table = data.predictions
    for part, case, protocol in (
        ("validation", "apart", "held-out"),
        ("test", "apart", "paper"),
        ("test", "same", "paper"),
    ):
        rows = table[table["part"] == part]
        vote = best_vote(probs_by_study(rows, "hop2"), study_truth(rows))
        shown = one(found[case].tables["thresholds"], protocol=protocol, model="hop 2")
        assert Vote(int(shown["mu"]), float(shown["delta"])) == vote
        assert shown["chosen_on"] == part
        test = table[table["part"] == "test"]
        calls = study_verdicts(probs_by_study(test, "hop2"), vote)
        verdicts = (
            found[case].tables["verdicts"].query("protocol == @protocol and model == 'hop 2'")
        )
        assert verdicts["verdict"].tolist() == calls.astype(int).tolist()
    validation = table[table["part"] == "validation"]
    chosen = best_vote(probs_by_study(validation, "hop2"), study_truth(validation))
    assert found["apart"].votes["hop 2"] == chosen
    shown = one(found["same"].tables["thresholds"], protocol="paper", model="hop 2")
    assert found["same"].votes["hop 2"] == Vote(int(shown["mu"]), float(shown["delta"]))


def test_each_half_uses_the_vote_of_the_other(found):
    shown = found["same"].tables["thresholds"].query("protocol == 'held-out' and model == 'hop 1'")
    assert shown["chosen_on"].tolist() == ["test, half 1", "test, half 2"]
    assert shown["reported_on"].tolist() == ["test, half 2", "test, half 1"]
    assert shown["reported_studies"].sum() == 30


def test_optimism_is_paper_less_held_out(found):
    for evaluation in found.values():
        metrics, optimism = (evaluation.tables[n] for n in ("study_metrics", "optimism"))
        for row in optimism.itertuples():
            paper, held_out = (
                one(metrics, protocol=p, model=row.model, metric=row.metric)["value"]
                for p in ("paper", "held-out")
            )
            assert row.optimism == pytest.approx(paper - held_out)
        assert len(optimism) == 3 * 9


@pytest.mark.parametrize("case", SETTINGS)
def test_calling_every_study_positive_by_hand(found, case):
    """15 of 30 studies have PE; at the paper's prevalence 211 of 836."""
    tables = found[case].tables
    rows = tables["study_metrics"].query("model == 'all positive'").set_index("metric")
    assert set(rows["protocol"]) == {"both"}
    value = rows["value"]
    assert value["sensitivity"] == 1
    assert value["specificity"] == 0
    assert value["PPV"] == value["AUROC"] == value["AP"] == 0.5
    assert value["F1"] == pytest.approx(2 * 0.5 / 1.5)
    assert value["PPV at 25 %"] == pytest.approx(211 / 836)
    assert value["F1 at 25 %"] == pytest.approx(422 / 1047)
    assert np.isnan(value["NPV"])
    assert rows.loc["NPV", "note"] == "undefined: every verdict is positive"
    assert one(tables["summary"], model="all positive")["NPV"] == "undefined"
    assert set(found[case].votes) == {"hop 1", "hop 2", "control"}


def test_models_are_tested_against_the_first(data, found):
    tables = found["apart"].tables
    assert set(tables["paired"]["against"]) == {"hop 1"}
    a, b = (
        tables["verdicts"]
        .query("protocol == 'held-out' and model == @m")
        .set_index("StudyInstanceUID")
        for m in ("hop 1", "control")
    )
    keys = {"protocol": "held-out", "model": "control"}
    row = one(tables["paired"], **keys, measure="AUROC")
    assert row["p"] == delong(a["truth"], a["score"], b["score"]).p
    row = one(tables["paired"], **keys, measure="sensitivity")
    pe = a["truth"] == 1
    only_a = int((a["verdict"] > b["verdict"])[pe].sum())
    only_b = int((a["verdict"] < b["verdict"])[pe].sum())
    assert row["difference"] == pytest.approx((only_b - only_a) / pe.sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert row["p"] == pytest.approx(p)
    slices = one(tables["paired"], protocol="both", model="control", measure="slice AUROC")
    test = [t.query("part == 'test'") for t in (data.predictions, data.control)]
    a, b = (roc_auc_score(t["pe_present_on_image"], t["hop1"]) for t in test)
    assert slices["difference"] == pytest.approx(b - a)
    # Holm over two models: the smaller p doubles, the larger one is at least that.
    both = tables["paired"].query("protocol == 'held-out' and measure == 'AUROC'").sort_values("p")
    small = min(1, 2 * both["p"].iloc[0])
    assert both["p_holm"].tolist() == pytest.approx([small, max(small, both["p"].iloc[1])])


def test_temperature_depends_on_the_chosen_studies_only(data, found):
    settings = SETTINGS["apart"]
    long = data.long(*settings.parts)
    tables = found["apart"].tables
    changed = long.copy()
    reported = changed["part"] == "test"
    changed.loc[reported, "prob"] = changed.loc[reported, "prob"] ** 2
    after = evaluate(changed, data.studies, settings).tables
    keys = {"protocol": "held-out", "model": "hop 1"}
    t = one(tables["temperatures"], **keys)["temperature"]
    assert one(after["temperatures"], **keys)["temperature"] == t
    keys["protocol"] = "paper"
    assert one(after["temperatures"], **keys)["temperature"] != t
    test = data.predictions.query("part == 'test'")
    scaled = apply_temperature(test["hop1"].to_numpy(), t)
    row = one(tables["calibration"], protocol="held-out", model="hop 1", metric="Brier")
    brier = brier_score_loss(test["pe_present_on_image"], scaled)
    assert row["value"] == pytest.approx(brier)


def test_same_inputs_give_the_same_tables_also_from_the_folder(data, tmp_path):
    settings = EvaluationSettings(n_boot=50, criterion="sensitivity_at_specificity", at=0.9)
    long = data.long(*settings.parts)
    first = evaluate(long, data.studies, settings).tables
    write_inputs(tmp_path, long, data.studies, settings)
    predictions, studies, read = read_inputs(tmp_path)
    assert read == settings
    second = evaluate(predictions, studies, read).tables
    for name, table in first.items():
        path = tmp_path / f"{name}.csv"
        table.to_csv(path, index=False)
        pd.testing.assert_frame_equal(table, second[name], check_exact=True)
        again = tmp_path / "again.csv"
        second[name].to_csv(again, index=False)
        assert path.read_bytes() == again.read_bytes(), name


def test_one_changed_probability_shows(data, found):
    settings = SETTINGS["apart"]
    long = data.long(*settings.parts)
    before = found["apart"].tables
    row = long.index[(long["part"] == "test") & (long["model"] == "hop 2")][7]
    long.loc[row, "prob"] = 1 - long.loc[row, "prob"]
    after = evaluate(long, data.studies, settings).tables
    assert not before["calibration"].equals(after["calibration"])
    assert not before["slice_metrics"].equals(after["slice_metrics"])


def test_one_model_without_labels_is_enough(data):
    settings = EvaluationSettings(n_boot=20)
    long = data.long(*settings.parts)
    long = long[long["model"] == "hop 1"].drop(columns="SOPInstanceUID")
    tables = evaluate(long, pd.DataFrame(), settings).tables
    assert len(tables["paired"]) == 0
    assert tables["subgroups"]["subgroup"].unique().tolist() == ["all studies", "slices with PE"]


def test_what_cannot_be_evaluated_is_named(data):
    settings = SETTINGS["apart"]
    long = data.long(*settings.parts)
    with pytest.raises(UserError, match=r"hop 1: study .* probability nan"):
        evaluate(long.assign(prob=np.nan), data.studies, settings)
    with pytest.raises(UserError, match="no study of part 'test' has predictions"):
        evaluate(long[long["part"] == "validation"], data.studies, settings)
    with pytest.raises(UserError, match="has no exam labels"):
        evaluate(long, data.studies.iloc[:3], settings)
    with pytest.raises(UserError, match=r"needs a target specificity in \[0,1\], got None"):
        evaluate(long, data.studies, EvaluationSettings(criterion="sensitivity_at_specificity"))
    with pytest.raises(UserError, match="criterion = 'f2'"):
        EvaluationSettings(criterion="f2")


def test_a_broken_folder_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"predictions\.parquet does not exist"):
        read_inputs(tmp_path)
    settings = SETTINGS["apart"]
    write_inputs(tmp_path, data.long(*settings.parts), data.studies, settings)
    (tmp_path / "evaluation.json").write_text(json.dumps({"choose": "validation"}))
    with pytest.raises(UserError, match=r"evaluation\.json.*no setting 'choose'"):
        read_inputs(tmp_path)
