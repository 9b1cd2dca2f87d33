from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest
from toy import BELOW, DEPTH, SIDE, toy_store

from pekit.common.errors import UserError
from pekit.common.files import write_table
from pekit.dataset.augment import AugmentSettings
from pekit.dataset.stacks import StackDataset, read_stack, training_samples

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
    table.loc[0, "status"] = "excluded"
    write_table(store.root / "studies.parquet", table)
    with pytest.raises(UserError, match="excluded by the audit"):
        training_samples(store, split["StudyInstanceUID"].tolist())


def test_stack_is_the_slice_and_its_neighbours(toy):
    store, studies = toy
    hu = store.read_volume(studies[1])
    np.testing.assert_array_equal(read_stack(store, studies[1], 5), hu[4:7])
    np.testing.assert_array_equal(read_stack(store, studies[1], 0), hu[[0, 0, 1]])
    np.testing.assert_array_equal(read_stack(store, studies[1], DEPTH - 1), hu[[-2, -1, -1]])


def test_deeper_stacks(toy):
    store, studies = toy
    hu = store.read_volume(studies[1])
    np.testing.assert_array_equal(read_stack(store, studies[1], 5, depth=7), hu[2:9])
    np.testing.assert_array_equal(read_stack(store, studies[1], 1, depth=5), hu[[0, 0, 1, 2, 3]])
    more = np.clip(np.arange(9 - 12, 9 + 13), 0, DEPTH - 1)
    np.testing.assert_array_equal(read_stack(store, studies[1], 9, depth=25), hu[more])
    samples = training_samples(store, studies)
    for augment in (None, AugmentSettings()):
        sample = StackDataset(store, samples, 32, augment, depth=7)[(15, 1)]
        assert sample["stack_hu"].shape == (7, 32, 32)
        assert sample["label"] == 1
        assert sample["index"] == 15


def test_zero_augmentation_changes_nothing(toy):
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


def test_workers_share_the_tables(toy):
    """What a worker gets does not grow with the samples, and no worker has a copy of them."""
    store, studies = toy
    samples = training_samples(store, studies)
    many = pd.concat([samples] * 1000, ignore_index=True)
    sets = [StackDataset(store, table, 32, landmarks=True) for table in (samples, many)]
    first = sets[0][15]
    small, large = (len(ForkingPickler.dumps(dataset)) for dataset in sets)
    assert small < 5000
    assert abs(large - small) < 100
    assert sets[1].nbytes - sets[0].nbytes == 999 * len(samples) * 4 * 4
    # They are the same afterwards, when they have moved.
    again = sets[0][15]
    assert again["label"] == first["label"] == 1
    np.testing.assert_array_equal(again["landmarks"], first["landmarks"])
    assert sets[0].slice_of(15) == (studies[1], 5 + BELOW)
