"""Study heads beside the vote: the same studies, the same two protocols."""

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from pekit.evaluation.evaluate import EvaluationSettings, evaluate
from pekit.evaluation.exam_labels import heads_beside_vote, pe_probability
from pekit.evaluation.protocols import halves

# P(PE) of studies with and without PE, in either half.
P = {(0, True): 0.9, (0, False): 0.6, (1, True): 0.5, (1, False): 0.2}


def studies(part: str, n: int = 4) -> pd.Series:
    """Truth of n studies with PE and n without."""
    names = [f"{part}{i}" for i in range(2 * n)]
    return pd.Series([i < n for i in range(2 * n)], index=names)


def slices_of(part: str, truth: pd.Series, frozen: pd.Series) -> pd.DataFrame:
    """Two slices per study, of which the second has probability 0."""
    rows = [
        {
            "StudyInstanceUID": s,
            "z": z,
            "part": part,
            "pe_present_on_image": int(truth[s] and not z),
        }
        | {"frozen": 0.0 if z else frozen[s]}
        for s in truth.index
        for z in (0, 1)
    ]
    return pd.DataFrame(rows)


def of(table: pd.DataFrame, protocol: str, model: str) -> pd.DataFrame:
    return table[(table["protocol"] == protocol) & (table["model"] == model)]


def f1(found: dict[str, pd.DataFrame], protocol: str, model: str) -> float:
    return of(found["study_metrics"], protocol, model).set_index("metric")["value"]["F1"]


def test_where_heads_are_reported_on_the_studies_of_the_choice_they_are_halved():
    """By hand. One threshold for all: TP 4, FP 2, FN 0, F1 = 8/10.

    The halves have thresholds of 0.75 and 0.35. Each applied to the other half: of half 0 all are
    positive, of half 1 none, so TP 2, FP 2, FN 2, F1 = 4/8.
    """
    truth = studies("val")
    p = pd.Series({s: P[half, truth[s]] for s, half in halves(truth).items()})
    settings = EvaluationSettings(choose_on="val", report_on="val", n_boot=50)
    found = heads_beside_vote(slices_of("val", truth, p), {"lstm": p}, settings)
    rows = found["summary"][["protocol", "model"]].to_numpy().tolist()
    assert rows == [
        ["held-out", "vote"],
        ["held-out", "lstm"],
        ["paper", "vote"],
        ["paper", "lstm"],
        ["both", "all positive"],
    ]
    for model in ("vote", "lstm"):
        assert f1(found, "paper", model) == pytest.approx(0.8)
        assert f1(found, "held-out", model) == pytest.approx(0.5)
        names = of(found["thresholds"], "held-out", model)["chosen_on"].tolist()
        assert names == ["val, half 1", "val, half 2"]


def test_the_threshold_of_another_part_is_held_out():
    """Validation gives the middle of 0.5 and 0.2; on test all studies of P(PE) 0.4 are positive."""
    validation, test = studies("val", 1), studies("test", 1)
    p = pd.Series({"val0": 0.5, "val1": 0.2, "test0": 0.9, "test1": 0.4})
    slices = pd.concat([slices_of("val", validation, p), slices_of("test", test, p)])
    settings = EvaluationSettings(choose_on="val", report_on="test", n_boot=50)
    found = heads_beside_vote(slices, {"gru": p}, settings)
    for model in ("vote", "gru"):
        assert of(found["verdicts"], "held-out", model)["verdict"].tolist() == [1, 1]
        assert of(found["verdicts"], "paper", model)["verdict"].tolist() == [1, 0]
        (chosen,) = of(found["thresholds"], "held-out", model).itertuples()
        assert (chosen.mu, chosen.delta) == (1, pytest.approx(0.35))
        assert (chosen.chosen_on, chosen.reported_on) == ("val", "test")


def test_the_vote_is_that_of_an_evaluation():
    truth = studies("val", 10)
    p = pd.Series(np.random.default_rng(0).random(20), index=truth.index)
    slices = slices_of("val", truth, p)
    settings = EvaluationSettings(choose_on="val", report_on="val", n_boot=20)
    found = heads_beside_vote(slices, {}, settings)
    long = slices.rename(columns={"frozen": "prob"}).assign(model="vote")
    tables = evaluate(long, pd.DataFrame(), settings).tables
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, tables[name])


def test_a_head_without_a_study_is_named():
    truth = studies("val")
    p = pd.Series(0.5, index=truth.index)
    settings = EvaluationSettings(choose_on="val", report_on="val", n_boot=50)
    with pytest.raises(UserError, match="tcn: 1 studies have no prediction, such as val3"):
        heads_beside_vote(slices_of("val", truth, p), {"tcn": p.drop("val3")}, settings)


def test_p_pe_is_that_of_neither_label():
    exams = pd.DataFrame(
        {"StudyInstanceUID": ["a"], "negative_exam_for_pe": [0.4], "indeterminate": [0.5]}
    )
    assert pe_probability(exams).to_dict() == {"a": pytest.approx(0.6 * 0.5)}
    with pytest.raises(UserError, match="needs the exam labels indeterminate"):
        pe_probability(exams.drop(columns="indeterminate"))
