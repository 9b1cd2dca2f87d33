import numpy as np
import pytest
from toy import BELOW, toy_store

from pekit.common.errors import UserError
from pekit.common.files import write_json
from pekit.dataset.store import Store
from pekit.training.loaders import data_loaders
from pekit.training.settings import ClusterSettings, TrainSettings

SETTINGS = TrainSettings(
    image_size=32, batch_size=8, samples_per_epoch=32, workers=0, device="cpu", depth=5
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy"))


def changed(**values):
    return SETTINGS.model_copy(update=values)


def test_batches_of_stacks(toy):
    train, validation = data_loaders(*toy, "pe", SETTINGS)
    batches = list(train)
    assert len(batches) == len(train) == 4
    assert batches[0]["stack_hu"].shape == (8, 5, 32, 32)
    assert len({float(c) for c in batches[0]["contrast"]}) == 8, "training stacks are augmented"
    assert sum(len(batch["label"]) for batch in validation) == 20
    assert all((batch["contrast"] == 1).all() for batch in validation)


def test_natural_prevalence_is_the_default_and_stride_thins(toy):
    every = changed(samples_per_epoch=None)
    drawn = np.concatenate([b["index"] for b in data_loaders(*toy, "pe", every)[0]])
    assert sorted(drawn) == list(range(40))
    third, _ = data_loaders(*toy, "pe", changed(samples_per_epoch=None, stride=3))
    rows = [third.dataset.slice_of(i)[1] - BELOW for i in range(len(third.dataset))]
    assert rows == [0, 3, 6, 9] * 4
    # Rows 4 to 6 of every second study are positive; the third slice among them is row 6.
    assert third.dataset.label.sum() == 2
    assert third.sampler.prevalence == 2 / 16


def test_processes_share_out_an_epoch_without_overlap(toy):
    loaders = [data_loaders(*toy, "pe", SETTINGS, rank, 2) for rank in range(2)]
    drawn = [[draw for batch in train.batch_sampler for draw in batch] for train, _ in loaders]
    whole = [d for b in data_loaders(*toy, "pe", SETTINGS)[0].batch_sampler for d in b]
    assert not set(drawn[0]) & set(drawn[1])
    assert sorted(drawn[0] + drawn[1]) == sorted(whole)
    seen = [validation.dataset.indices for _, validation in loaders]
    assert len(seen[0]) == len(seen[1]) == 10
    assert sorted(seen[0] + seen[1]) == list(range(20))


def test_a_sample_of_the_validation_part_spreads_over_it(toy):
    _, validation = data_loaders(*toy, "pe", changed(validation_samples=3))
    assert validation.dataset.indices == [0, 10, 19]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_empty_parts_are_named(toy, part):
    store, split = toy
    with pytest.raises(UserError, match=f"no study in its {part} part"):
        data_loaders(store, split[split["part"] != part], "pe", SETTINGS)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_part_without_positives_is_named(toy, part):
    store, split = toy
    negative = split["StudyInstanceUID"].str[-1].isin(list("024"))
    only = split[(split["part"] != part) | negative]
    with pytest.raises(UserError, match=f"the {part} part has 0 positive and"):
        data_loaders(store, only, "pe", SETTINGS)
    data_loaders(store, only, "landmarks", SETTINGS)  # landmarks need no positive slice


def test_too_large_batches_and_too_many_processes_are_named(toy):
    with pytest.raises(UserError, match="32 samples, fewer than batch_size = 100"):
        data_loaders(*toy, "pe", changed(batch_size=100))
    with pytest.raises(UserError, match="16 samples for each of 2 processes"):
        data_loaders(*toy, "pe", changed(batch_size=20), world=2)
    with pytest.raises(UserError, match="1 validation slices for 2 processes"):
        data_loaders(*toy, "pe", changed(validation_samples=1), world=2)


def test_too_little_shared_memory_is_told_before_the_first_batch(toy, monkeypatch):
    """2 workers: 2 batches of each and the one that is read, 8 x 5 x 32 x 32 int16 in each."""
    batch, tables = 8 * 5 * 32 * 32 * 2, 60 * 4 * 4

    def free(batches):
        monkeypatch.setattr(
            "pekit.training.loaders.shared_memory_free", lambda: batches * batch + tables
        )

    free(5)
    data_loaders(*toy, "pe", changed(workers=2))
    free(4.9)
    data_loaders(*toy, "pe", changed(workers=0))
    with pytest.raises(UserError, match=r"set workers = 1 or batch_size = 7 with accumulate = 2"):
        data_loaders(*toy, "pe", changed(workers=2))
    free(0.4)
    with pytest.raises(UserError, match=r"workers = 0, or start .* docker run --shm-size=1g"):
        data_loaders(*toy, "pe", changed(workers=20))
    free(9.9)  # both processes of a machine share it
    two = changed(workers=2, cluster=ClusterSettings(devices=2))
    with pytest.raises(UserError, match=r"of 2 workers and 2 processes take"):
        data_loaders(*toy, "pe", two, world=2)
    monkeypatch.setattr("pekit.training.loaders.shared_memory_free", lambda: None)
    data_loaders(*toy, "pe", two, world=2)


def test_a_store_of_another_version_is_named(tmp_path):
    store, _ = toy_store(tmp_path)
    write_json(store.root / "store.json", {"version": 99})
    with pytest.raises(UserError, match="version 99"):
        Store(store.root)
