import itertools

import pytest

from pekit.common import progress as module
from pekit.common.progress import progress, say


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves three seconds at each look."""
    ticks = itertools.count(0, 3)
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))


def test_batch_prints_lines_now_and_then(monkeypatch, capsys, clock):
    monkeypatch.setenv("PEKIT_BATCH", "1")
    assert list(progress(range(8), desc="studies")) == list(range(8))
    # Looks at 0 (start), 3, 6, 9, 12 (a line), 15, 18, 21, 24 (the last item) and 27 (the end).
    assert capsys.readouterr().out.splitlines() == [
        "studies: 4/8 (50 %), 3.0 s each, 12 s left",
        "studies: 8/8 in 27 s",
    ]


def test_what_passes_leaves_no_last_line(monkeypatch, capsys, clock):
    """Within an epoch: a line a minute, and then the epoch's own."""
    monkeypatch.setenv("PEKIT_BATCH", "1")
    shown = progress(range(50), desc="epoch 1/3, batches", every=60, passing=True)
    assert list(shown) == list(range(50))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/3, batches: 20/50 (40 %), 3.0 s each, 1 min 30 s left",
        "epoch 1/3, batches: 40/50 (80 %), 3.0 s each, 30 s left",
    ]


def test_batch_without_length(monkeypatch, capsys, clock):
    monkeypatch.setenv("PEKIT_BATCH", "1")
    assert list(progress(iter("abcd"))) == list("abcd")
    assert capsys.readouterr().out.splitlines() == ["4, 3.0 s each", "4 in 15 s"]


def test_total_for_an_iterator(monkeypatch, capsys, clock):
    monkeypatch.setenv("PEKIT_BATCH", "1")
    list(progress(iter(range(5)), total=5))
    assert capsys.readouterr().out.splitlines()[0].startswith("4/5 (80 %)")


def test_empty(monkeypatch, capsys):
    monkeypatch.setenv("PEKIT_BATCH", "1")
    assert list(progress([], desc="studies")) == []
    assert capsys.readouterr().out == "studies: 0 in 0 s\n"


def test_bar_by_hand(monkeypatch, capsys):
    monkeypatch.delenv("PEKIT_BATCH", raising=False)
    assert list(progress([1, 2], desc="studies")) == [1, 2]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "studies" in shown.err
    assert "2/2" in shown.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10")]
)
def test_time_left_is_readable(monkeypatch, capsys, seconds, text):
    monkeypatch.setenv("PEKIT_BATCH", "1")
    looks = iter([0.0, 20.0, 20.0, seconds])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(looks))
    list(progress([1, 2]))
    assert f"2/2 in {text}" in capsys.readouterr().out


def test_say(capsys):
    say("hop 1: epoch 3")
    assert capsys.readouterr().out == "hop 1: epoch 3\n"
