"""The official metric, the consistency rules with their repair, and the submission file."""

from itertools import product
from math import log

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from submissions.consistency import inconsistencies, repair
from submissions.metric import (
    EXAM_WEIGHTS,
    IMAGE_WEIGHT,
    SUBMISSION_LABELS,
    submission_ids,
    weighted_log_loss,
)
from submissions.writer import (
    exam_probabilities,
    image_probabilities,
    label_frequencies,
    verdict_probability,
    with_unpredicted,
    write_submission,
)


def exam(**above):
    """Labels of one exam, 0.1 unless given."""
    return {label: above.get(label, 0.1) for label in SUBMISSION_LABELS}


POSITIVE = exam(rv_lv_ratio_lt_1=0.9, leftsided_pe=0.8)
NEGATIVE = exam(negative_exam_for_pe=0.9)


def submission_of(exams, images):
    table = pd.DataFrame.from_dict(exams, orient="index")
    rows = [(study, f"{study}-{k}", p) for study, ps in images.items() for k, p in enumerate(ps)]
    return table, pd.DataFrame(rows, columns=["StudyInstanceUID", "SOPInstanceUID", "probability"])


def rules_broken(labels, images):
    return inconsistencies(*submission_of({"s": labels}, {"s": images})).rule.tolist()


@pytest.fixture
def truth():
    """Study p: two slices, one positive, right-sided, RV/LV < 1. Study n: one slice, negative."""
    zeros = dict.fromkeys(SUBMISSION_LABELS, 0)
    p = zeros | {"rightsided_pe": 1, "rv_lv_ratio_lt_1": 1}
    n = zeros | {"negative_exam_for_pe": 1}
    return pd.DataFrame(
        [
            {"StudyInstanceUID": "p", "SOPInstanceUID": "p1", "pe_present_on_image": 1} | p,
            {"StudyInstanceUID": "n", "SOPInstanceUID": "n1", "pe_present_on_image": 0} | n,
            {"StudyInstanceUID": "p", "SOPInstanceUID": "p2", "pe_present_on_image": 0} | p,
        ]
    )


@pytest.fixture
def submission(truth):
    ids = submission_ids(pd.Index(["p", "n"]), truth.SOPInstanceUID)
    table = pd.DataFrame({"id": ids, "label": 0.5})
    given = {"p_rightsided_pe": 0.8, "n_negative_exam_for_pe": 0.9, "p1": 0.7, "p2": 0.2, "n1": 0.9}
    table["label"] = table.id.map(given).fillna(0.5)
    return table


def test_weights_are_the_competitions():
    assert sum(EXAM_WEIGHTS.values()) == pytest.approx(1, abs=1e-9)


def test_score_by_hand(truth, submission):
    total = sum(EXAM_WEIGHTS.values())
    right, negative = EXAM_WEIGHTS["rightsided_pe"], EXAM_WEIGHTS["negative_exam_for_pe"]
    exams = -right * log(0.8) - (total - right) * log(0.5) - negative * log(0.9)
    exams += -(total - negative) * log(0.5)
    # q = 1/2 for study p, 0 for study n, whose image (0.9) must not count.
    images = IMAGE_WEIGHT * 0.5 * (-log(0.7) - log(0.8))
    expected = (exams + images) / (2 + IMAGE_WEIGHT * 1)
    assert weighted_log_loss(truth, submission) == pytest.approx(expected, rel=1e-12)
    shuffled = submission.sample(frac=1, random_state=0)
    assert weighted_log_loss(truth.iloc[::-1], shuffled) == pytest.approx(expected, rel=1e-12)


