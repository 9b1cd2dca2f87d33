import numpy as np
import pytest
import torch
from toy import BELOW, DEPTH, SIDE, toy_store

from pekit.config import AugmentSettings
from pekit.dataset import (
    Augmentation,
    EpochSampler,
    StackDataset,
    read_stack,
    training_samples,
)
from pekit.errors import UserError
from pekit.store import OUTSIDE_HU, write_table
from pekit.windows import Windows

STILL = {"contrast": 0, "shift": 0, "scale": 0, "rotate_deg": 0, "cutout_holes": 0}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    store, split = toy_store(tmp_path_factory.mktemp("toy"))
    return store, split["StudyInstanceUID"].tolist()


def test_samples_are_the_slices_inside_the_box(toy):
    store, studies = toy
    samples = training_samples(store, studies[:2])
    assert len(samples) == 2 * DEPTH
    assert (samples["z"] - samples["row"] == BELOW).all()
    positive = samples[samples["label"] == 1]
    assert positive["row"].tolist() == [4, 5, 6]
    assert training_samples(store, studies[:2], stride=3)["row"].tolist() == [0, 3, 6, 9] * 2


def test_unknown_and_excluded_studies_are_named(toy, tmp_path):
    with pytest.raises(UserError, match="the first is nobody"):
        training_samples(toy[0], ["nobody"])
    store, split = toy_store(tmp_path, n=4)
    table = store.studies
    table.loc[0, "verdict"] = "excluded"
    write_table(store.root / "studies.parquet", table)
    with pytest.raises(UserError, match="excluded by the audit"):
        training_samples(store, split["StudyInstanceUID"].tolist())


def test_stack_is_the_slice_and_its_neighbours(toy):
    store, studies = toy
    hu = store.read_volume(studies[1])
    np.testing.assert_array_equal(read_stack(store, studies[1], 5), hu[4:7])
    np.testing.assert_array_equal(read_stack(store, studies[1], 0), hu[[0, 0, 1]])
    np.testing.assert_array_equal(read_stack(store, studies[1], DEPTH - 1), hu[[-2, -1, -1]])


def test_augmentation_that_does_nothing(toy):
    store, studies = toy
    samples = training_samples(store, studies)
    plain = StackDataset(store, samples, SIDE)[14]
    still = StackDataset(store, samples, SIDE, AugmentSettings(**STILL))[14]
    np.testing.assert_allclose(still["stack_hu"], plain["stack_hu"], atol=1)
    assert plain["label"] == 1
    assert plain["stack_hu"].dtype == np.int16


def test_same_seed_same_sample_other_seed_another(toy):
    store, studies = toy
    dataset = StackDataset(store, training_samples(store, studies), 32, AugmentSettings())
    again, other = dataset[(3, 7)], dataset[(3, 8)]
    np.testing.assert_array_equal(dataset[(3, 7)]["stack_hu"], again["stack_hu"])
    assert dataset[(3, 7)]["contrast"] == again["contrast"] != other["contrast"]
    assert not np.array_equal(again["stack_hu"], other["stack_hu"])


def test_all_slices_of_a_stack_move_alike_and_landmarks_with_them():
    rng = np.random.default_rng(0)
    augment = Augmentation(AugmentSettings(cutout_holes=0))
    for seed in range(20):
        y, x = rng.integers(24, 40, 2)
        stack = np.zeros((64, 64, 3), np.float32)
        stack[y - 2 : y + 3, x - 2 : x + 3] = 1
        moved, points, _ = augment(stack, np.array([[x, y]], float), seed)
        np.testing.assert_array_equal(moved[..., 0], moved[..., 2])
        ys, xs = np.nonzero(moved[..., 0] > 0.5)
        np.testing.assert_allclose([xs.mean(), ys.mean()], points[0], atol=0.7)


def test_cutout_and_border_window_to_zero(toy):
    store, studies = toy
    samples = training_samples(store, studies)
    cut = AugmentSettings(**{**STILL, "cutout_holes": 2})
    stack = StackDataset(store, samples, 64, cut)[(0, 1)]["stack_hu"]
    holes = stack == OUTSIDE_HU
    assert 0.04 < holes.mean() <= 2 * 0.4**2
    images = Windows()(torch.from_numpy(stack)[None])[0]
    assert images[:, torch.from_numpy(holes[0])].abs().max() == 0


def test_landmark_targets(toy):
    store, studies = toy
    samples = training_samples(store, studies)
    dataset = StackDataset(store, samples, 32, landmarks=True, z_scale=10)
    target = dataset[3]["landmarks"]  # row 3 is z = 5
    assert np.isnan(target[0]).all(), "the first landmark is absent"
    # Voxel centres: (19.5 + 0.5) / 40, (9.5 + 0.5) / 40; z = (7 - 5) / 10.
    np.testing.assert_allclose(target[1:], [[0.5, 0.25, 0.2]] * 19, rtol=1e-6)
    still = StackDataset(store, samples, 32, AugmentSettings(**STILL), True, 10)
    np.testing.assert_allclose(still[3]["landmarks"], target, atol=1e-5)


def test_sampler_draws_the_fraction_it_is_asked_for():
    label = np.array([1] * 10 + [0] * 90)
    index = [i for i, _ in EpochSampler(label, 200, 0.4, seed=1)]
    assert label[index].sum() == 80
    counts = np.bincount(index, minlength=100)
    assert counts[:10].tolist() == [8] * 10, "positives are drawn equally often"
    assert counts[10:].max() - counts[10:].min() <= 1


def test_sampler_is_a_function_of_seed_and_epoch():
    label = np.array([0, 1] * 20)
    one, two = EpochSampler(label, seed=3), EpochSampler(label, seed=3)
    first = list(one)
    assert first == list(two)
    assert sorted(i for i, _ in first) == list(range(40))
    one.set_epoch(1)
    assert first != list(one)
    one.set_epoch(0)
    assert first == list(one)


def test_sampler_needs_both_classes():
    with pytest.raises(UserError, match="0 positive and 5 negative"):
        EpochSampler(np.zeros(5, int), positive_fraction=0.4)
