import json
import os
import signal

import blosc2
import numpy as np
import pandas as pd
import pytest
from toy import toy_store

from pekit.common.errors import UserError
from pekit.common.files import (
    atomic,
    read_json,
    read_table,
    remove_leftovers,
    write_json,
    write_table,
)
from pekit.dataset.schema import public_uid
from pekit.dataset.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store", {"crop": "masked"})


def test_volume_comes_back_slice_by_slice(store):
    hu = np.random.default_rng(0).integers(-1350, 3000, (37, 50, 41)).astype(np.int16)
    store.write_volume("abc", hu)
    assert store.volume_shape("abc") == (37, 50, 41)
    np.testing.assert_array_equal(store.read_volume("abc"), hu)
    np.testing.assert_array_equal(store.read_volume("abc", 15, 18), hu[15:18])


def test_volume_is_laid_out_for_three_slice_reads(store):
    store.write_volume("abc", np.zeros((37, 50, 41), np.int16))
    array = blosc2.open(str(store.volume_path("abc")))
    assert array.chunks == (16, 50, 41)
    assert array.blocks == (1, 50, 41)


def test_a_replaced_volume_is_read_again(store):
    store.write_volume("abc", np.zeros((4, 8, 8), np.int16))
    assert store.read_volume("abc").max() == 0
    store.write_volume("abc", np.ones((5, 8, 8), np.int16))
    assert store.read_volume("abc").min() == 1
    assert store.volume_shape("abc") == (5, 8, 8)


def test_the_same_volume_has_the_same_bytes(store):
    hu = np.random.default_rng(0).integers(-1350, 3000, (90, 60, 60)).astype(np.int16)
    for name in "ab":
        store.write_volume(name, hu)
    assert store.volume_path("a").read_bytes() == store.volume_path("b").read_bytes()


def test_only_int16_volumes(store):
    with pytest.raises(UserError, match="study abc"):
        store.write_volume("abc", np.zeros((3, 4, 4)))


def test_missing_volume_is_named(store):
    with pytest.raises(UserError, match=r"nothere\.b2nd"):
        store.read_volume("nothere")


def test_other_settings_drop_the_tables(store):
    write_table(store.root / "studies.parquet", pd.DataFrame({"a": [1]}))
    Store.create(store.root, {"crop": "masked"})
    assert (store.root / "studies.parquet").exists()
    Store.create(store.root, {"crop": "box"})
    assert not (store.root / "studies.parquet").exists()


def test_a_store_of_version_1_is_read(tmp_path):
    """There the column `status` of studies is called `verdict`."""
    store, _ = toy_store(tmp_path)
    write_json(store.root / "store.json", {"version": 1})
    old = store.studies.rename(columns={"status": "verdict"})
    write_table(store.root / "studies.parquet", old)
    assert Store(store.root).studies["status"].tolist() == ["ok"] * 6


def test_other_version_is_refused(store):
    write_json(store.root / "store.json", {"version": 99})
    with pytest.raises(UserError, match="version 99"):
        Store(store.root)


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Store(tmp_path)


def test_atomic_leaves_nothing_after_a_failure(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail():
        with atomic(tmp_path / "a.json") as beside:
            beside.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "a.json") == {"old": 1}


def test_table_must_have_its_columns(tmp_path):
    write_table(tmp_path / "t.parquet", pd.DataFrame({"a": [1]}))
    assert read_table(tmp_path / "t.parquet", ("a",))["a"].tolist() == [1]
    with pytest.raises(UserError, match="lacks the columns b"):
        read_table(tmp_path / "t.parquet", ("a", "b"))


@pytest.mark.parametrize("content", ["", "{", "PAR1 no table"])
def test_damaged_files_are_named(tmp_path, content):
    for name, read in (("x.json", read_json), ("x.parquet", read_table)):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


def test_public_uid():
    assert public_uid("6897fa9de148") == "6897fa9de148"
    hashed = public_uid("1.2.840.113619.2.5")
    assert len(hashed) == 12
    assert hashed != public_uid("1.2.840.113619.2.6")
    assert "840" not in json.dumps(hashed) or hashed.count("1.2") == 0


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    ended = os.fork()
    if not ended:
        with atomic(tmp_path / "a.json") as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(ended, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "b.json") as beside:
        beside.write_text("{}")
        remove_leftovers(tmp_path)  # this process is alive
    assert [f.name for f in tmp_path.iterdir()] == ["b.json"]