def test_a_wrong_certainty_costs_much_but_not_infinity(truth, submission):
    sure = submission.assign(label=submission.label.where(submission.id != "p_rightsided_pe", 0))
    gain = weighted_log_loss(truth, sure) - weighted_log_loss(truth, submission)
    cost = EXAM_WEIGHTS["rightsided_pe"] * (15 * log(10) + log(0.8)) / (2 + IMAGE_WEIGHT)
    assert gain == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.iloc[1:], "lacks 1 ids, the first is p_negative_exam_for_pe"),
        (lambda s: pd.concat([s, s.tail(1)]), "1 ids occur twice, the first is p2"),
        (lambda s: s.replace({"id": {"p2": "q2"}}), "lacks 1 ids, the first is p2"),
        (lambda s: pd.concat([s, s.tail(1).assign(id="x")]), "unknown 1 ids, the first is x"),
        (lambda s: s.assign(label=s.label.where(s.id != "n1")), "id n1: label nan"),
        (lambda s: s.assign(label=s.label.where(s.id != "n1", 1.1)), r"id n1: label 1\.1"),
        (lambda s: s.rename(columns={"label": "p"}), "columns id,label"),
    ],
)
def test_bad_submissions_are_named(truth, submission, change, message):
    with pytest.raises(UserError, match=message):
        weighted_log_loss(truth, change(submission))


def test_bad_truth_is_named(truth, submission):
    differing = truth.copy()
    differing.loc[2, "central_pe"] = 1
    with pytest.raises(UserError, match="study p: central_pe differs"):
        weighted_log_loss(differing, submission)
    with pytest.raises(UserError, match="chronic_pe"):
        weighted_log_loss(truth.drop(columns="chronic_pe"), submission)
    with pytest.raises(UserError, match="p1 twice"):
        weighted_log_loss(pd.concat([truth, truth.head(1)]), submission)
    with pytest.raises(UserError, match="indeterminate has values"):
        weighted_log_loss(truth.assign(indeterminate=-1), submission)


@pytest.mark.parametrize(
    ("labels", "images", "rules"),
    [
        (POSITIVE, [0.2, 0.6], []),
        (NEGATIVE, [0.2, 0.4], []),
        (NEGATIVE, [0.2, 0.5], []),  # "> 0.5" is strict
        (exam(indeterminate=0.9), [0.1], []),
        (POSITIVE | {"rv_lv_ratio_gte_1": 0.6}, [0.6], ["exactly one RV/LV"]),
        (POSITIVE | {"rv_lv_ratio_lt_1": 0.5}, [0.6], ["exactly one RV/LV"]),
        (POSITIVE | {"leftsided_pe": 0.5}, [0.6], ["at least one location"]),
        (POSITIVE | {"chronic_pe": 0.6}, [0.6], []),
        (
            POSITIVE | {"chronic_pe": 0.6, "acute_and_chronic_pe": 0.6},
            [0.6],
            ["not both chronic"],
        ),
        (POSITIVE | {"indeterminate": 0.6}, [0.6], ["neither negative nor indeterminate"]),
        (NEGATIVE, [0.6], ["exactly one RV/LV", "at least one location", "neither negative"]),
        (NEGATIVE | {"indeterminate": 0.6}, [0.1], ["exactly one of negative"]),
        (exam(), [0.1], ["exactly one of negative"]),
        (NEGATIVE | {"chronic_pe": 0.6}, [0.1], ["no RV/LV, location or chronicity"]),
    ],
)
def test_each_rule(labels, images, rules):
    found = rules_broken(labels, images)
    assert len(found) == len(rules)
    assert all(rule in name for rule, name in zip(rules, found, strict=True))


def test_inconsistencies_name_the_study():
    tables = submission_of(
        {"b": exam(), "a": NEGATIVE, "c": POSITIVE}, {"a": [0.6], "b": [0.1], "c": [0.9]}
    )
    found = inconsistencies(*tables)
    assert found.StudyInstanceUID.tolist() == ["b", "a", "a", "a"]


def random_submission(n, seed):
    rng = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(n)]
    exams = {name: dict(zip(SUBMISSION_LABELS, rng.random(9), strict=True)) for name in names}
    return submission_of(exams, {name: rng.random(rng.integers(1, 6)) ** 2 for name in names})


