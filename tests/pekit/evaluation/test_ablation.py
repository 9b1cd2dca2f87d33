"""Tables of an ablation: means over seeds, intervals, steps, and runs that cannot be compared."""

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from pekit.evaluation.ablation import AblationSettings, ablation, read_inputs, write_inputs
from pekit.evaluation.metrics import SUMMARY, study_metrics
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.evaluation.published import published
from pekit.figures.ablation import ablation_forest
from pekit.voting import best_vote, study_scores, study_verdicts

TABLES = {"III": {"hop 1": "two/hop1", "hop 2": "two/hop2"}, "IV": {"weak": "one/hop1"}}
SETTINGS = AblationSettings(tables=TABLES, n_boot=400)


def run(stage: str, seed: int, signal: dict[str, float], level: str = "") -> pd.DataFrame:
    """60 studies of 8 slices; the stronger a hop's signal, the better it separates PE."""
    truth = np.random.default_rng(5).random(60) < 0.4
    rng = np.random.default_rng((seed, len(stage)))
    rows = []
    for study, positive in enumerate(truth):
        label = np.zeros(8, int)
        label[2:5] = positive
        part = "validation" if study % 2 else "test"
        base = rng.normal(size=8)
        for z in range(8):
            hops = {h: 1 / (1 + np.exp(-(base[z] + s * label[z]))) for h, s in signal.items()}
            row = {"stage": stage, "level": level, "seed": seed, "StudyInstanceUID": f"s{study:02}"}
            rows.append(row | {"z": z, "part": part, "pe_present_on_image": label[z], **hops})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    runs = [run("two", seed, {"hop1": 1.0, "hop2": 4.0}) for seed in (0, 1, 2)]
    return pd.concat([*runs, *(run("one", seed, {"hop1": 1.0}) for seed in (0, 1, 2))])


@pytest.fixture(scope="module")
def tables(predictions) -> dict[str, pd.DataFrame]:
    return ablation(predictions, SETTINGS)


def test_a_value_is_the_mean_over_seeds_of_the_metric(predictions, tables):
    by_seed = []
    for seed in (0, 1, 2):
        of_run = predictions[(predictions["stage"] == "two") & (predictions["seed"] == seed)]
        chosen, reported = (of_run[of_run["part"] == p] for p in ("validation", "test"))
        vote = best_vote(probs_by_study(chosen, "hop2"), study_truth(chosen))
        probs = probs_by_study(reported, "hop2")
        verdict, score = study_verdicts(probs, vote), study_scores(probs, vote.mu)
        by_seed.append(study_metrics(study_truth(reported), verdict, score)["value"])
    expected = pd.concat(by_seed, axis=1)
    arms = tables["arms"].query("row == 'hop 2' and protocol == 'held-out'").set_index("metric")
    for metric in SUMMARY:
        assert arms.loc[metric, "value"] == pytest.approx(expected.loc[metric].mean(), abs=1e-12)
        assert arms.loc[metric, "sd"] == pytest.approx(expected.loc[metric].std(), abs=1e-12)
        assert arms.loc[metric, "low"] <= arms.loc[metric, "value"] <= arms.loc[metric, "high"]
    assert set(arms["seeds"]) == {3}


def test_the_paper_chooses_on_what_it_reports(tables):
    f1 = (
        tables["arms"]
        .query("metric == 'F1' and protocol != 'both'")
        .pivot(index="row", columns="protocol", values="value")
    )
    assert (f1["paper"] >= f1["held-out"]).all()
    assert f1.loc["weak", "paper"] > f1.loc["weak", "held-out"]


def test_a_step_is_the_difference_of_the_means_with_one_test_per_seed(tables):
    value = tables["arms"].query("protocol == 'held-out' and table == 'III'")
    value = value.set_index(["row", "metric"])["value"]
    steps = tables["steps"].set_index("metric")
    assert set(steps["row"]) == {"hop 2"}
    assert set(steps["against"]) == {"hop 1"}
    for metric in ("F1", "AUROC"):
        difference = value["hop 2", metric] - value["hop 1", metric]
        assert steps.loc[metric, "difference"] == pytest.approx(difference)
        assert steps.loc[metric, "low"] > 0, "the signal is four times as strong"
        p = [float(v) for v in steps.loc[metric, "p_by_seed"].split()]
        assert len(p) == 3
        assert max(p) < 0.06


