"""The split: stratified, deterministic, frozen, no study in two parts."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest

from data_prep.split import make_split, split_balance
from data_prep.split.shared import read_shared
from data_prep.split.strata import STRATA, exam_type, stratum
from pekit.common.errors import UserError
from pekit.dataset.split import freeze_split, read_split

# 2,211 positive exams, of which left 1,544, right 1,875 and central 401, as in RSNA's.
RSNA_SIDES = {
    "right": 590, "left+right": 1000, "left": 220, "central+left": 44, "central+left+right": 280,
    "central+right": 5, "central": 72,
}  # fmt: skip


def cohort(negative=60, indeterminate=6, excluded=4, sides=None) -> pd.DataFrame:
    """Studies with labels; `sides` counts positive exams, the first `excluded` negative ones are
    excluded and the next is repaired."""
    sides = {"right": 12, "left": 10, "left+right": 8} if sides is None else sides
    strata = {"negative": negative, "indeterminate": indeterminate}
    strata |= {f"positive, {name}": n for name, n in sides.items()}
    table = pd.DataFrame({"stratum": np.repeat(list(strata), list(strata.values()))})
    table["StudyInstanceUID"] = [f"{i:012x}" for i in range(len(table))]
    table["negative_exam_for_pe"] = (table.stratum == "negative").astype(int)
    table["indeterminate"] = (table.stratum == "indeterminate").astype(int)
    for side in ("left", "right", "central"):
        name = "central_pe" if side == "central" else f"{side}sided_pe"
        table[name] = table.stratum.str.contains(side).astype(int)
    table["status"] = "ok"
    table.loc[: excluded - 1, "status"] = "excluded"
    table.loc[excluded, "status"] = "repaired"
    return table


def draw(table: pd.DataFrame, **changes) -> pd.DataFrame:
    return make_split(table, **{"validation": 18, "test": 0.1, "folds": 5, "seed": 0} | changes)


def parts_of(table: pd.DataFrame, **changes) -> pd.DataFrame:
    return draw(table, **changes).merge(table, on="StudyInstanceUID")


def rsna() -> pd.DataFrame:
    return cohort(4911, 157, 429, RSNA_SIDES)


def test_strata_from_labels():
    table = cohort(sides=dict.fromkeys(RSNA_SIDES, 1) | {"no side": 1})
    assert (stratum(table) == table.stratum).all()
    assert set(table.stratum) == set(STRATA)
    assert exam_type(table).value_counts().to_dict() == {
        "negative": 60,
        "positive": 8,
        "indeterminate": 6,
    }


def test_sizes_and_exclusions():
    split = parts_of(cohort())
    # 96 studies, 4 of them excluded; a tenth of 92 is 9.
    assert split["part"].value_counts().to_dict() == {"train": 65, "validation": 18, "test": 9}
    assert "excluded" not in set(split.status)
    assert "repaired" in set(split.status)
    assert set(split.part[split.stratum == "indeterminate"]) == {"train"}


def test_parts_hold_their_share_of_each_stratum():
    # 80 studies may be held out, and each fourth is.
    table = cohort(44, 6, 0, {"right": 20, "left": 4, "left+right": 8, "central": 4})
    split = parts_of(table, validation=20, test=0)
    counts = split[split.part == "validation"].stratum.value_counts().to_dict()
    assert counts == {
        "negative": 11,
        "positive, right": 5,
        "positive, left+right": 2,
        "positive, left": 1,
        "positive, central": 1,
    }


def test_rare_neighbours_share_what_each_alone_is_too_few_for():
    # Four central strata of one study each, and one in four is held out: one of them is.
    rare = ("central+left", "central+left+right", "central+right", "central")
    table = cohort(36, 0, 0, dict.fromkeys(rare, 1))
    for seed in range(10):
        split = parts_of(table, validation=10, test=0, seed=seed)
        assert split.stratum[split.part == "validation"].str.contains("central").sum() == 1


def test_papers_sizes_and_balance():
    table = rsna()
    assert len(table) == 7279
    start = time.perf_counter()
    split = draw(table, validation=836, test=0, folds=5)
    balance = split_balance(table, split)
    assert time.perf_counter() - start < 1
    # 6,850 studies are left, 14 more than the paper's 6000 + 836: it left 14 indeterminate exams
    # out of its validation part; here all indeterminate exams are in the training part.
    assert balance.loc["all", "train"] == 6014
    assert balance.loc["all", "validation"] == 836
    assert balance.loc["all", "excluded"] == 429
    assert balance.loc["indeterminate", ["train", "validation"]].tolist() == [157, 0]
    # 836 of the 6,693 that may be held out, of each stratum.
    for name in balance.index.drop(["all", "indeterminate"]):
        n = balance.loc[name, ["train", "validation"]].sum()
        assert abs(balance.loc[name, "validation"] - n * 836 / 6693) < 1
    assert balance.loc["positive, central", "validation"] == pytest.approx(72 * 836 / 6693, abs=1)
    percent = 100 * balance.loc["negative", "validation"] / 836
    assert balance.loc["negative", "validation_percent"] == pytest.approx(percent)
    assert "test" not in balance


def test_random_cohorts_have_each_study_once_and_even_parts():
    rng = np.random.default_rng(0)
    for seed in range(60):
        sides = {name: int(rng.integers(0, rng.choice([2, 5, 40]))) for name in RSNA_SIDES}
        table = cohort(int(rng.integers(10, 200)), int(rng.integers(0, 9)), 5, sides)
        table["StudyInstanceUID"] = rng.permutation(table.StudyInstanceUID)
        used = table[table.status != "excluded"]
        shared = set(rng.choice(used.StudyInstanceUID, size=3, replace=False))
        keep = bool(rng.integers(2))
        free = used[(used.indeterminate == 0) & ~(used.StudyInstanceUID.isin(shared) & keep)]
        n_test, n_validation = (int(n) for n in rng.integers(0, len(free) // 2, size=2))
        folds = int(rng.integers(1, 8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            split = make_split(
                table, n_validation, n_test, folds, seed, shared=shared, keep_shared_in_train=keep
            )

        assert split.StudyInstanceUID.tolist() == sorted(used.StudyInstanceUID)
        sizes = split.part.value_counts().reindex(["train", "validation", "test"], fill_value=0)
        held_out = n_validation + n_test
        assert sizes.tolist() == [len(used) - held_out, n_validation, n_test]
        assert set(split.StudyInstanceUID[split.shared == 1]) == shared
        held = split[split.part != "train"].merge(table, on="StudyInstanceUID")
        assert held.StudyInstanceUID.isin(free.StudyInstanceUID).all()
        assert (held.fold == -1).all()
        train = split[split.part == "train"].merge(table, on="StudyInstanceUID")
        assert train.fold.between(0, folds - 1).all()
        for key in (train.stratum, exam_type(train)):
            counts = train.groupby([key, "fold"]).size().unstack(fill_value=0)
            counts = counts.reindex(columns=range(folds), fill_value=0)
            assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
        counts = train.fold.value_counts().reindex(range(folds), fill_value=0)
        assert counts.max() - counts.min() <= 1
        for key in (stratum, exam_type):
            total = key(free).value_counts()
            got = key(held[held.part == "test"]).value_counts().reindex(total.index, fill_value=0)
            assert ((got - total * n_test / len(free)).abs() < 1).all()
            left, rest = total - got, len(free) - n_test
            got = key(held[held.part == "validation"]).value_counts()
            got = got.reindex(total.index, fill_value=0)
            assert ((got - left * n_validation / rest).abs() < 1).all()


def test_independent_of_row_order_and_dependent_on_the_seed():
    table = cohort()
    split = draw(table)
    pd.testing.assert_frame_equal(draw(table.sample(frac=1, random_state=3)), split)
    assert not draw(table, seed=1).equals(split)


def test_each_study_is_as_likely_to_be_held_out():
    table = cohort(6, 0, 0, {"left": 3, "central": 1})
    n = 400
    times = sum((draw(table, validation=3, test=1, seed=s).part != "train") for s in range(n))
    assert np.allclose(times / n, 0.4, atol=0.08)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"validation": 80, "test": 20}, "leave nothing to train on: 86 studies"),
        ({"validation": 1.5}, "validation = 1.5"),
        ({"test": -1}, "test = -1"),
        ({"folds": 0}, "folds = 0"),
        (
            {"validation": 80, "test": 0, "shared": [f"{i:012x}" for i in range(10, 20)],
             "keep_shared_in_train": True},
            "76 studies are neither excluded nor indeterminate nor shared",
        ),
    ],
)  # fmt: skip
def test_impossible_splits_are_refused(changes, problem):
    with pytest.raises(UserError, match=problem):
        draw(cohort(), **changes)


def test_bad_tables_are_refused():
    table = cohort()
    with pytest.raises(UserError, match="lacks the columns status"):
        draw(table.drop(columns="status"))
    with pytest.raises(UserError, match="lacks the columns central_pe"):
        draw(table.drop(columns="central_pe"))
    with pytest.raises(UserError, match="study 000000000000 occurs twice"):
        draw(pd.concat([table, table[:1]]))
    table["leftsided_pe"] = table["leftsided_pe"].astype(float)
    table.loc[9, "leftsided_pe"] = np.nan
    with pytest.raises(UserError, match="study 000000000009: leftsided_pe is nan, neither 0 nor 1"):
        draw(table)


def test_shared_studies_are_marked_counted_and_left_where_they_fall():
    table = cohort()
    plain = draw(table)
    assert (plain.shared == 0).all()
    validation = plain.StudyInstanceUID[plain.part == "validation"].tolist()
    train = plain.StudyInstanceUID[plain.part == "train"].tolist()
    with pytest.warns(UserWarning, match="2 of 18 validation studies are in another data set"):
        split = draw(table, shared=[*validation[:2], train[0]])
    pd.testing.assert_frame_equal(split.drop(columns="shared"), plain.drop(columns="shared"))
    assert set(split.StudyInstanceUID[split.shared == 1]) == {*validation[:2], train[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(table, shared=train[:3])
        kept = draw(table, shared=validation, keep_shared_in_train=True)
    assert set(kept.part[kept.shared == 1]) == {"train"}
    assert kept.part.value_counts().to_dict() == plain.part.value_counts().to_dict()


@pytest.mark.parametrize(
    "text",
    [
        "00000000000a\n\n 000000000003 \n00000000000a\n",
        "\ufeffStudyInstanceUID\r\n00000000000a\r\n000000000003\r\n",
        'site,StudyInstanceUID\n"A, B",00000000000a\nC, 000000000003\n',
    ],
)
def test_list_of_shared_studies(tmp_path, text):
    path = tmp_path / "shared.csv"
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_shared(path, cohort()) == ["000000000003", "00000000000a"]


def test_unknown_shared_studies_are_said_without_their_uids(tmp_path):
    path = tmp_path / "shared.txt"
    path.write_text("000000000003\nffffffffffff\n1.2.840.99\n")
    with pytest.warns(UserWarning, match="2 of 3 studies are not in this cohort") as told:
        assert read_shared(path, cohort()) == ["000000000003"]
    assert "ffffffffffff" in str(told[0].message)
    assert "1.2.840.99" not in str(told[0].message)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"shared\.csv does not exist"),
        (b"\n \n", "is empty"),
        (b"site,study\nA,000000000003\n", "none is named StudyInstanceUID"),
        (b"000000000003\nDoe^Jane 7\n", "1 of 2 entries are not UIDs"),
        (b"PK\x03\x04\xff\xfe", "cannot be read as a list"),
        (b'a,StudyInstanceUID\n"1,2\n', "not a CSV table"),
    ],
)
def test_bad_lists_of_shared_studies(tmp_path, content, problem):
    path = tmp_path / "shared.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_shared(path, cohort())


def test_frozen_split_reads_back(tmp_path):
    path = tmp_path / "split.csv"
    split = draw(cohort())
    digest = freeze_split(split, path)
    again, read = read_split(path)
    assert read == digest
    assert len(digest) == 64
    pd.testing.assert_frame_equal(again, split)
    assert list(again) == ["StudyInstanceUID", "part", "fold", "shared"]
    # The same content in another row order is the same split.
    assert freeze_split(split[::-1], path) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["split.csv", "split.csv.sha256"]


def test_another_split_is_not_written_over_a_frozen_one(tmp_path):
    path = tmp_path / "split.csv"
    split = draw(cohort())
    digest = freeze_split(split, path)
    with pytest.raises(UserError, match="holds another frozen split"):
        freeze_split(draw(cohort(), seed=1), path)
    assert read_split(path)[1] == digest


def test_changed_or_missing_split_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    with pytest.raises(UserError, match="make the split first"):
        read_split(path)
    freeze_split(draw(cohort()), path)
    path.write_text(path.read_text().replace("validation", "train", 1))
    with pytest.raises(UserError, match="changed after it was frozen"):
        read_split(path)


def test_a_study_in_two_parts_or_an_unknown_part_is_refused(tmp_path):
    split = draw(cohort())
    leak = pd.concat([split, split[:1].assign(part="test")])
    with pytest.raises(UserError, match="occurs twice"):
        freeze_split(leak, tmp_path / "split.csv")
    with pytest.raises(UserError, match="unknown part 'val'"):
        freeze_split(split.replace({"part": {"validation": "val"}}), tmp_path / "split.csv")
    with pytest.raises(UserError, match="lacks the columns shared"):
        freeze_split(split.drop(columns="shared"), tmp_path / "split.csv")
    with pytest.raises(UserError, match="shared must hold 0 and 1"):
        freeze_split(split.assign(shared=2), tmp_path / "split.csv")
    assert list(tmp_path.iterdir()) == []