def test_repair_makes_every_exam_consistent():
    tables = random_submission(300, seed=0)
    assert inconsistencies(*tables).StudyInstanceUID.nunique() > 250
    repaired = repair(*tables)
    assert inconsistencies(*repaired).empty
    assert repaired[0].index.equals(tables[0].index)
    assert repaired[1].SOPInstanceUID.equals(tables[1].SOPInstanceUID)


def test_repair_leaves_consistent_exams_as_they_are():
    tables = submission_of({"a": POSITIVE, "b": NEGATIVE}, {"a": [0.9, 0.51], "b": [0.5, 0.0]})
    exams, images = repair(*tables)
    pd.testing.assert_frame_equal(exams, tables[0])
    pd.testing.assert_frame_equal(images, tables[1])


def test_repair_by_hand():
    # Nearly a negative exam: one image just above the cut is lowered, nothing else moves.
    exams, images = repair(*submission_of({"s": NEGATIVE}, {"s": [0.52, 0.1]}))
    assert images.probability.tolist() == [0.5, 0.1]
    assert exams.loc["s"].to_dict() == NEGATIVE
    # Clearly a positive exam without a positive image: its highest image is raised.
    exams, images = repair(*submission_of({"s": POSITIVE}, {"s": [0.1, 0.49, 0.2]}))
    assert images.probability.tolist() == pytest.approx([0.1, 0.5, 0.2], abs=2e-6)
    assert images.probability[1] > 0.5
    assert exams.loc["s"].to_dict() == POSITIVE
    # Both RV/LV labels above: lowering 0.55 of weight 0.23 is cheaper than 0.9 of weight 0.08.
    both = POSITIVE | {"rv_lv_ratio_gte_1": 0.55}
    exams, _ = repair(*submission_of({"s": both}, {"s": [0.9]}))
    assert exams.loc["s", ["rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1"]].tolist() == [0.5, 0.9]


def test_repair_weighs_as_the_metric_does():
    # 0.8 is further from the cut than 0.7, but weighs a third.
    both = POSITIVE | {"rv_lv_ratio_gte_1": 0.7, "rv_lv_ratio_lt_1": 0.8}
    exams, _ = repair(*submission_of({"s": both}, {"s": [0.9]}))
    assert exams.loc["s", ["rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1"]].tolist() == [0.7, 0.5]
    # One certain image of ten has a weight of 0.095: less than the three labels it contradicts.
    nearly = exam(negative_exam_for_pe=0.55, rv_lv_ratio_lt_1=0.4, leftsided_pe=0.3)
    exams, images = repair(*submission_of({"s": nearly}, {"s": [0.95] + 9 * [0.0]}))
    assert exams.loc["s"].to_dict() == nearly
    assert images.probability.max() == 0.5


def expected_loss(given, images, repaired, repaired_images):
    """Expected loss of a repaired exam under the given probabilities, one term at a time."""

    def term(p, q):
        return -(p * log(q) + (1 - p) * log(1 - q))

    loss = sum(EXAM_WEIGHTS[name] * term(given[name], repaired[name]) for name in given)
    pairs = zip(images, repaired_images, strict=True)
    return loss + IMAGE_WEIGHT * np.mean(images) * sum(term(p, q) for p, q in pairs)


def test_no_consistent_version_is_cheaper():
    exams, images = random_submission(4, seed=8)
    repaired_exams, repaired_images = repair(exams, images)
    for study in exams.index:
        given = exams.loc[study].to_dict()
        of_study = images.StudyInstanceUID == study
        before = images.probability[of_study].tolist()
        found = expected_loss(
            given,
            before,
            repaired_exams.loc[study].to_dict(),
            repaired_images.probability[of_study].tolist(),
        )
        # Every label and image may stay or go to either side of the cut.
        choices = [sorted({p, 0.5, 0.500001}) for p in (*given.values(), *before)]
        cheapest = np.inf
        raised = int(np.argmax(before))
        lowered = [min(p, 0.5) for p in before]
        up = [max(p, 0.500001) if k == raised else p for k, p in enumerate(before)]
        for values in product(*choices[:9]):
            labels = dict(zip(given, values, strict=True))
            for version in (lowered, up):
                if not rules_broken_fast(labels, version):
                    cheapest = min(cheapest, expected_loss(given, before, labels, version))
        assert found == pytest.approx(cheapest, abs=1e-9)


