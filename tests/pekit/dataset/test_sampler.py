import numpy as np
import pytest

from pekit.common.errors import UserError
from pekit.dataset.sampler import EpochSampler

LABEL = np.array([1] * 10 + [0] * 90)


def test_sampler_draws_the_requested_fraction():
    sampler = EpochSampler(LABEL, 200, 0.4, seed=1)
    index = [i for i, _ in sampler]
    assert LABEL[index].sum() == 80
    assert sampler.prevalence == 0.4
    counts = np.bincount(index, minlength=100)
    assert counts[:10].tolist() == [8] * 10, "positives are drawn equally often"
    assert counts[10:].max() - counts[10:].min() <= 1


def test_by_default_every_slice_once_at_natural_prevalence():
    sampler = EpochSampler(LABEL)
    assert sorted(i for i, _ in sampler) == list(range(100))
    assert sampler.prevalence == 0.1


def test_sampler_depends_only_on_seed_and_epoch():
    label = np.array([0, 1] * 20)
    one, two = EpochSampler(label, seed=3), EpochSampler(label, seed=3)
    first = list(one)
    assert first == list(two)
    one.set_epoch(1)
    assert first != list(one)
    one.set_epoch(0)
    assert first == list(one)


@pytest.mark.parametrize("world", [1, 3])
def test_an_epoch_is_resumed(world):
    sampler = EpochSampler(LABEL, 200, 0.4, rank=world - 1, world=world)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, done=48)
    assert list(sampler) == whole[48:]
    assert len(sampler) == len(whole), "the length stays that of the whole epoch"
    sampler.set_epoch(3)
    assert len(list(sampler)) == len(whole)


def test_processes_share_an_epoch():
    whole = list(EpochSampler(LABEL, seed=5))
    parts = [list(EpochSampler(LABEL, seed=5, rank=rank, world=3)) for rank in range(3)]
    assert [len(part) for part in parts] == [33, 33, 33]
    # Each step takes the samples of one process with a batch three times as large.
    assert [draw for step in zip(*parts, strict=True) for draw in step] == whole[:99]


def test_sampler_needs_both_classes():
    with pytest.raises(UserError, match="0 positive and 5 negative"):
        EpochSampler(np.zeros(5, int), positive_fraction=0.4)
