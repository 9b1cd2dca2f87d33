import numpy as np
import pytest
import torch
from torch import nn
from toy import DEPTH, SIDE, toy_store

from pekit.common.files import write_table
from pekit.dataset.schema import LANDMARKS
from pekit.dataset.stacks import spread_samples, training_samples
from pekit.inference.landmarks import locate, mean_target

Z_SCALE = 10.0


class Fixed(nn.Module):
    """Predicts the same constant for every slice."""

    depth, memory_format = 3, torch.channels_last

    def __init__(self, xyz):
        super().__init__()
        self.xyz = nn.Parameter(torch.tensor(xyz))

    def forward(self, stack_hu):
        return self.xyz.expand(len(stack_hu), len(LANDMARKS), 3)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """All landmarks but the first at voxel (7, 9.5, 19.5); voxels of 2 x 0.5 x 0.75 mm."""
    store, split = toy_store(tmp_path_factory.mktemp("toy"), n=2)
    table = store.studies.assign(spacing_z=2.0, spacing_y=0.5, spacing_x=0.75)
    write_table(store.root / "studies.parquet", table)
    return store, training_samples(store, split["StudyInstanceUID"].tolist())


def test_errors_are_in_mm(toy):
    store, samples = toy
    # Truth: x = 20 / 40, y = 10 / 40; z = (7 - z of the slice) / 10.
    net = Fixed([0.6, 0.25, 0.0])
    errors = locate(net, store, samples, 32, Z_SCALE, batch_size=7).errors()
    assert len(errors) == 2 * DEPTH * (len(LANDMARKS) - 1)
    assert LANDMARKS[0] not in set(errors["name"]), "absent landmarks have no error"
    np.testing.assert_allclose(errors["x"], 0.1 * SIDE * 0.75, rtol=1e-5)
    np.testing.assert_allclose(errors["y"], 0, atol=1e-5)
    away = np.abs(7 - samples["z"].to_numpy()).repeat(len(LANDMARKS) - 1) * 2.0
    np.testing.assert_allclose(errors["z"], away, atol=1e-4)
    np.testing.assert_allclose(errors["error_mm"], np.hypot(3.0, away), atol=1e-4)


def test_the_constant_to_beat_is_the_mean_target(toy):
    store, samples = toy
    constant = mean_target(store, samples, Z_SCALE)
    assert np.isnan(constant[0]).all()
    expected = [0.5, 0.25, (7 - samples["z"].mean()) / Z_SCALE]
    np.testing.assert_allclose(constant[1:], [expected] * (len(LANDMARKS) - 1), rtol=1e-6)
    located = locate(Fixed([0.0, 0.0, 0.0]), store, samples, 32, Z_SCALE)
    np.testing.assert_allclose(located.with_constant(constant).errors()["x"], 0, atol=1e-5)


def test_slices_are_read_by_threads_and_come_in_their_order(toy):
    store, samples = toy
    net = Fixed([0.0, 0.0, 0.0])
    one = locate(net, store, samples, 32, Z_SCALE, batch_size=64, workers=1)
    small = locate(net, store, samples, 32, Z_SCALE, batch_size=3, workers=4)
    np.testing.assert_array_equal(one.target, small.target)
    np.testing.assert_allclose(one.target[:, 1, 2], (7 - samples["z"]) / Z_SCALE, rtol=1e-5)


def test_a_bounded_sample_is_spread_over_all(toy):
    _, samples = toy
    few = spread_samples(samples, 5)
    assert len(few) == 5
    assert few.iloc[0].equals(samples.iloc[0])
    assert few.iloc[-1].equals(samples.iloc[-1])
    assert few["StudyInstanceUID"].nunique() == 2
    assert spread_samples(samples, 10_000).equals(samples)
