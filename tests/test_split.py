"""The split: stratified, deterministic, frozen."""

import pandas as pd
import pytest

from data_prep.split import exam_type, freeze_split, make_split, read_split
from pekit.errors import UserError


def studies(negative=60, positive=30, indeterminate=6, excluded=4) -> pd.DataFrame:
    kinds = ["negative"] * negative + ["positive"] * positive + ["indeterminate"] * indeterminate
    table = pd.DataFrame({"kind": kinds})
    table["StudyInstanceUID"] = [f"{i:012x}" for i in range(len(table))]
    table["negative_exam_for_pe"] = (table.kind == "negative").astype(int)
    table["indeterminate"] = (table.kind == "indeterminate").astype(int)
    table["verdict"] = "ok"
    table.loc[: excluded - 1, "verdict"] = "excluded"
    table.loc[excluded, "verdict"] = "repaired"
    return table


def draw(table: pd.DataFrame, **changes) -> pd.DataFrame:
    return make_split(table, **{"validation": 18, "test": 0.1, "folds": 5, "seed": 0} | changes)


def test_exam_types():
    table = studies()
    assert (exam_type(table) == table.kind).all()


def test_sizes_strata_and_exclusions():
    table = studies()
    split = draw(table).merge(table, on="StudyInstanceUID")
    # 96 studies, 4 of them excluded; a tenth of 92 is 9.
    assert split["part"].value_counts().to_dict() == {"train": 65, "validation": 18, "test": 9}
    assert "excluded" not in set(split.verdict)
    assert "repaired" in set(split.verdict)
    assert set(split.part[split.kind == "indeterminate"]) == {"train"}
    # 30 of 86 studies that may be held out are positive: 6.3 of 18 and 3.1 of 9.
    assert (split.kind[split.part == "validation"] == "positive").sum() == 6
    assert (split.kind[split.part == "test"] == "positive").sum() == 3


def test_folds_are_of_train_alone_and_even_in_each_kind():
    table = studies()
    split = draw(table).merge(table, on="StudyInstanceUID")
    assert set(split.fold[split.part != "train"]) == {-1}
    train = split[split.part == "train"]
    assert train.fold.value_counts().to_dict() == dict.fromkeys(range(5), 13)
    counts = train.groupby(["kind", "fold"]).size().unstack(fill_value=0)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()


def test_independent_of_row_order_and_dependent_on_the_seed():
    table = studies()
    split = draw(table)
    pd.testing.assert_frame_equal(draw(table.sample(frac=1, random_state=3)), split)
    assert not draw(table, seed=1).equals(split)


def test_papers_sizes():
    split = make_split(studies(4900, 2200, 157, 421), validation=836, test=0, folds=1, seed=0)
    assert split["part"].value_counts().to_dict() == {"train": 6000, "validation": 836}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"validation": 80, "test": 20}, "leave nothing to train on: 86 studies"),
        ({"validation": 1.5}, "validation = 1.5"),
        ({"test": -1}, "test = -1"),
        ({"folds": 0}, "folds = 0"),
    ],
)
def test_impossible_splits_are_refused(changes, problem):
    with pytest.raises(UserError, match=problem):
        draw(studies(), **changes)


def test_bad_tables_are_refused():
    with pytest.raises(UserError, match="lacks the columns verdict"):
        draw(studies().drop(columns="verdict"))
    table = studies()
    with pytest.raises(UserError, match="study 000000000000 occurs twice"):
        draw(pd.concat([table, table[:1]]))


def test_frozen_split_reads_back(tmp_path):
    path = tmp_path / "split.csv"
    split = draw(studies())
    digest = freeze_split(split, path)
    again, read = read_split(path)
    assert read == digest
    assert len(digest) == 64
    pd.testing.assert_frame_equal(again, split)
    # The same content in another row order is the same split.
    assert freeze_split(split[::-1], path) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["split.csv", "split.csv.sha256"]


def test_another_split_is_not_written_over_a_frozen_one(tmp_path):
    path = tmp_path / "split.csv"
    split = draw(studies())
    digest = freeze_split(split, path)
    with pytest.raises(UserError, match="holds another frozen split"):
        freeze_split(draw(studies(), seed=1), path)
    assert read_split(path)[1] == digest


def test_changed_or_missing_split_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    with pytest.raises(UserError, match="make the split first"):
        read_split(path)
    freeze_split(draw(studies()), path)
    path.write_text(path.read_text().replace("validation", "train", 1))
    with pytest.raises(UserError, match="changed after it was frozen"):
        read_split(path)


def test_a_study_in_two_parts_or_an_unknown_part_is_refused(tmp_path):
    split = draw(studies())
    leak = pd.concat([split, split[:1].assign(part="test")])
    with pytest.raises(UserError, match="occurs twice"):
        freeze_split(leak, tmp_path / "split.csv")
    with pytest.raises(UserError, match="unknown part 'val'"):
        freeze_split(split.replace({"part": {"validation": "val"}}), tmp_path / "split.csv")
    assert list(tmp_path.iterdir()) == []