def rules_broken_fast(p, images):
    """The rules of the competition, written a second time, for one exam."""

    def n(*names):
        return sum(p[name] > 0.5 for name in names)

    rv = n("rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1")
    location = n("leftsided_pe", "rightsided_pe", "central_pe")
    chronic = n("chronic_pe", "acute_and_chronic_pe")
    neither = n("negative_exam_for_pe", "indeterminate")
    if max(images) > 0.5:
        return not (rv == 1 and location >= 1 and chronic <= 1 and neither == 0)
    return not (neither == 1 and rv + location + chronic == 0)


@pytest.mark.parametrize(
    ("exams", "images", "message"),
    [
        ({"a": NEGATIVE}, {"b": [0.1]}, "study a has only exam labels or only images"),
        (
            {"a": NEGATIVE | {"central_pe": np.nan}},
            {"a": [0.1]},
            "study a: an exam label is not in",
        ),
        ({"a": NEGATIVE}, {"a": [0.1, 1.5]}, r"slice a-1: probability 1\.5 is not in \[0,1\]"),
    ],
)
def test_bad_probabilities_are_named(exams, images, message):
    with pytest.raises(UserError, match=message):
        repair(*submission_of(exams, images))


def test_label_frequencies_and_exam_labels_by_hand():
    studies = pd.DataFrame(0, index=range(8), columns=list(SUBMISSION_LABELS))
    studies.loc[:2, "negative_exam_for_pe"] = 1
    studies.loc[3, "indeterminate"] = 1
    studies.loc[4:, "rightsided_pe"] = 1
    studies.loc[4:6, "rv_lv_ratio_lt_1"] = 1
    studies.loc[7, "rv_lv_ratio_gte_1"] = 1
    frequencies = label_frequencies(studies)
    assert frequencies["indeterminate"] == 0.25
    assert frequencies["rv_lv_ratio_lt_1"] == 0.75
    labels = exam_probabilities(pd.Series({"a": 0.8, "b": 0.0}), frequencies)
    assert labels.loc["a", "rv_lv_ratio_lt_1"] == pytest.approx(0.6)
    assert labels.loc["a", "negative_exam_for_pe"] == pytest.approx(0.2 * 0.75)
    assert labels.loc["b", "indeterminate"] == 0.25
    assert list(labels.columns) == list(SUBMISSION_LABELS)
    with pytest.raises(UserError, match="with and without PE"):
        label_frequencies(studies.iloc[4:])
    with pytest.raises(UserError, match="study a: P"):
        exam_probabilities(pd.Series({"a": np.nan}), frequencies)


def test_verdict_probability_by_hand():
    truth, verdict = pd.Series([1, 1, 0, 0, 0, 1]), pd.Series([1, 1, 1, 0, 0, 0])
    given = pd.Series({"a": True, "b": False})
    found = verdict_probability(given, truth, verdict)
    # PE in 2 of 3 with a positive verdict, 1 of 3 with a negative one; one of each class added.
    assert found.to_dict() == {"a": 3 / 5, "b": 2 / 5}


@pytest.fixture
def written():
    tables = submission_of({"b": POSITIVE, "a": NEGATIVE}, {"b": [0.2, 0.9], "a": [0.123456789]})
    ids = submission_ids(pd.Index(["a", "b"]), pd.Series(["a-0", "b-1", "b-0"]))
    return *tables, pd.DataFrame({"id": ids, "label": 0.5})