def test_the_interval_holds_the_spread_of_seeds_too(predictions):
    """The same seed three times has no spread; different seeds widen the interval."""
    alike = pd.concat([run("two", 0, {"hop1": 1, "hop2": 2}).assign(seed=s) for s in range(3)])
    differ = pd.concat(
        [run("two", 0, {"hop1": 1, "hop2": g}).assign(seed=s) for s, g in enumerate((0, 2, 5))]
    )
    settings = AblationSettings(tables={"III": {"hop 2": "two/hop2"}}, n_boot=400)

    def width(table: pd.DataFrame) -> float:
        row = ablation(table, settings)["arms"].query(
            "metric == 'AUROC' and protocol == 'held-out'"
        )
        return float((row["high"] - row["low"]).iloc[0])

    assert width(differ) > 1.3 * width(alike)


def test_every_table_ends_with_calling_every_study_positive(predictions, tables):
    test = predictions.query("part == 'test' and stage == 'one' and seed == 0")
    share = study_truth(test).mean()
    rows = tables["arms"].query("row == 'all positive'").set_index(["table", "metric"])
    assert rows.index.tolist() == [(table, metric) for table in TABLES for metric in SUMMARY]
    assert set(rows["protocol"]) == {"both"}
    assert set(rows["seeds"]) == {0}
    for table in TABLES:
        value = rows.loc[table, "value"]
        assert value["sensitivity"] == 1
        assert value["specificity"] == 0
        assert value["PPV"] == pytest.approx(share)
        assert value["F1"] == pytest.approx(2 * share / (1 + share))
        assert value["AUROC"] == pytest.approx(0.5)
        assert value["F1 at 25 %"] == pytest.approx(422 / 1047)
        shown = tables["summary"].query("table == @table")
        assert shown["row"].iloc[-1] == "all positive"
        assert shown["seeds"].tolist() == [3] * (len(shown) - 1) + [0]
        assert shown.iloc[-1]["PPV"].startswith(f"{share:.3f} [")
    assert set(rows["studies"]) == {30}
    assert set(rows["with_pe"]) == {round(30 * share)}


def test_the_figure_sets_the_papers_f1_at_its_own_prevalence(tables):
    arms = tables["arms"].query("protocol == 'held-out' and table == 'III'")
    figure = ablation_forest(arms, published("III"), "mean of 3 seeds")
    crosses = {
        ax.get_title(): [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "x"]
        for ax in figure.axes
    }
    share = 100 * arms["with_pe"].iloc[0] / 30
    assert crosses == {
        f"F1 ({share:.1f} % with PE)": [],
        "F1 at 25 %": [[0.894, 0.910]],
        "AUROC": [],
    }
    assert figure.get_suptitle() == "mean of 3 seeds"
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["published, other studies", "ours"]


def test_levels_are_evaluated_separately(predictions):
    hard = predictions.assign(level="difficulty 2")
    hard["hop2"] = hard["hop1"]
    both = pd.concat([predictions.assign(level="difficulty 1"), hard])
    arms = ablation(both, SETTINGS)["arms"].query("metric == 'AUROC' and protocol == 'held-out'")
    value = arms.set_index(["level", "row"])["value"]
    assert value["difficulty 2", "hop 2"] == value["difficulty 2", "hop 1"]
    assert value["difficulty 1", "hop 2"] > value["difficulty 1", "hop 1"]
    figure = ablation_forest(arms)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["hop 1", "hop 2", "weak"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: p[(p["stage"] != "two") | (p["seed"] != 1)], None),
        (lambda p: p[p["stage"] != "one"], "'one/hop1'.*runs are two"),
        (lambda p: p[(p["stage"] != "one") | (p["seed"] != 1)], r"'weak' \[0, 2\]"),
        (lambda p: p[(p["stage"] != "one") | (p["StudyInstanceUID"] != "s00")], "other studies"),
        (lambda p: p.drop(columns="part"), "lack part"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(predictions, change, named):
    tables = {"IV": {"weak": "one/hop1", "hop 2": "two/hop2"}} if named else TABLES
    settings = SETTINGS.model_copy(update={"tables": tables, "n_boot": 20})
    if named is None:  # different tables may have different seeds
        rows = 3 * 2 + 2  # three arms by two protocols, and the trivial one of two tables
        assert len(ablation(change(predictions), settings)["arms"]) == rows * len(SUMMARY)
    else:
        with pytest.raises(UserError, match=named):
            ablation(change(predictions), settings)


def test_the_folder_gives_the_same_tables_again(predictions, tables, tmp_path):
    write_inputs(tmp_path, predictions, SETTINGS)
    again = ablation(*read_inputs(tmp_path))
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table)
    (tmp_path / "ablation.json").write_text('{"table": {}}')
    with pytest.raises(UserError, match=r"ablation.json.*no setting 'table'"):
        read_inputs(tmp_path)
