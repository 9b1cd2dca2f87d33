"""thresholds.json: read as written; refused if it is of another run or malformed."""

import json

import pytest

from pekit.common.errors import UserError
from pekit.evaluation.thresholds import Thresholds, read_thresholds, write_thresholds
from pekit.voting import Vote

GOOD = Thresholds("41bb82", "validation", "f1", None, {"hop1": Vote(3, 0.5), "hop2": Vote(1, 0.9)})


@pytest.fixture
def path(tmp_path):
    write_thresholds(tmp_path / "thresholds.json", GOOD)
    return tmp_path / "thresholds.json"


def test_read_as_written(path):
    assert read_thresholds(path, "41bb82") == read_thresholds(path) == GOOD
    bound = Thresholds("41bb82", "test", "sensitivity_at_specificity", 0.95, GOOD.votes)
    write_thresholds(path, bound)
    assert read_thresholds(path) == bound
    assert list(read_thresholds(path).votes) == ["hop1", "hop2"]


def test_the_last_hop_is_the_last_by_number(tmp_path):
    votes = {f"hop{k}": Vote(k, 0.5) for k in (10, 2, 1)}
    write_thresholds(tmp_path / "t.json", Thresholds("41bb82", "validation", "f1", None, votes))
    assert list(read_thresholds(tmp_path / "t.json").votes) == ["hop1", "hop2", "hop10"]


def test_of_another_run_is_refused(path):
    with pytest.raises(UserError, match=r"thresholds\.json is of another run.*41bb82.*cafe"):
        read_thresholds(path, "cafe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"hop1": {"mu": 1, "delta": 0.5}}, "does not have the fields"),
        (lambda c: [c], "does not have the fields"),
        (lambda c: c | {"votes": {}}, "no votes"),
        (lambda c: c | {"votes": {"hop1": {"mu": 0, "delta": 0.5}}}, "malformed.*mu=0"),
        (lambda c: c | {"votes": {"hop1": {"mu": 1, "delta": 1.5}}}, r"malformed.*delta=1\.5"),
        (lambda c: c | {"votes": {"hop1": {"mu": 1}}}, "malformed"),
        (lambda c: c | {"votes": {"hop 1": {"mu": 1, "delta": 0.5}}}, "'hop 1' is not a hop"),
        (lambda c: c | {"votes": {"hop1": {"mu": 1, "delta": "x"}}}, "malformed"),
        (lambda c: c | {"criterion": "f2"}, "malformed.*criterion 'f2'"),
        (lambda c: c | {"at": 0.9}, r"malformed.*leave at=0\.9 out"),
    ],
)
def test_malformed_is_named_with_its_file(path, change, message):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=rf"thresholds\.json.*{message}"):
        read_thresholds(path)


def test_missing_or_no_json_is_named(path):
    path.write_text("{")
    with pytest.raises(UserError, match=r"thresholds\.json is not valid JSON"):
        read_thresholds(path)
    path.unlink()
    with pytest.raises(UserError, match=r"thresholds\.json does not exist"):
        read_thresholds(path)