def test_submission_file_is_in_the_samples_order(tmp_path, written):
    exams, images, sample = written
    path = tmp_path / "submission.csv"
    write_submission(path, images, exams, sample)
    table = pd.read_csv(path)
    assert table.columns.tolist() == ["id", "label"]
    assert table.id.tolist() == sample.id.tolist()
    assert table.id[:3].tolist() == [
        "a_negative_exam_for_pe",
        "b_negative_exam_for_pe",
        "a_rv_lv_ratio_gte_1",
    ]
    given = table.set_index("id").label
    assert given["b_leftsided_pe"] == 0.8
    assert given[["b-0", "b-1"]].tolist() == [0.2, 0.9]
    assert given["a-0"] == pytest.approx(0.123456789, rel=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]


def test_repaired_submission_survives_rounding(tmp_path):
    exams, images = repair(*random_submission(50, seed=3))
    ids = submission_ids(exams.index, images.SOPInstanceUID)
    sample = pd.DataFrame({"id": ids, "label": 0.5})
    write_submission(tmp_path / "submission.csv", images, exams, sample)
    # Above the cut in memory but not in seven digits: the check reads the file.
    exams.iloc[:] = list(NEGATIVE.values())
    images = images.assign(probability=0.1)
    write_submission(tmp_path / "fine.csv", images, exams, sample)
    exams.iloc[0, SUBMISSION_LABELS.index("negative_exam_for_pe")] = 0.5 + 1e-12
    with pytest.raises(UserError, match=r"1 exams break.*study s0"):
        write_submission(tmp_path / "rounded.csv", images, exams, sample)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, i, s: (e, i.iloc[1:], s), "lacks 1 ids, the first is b-0"),
        (lambda e, i, s: (e.drop("a"), i, s), "lacks 9 ids"),
        (lambda e, i, s: (e, i, s.iloc[1:]), "unknown 1 ids"),
        (lambda e, i, s: (e, i.assign(probability=0.1), s), r"study b \(negative exam: exactly"),
        (lambda e, i, s: (e.assign(central_pe=2.0), i, s), r"central_pe: label 2\.0"),
    ],
)
def test_no_bad_submission_gets_the_name(tmp_path, written, change, message):
    exams, images, sample = change(*written)
    path = tmp_path / "submission.csv"
    path.write_text("before")
    with pytest.raises(UserError, match=message):
        write_submission(path, images, exams, sample)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_image_probabilities_take_one_hop_and_never_the_truth():
    predictions = pd.DataFrame(
        {
            "StudyInstanceUID": ["a"],
            "SOPInstanceUID": ["a1"],
            "hop1": [0.2],
            "hop2": [0.3],
            "pe_present_on_image": [1],
        }
    )
    table = image_probabilities(predictions, "hop2")
    assert table.to_dict("records") == [
        {"StudyInstanceUID": "a", "SOPInstanceUID": "a1", "probability": 0.3}
    ]
    with pytest.raises(UserError, match="lack hop3"):
        image_probabilities(predictions, "hop3")


def test_predictions_of_another_test_set_are_refused():
    """Other studies at the same path, as in a competition's hidden test set."""
    images = pd.DataFrame({"StudyInstanceUID": "a", "SOPInstanceUID": ["a-0", "a-1"]})
    images["probability"] = 0.2
    listed = images.iloc[:, :2]
    more = pd.concat([listed, listed.assign(SOPInstanceUID=["b-0", "b-1"])], ignore_index=True)
    filled = with_unpredicted(images, more, frequency=0.03)
    assert filled["probability"].tolist() == [0.2, 0.2, 0.03, 0.03]
    with pytest.raises(UserError, match=r"2 of 2 predicted slices are not in"):
        with_unpredicted(images, listed.assign(SOPInstanceUID=["b-0", "b-1"]), frequency=0.03)
