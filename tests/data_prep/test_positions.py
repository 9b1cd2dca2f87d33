"""Slices lie where their files say: gaps, changes of the slice distance, mm and voxels."""

import numpy as np
import pytest

from data_prep.images import read_image, write_image
from data_prep.positions import slice_spacing
from data_prep.volume import Volume


def stack(z_mm) -> Volume:
    """A volume of 6 x 8 pixels, 2 by 0.5 mm, whose slices lie at z_mm; each has its own value."""
    z_mm = np.asarray(z_mm, float)
    hu = np.broadcast_to(np.arange(len(z_mm), dtype=np.int16)[:, None, None], (len(z_mm), 6, 8))
    step = slice_spacing(z_mm).step_mm
    uids = tuple(map(str, range(len(z_mm))))
    return Volume(hu, (step, 2.0, 0.5), (z_mm[0], -5.0, 10.0), "s", "t", uids, z_mm=z_mm)


ALL = np.arange(20) * 5.0 - 30
GAP = np.delete(ALL, [8, 9, 10])


def test_without_positions_slices_are_even():
    volume = Volume(np.zeros((3, 6, 8), np.int16), (2.5, 1, 1), (-10.0, 0, 0), "s", "t", ("a",) * 3)
    assert volume.z_mm.tolist() == [-10, -7.5, -5]


def test_a_voxel_is_counted_in_slices_also_after_a_gap():
    volume = stack(GAP)
    for z, mm in enumerate(GAP):
        assert volume.voxel((mm, -1.0, 12.0)) == pytest.approx((z, 2.0, 4.0))
    assert volume.voxel((-27.5, -5, 10)) == pytest.approx((0.5, 0, 0))
    assert volume.voxel((67, -5, 10)) == pytest.approx((16.4, 0, 0))


@pytest.mark.parametrize(
    "point",
    [(-40, 0, 11), (68, 0, 11), (0, -7, 11), (0, 7, 11), (0, 0, 9), (0, 0, 14.5),
     (15, 0, 11)],  # the last one lies in the gap
)  # fmt: skip
def test_a_point_without_a_slice_has_no_voxel(point):
    assert stack(GAP).voxel(point) is None
    assert stack(ALL).voxel((15, 0, 11)) == pytest.approx((9, 2.5, 2))


@pytest.mark.parametrize("missing", [[8, 9, 10], [3], [4, 5, 12, 13]])
def test_a_mask_written_for_a_series_with_gaps_lies_on_it(tmp_path, missing):
    """Every present slice is found at its own position; a missing one repeats a neighbour."""
    volume = stack(np.delete(ALL, missing))
    write_image(tmp_path / "hull.nii.gz", *volume.on_even_grid(volume.hu))
    image = read_image(tmp_path / "hull.nii.gz")
    assert image.array.shape == (20, 6, 8)
    z_mm = image.origin_mm[0] + image.spacing_mm[0] * np.arange(20)
    np.testing.assert_allclose(z_mm, ALL, atol=1e-4)
    values = dict(zip(ALL.tolist(), image.array[:, 0, 0].tolist(), strict=True))
    for z, mm in enumerate(volume.z_mm):
        assert values[mm] == z
    for mm in ALL[missing]:
        nearest = np.abs(volume.z_mm - mm)
        assert nearest[values[mm]] == nearest.min()


def test_an_even_volume_is_written_as_it_is():
    volume = stack(ALL + np.random.default_rng(0).uniform(-0.01, 0.01, 20))
    array, spacing, origin = volume.on_even_grid(volume.hu)
    np.testing.assert_array_equal(array, volume.hu)
    assert (spacing, origin) == (volume.spacing_mm, volume.origin_mm)


def test_gaps_are_counted():
    found = slice_spacing(GAP)
    assert found.step_mm == pytest.approx(5)
    assert found.notes == ("gap of 3 slices after z=7",)
    assert np.flatnonzero(found.missing).tolist() == [7]
    assert slice_spacing(np.delete(ALL, [2, 7, 13])).missing.sum() == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_of_the_slice_distance_is_no_gap(sign):
    """2.5 mm below, 7.5 mm above, or the other way round."""
    z_mm = np.sort(sign * np.r_[np.arange(26) * 2.5, 62.5 + np.arange(1, 14) * 7.5])
    found = slice_spacing(z_mm)
    assert found.missing.sum() == 0
    parts = ("2.50 mm from z=0 to 25, 7.50 mm from z=25 to 38" if sign == 1 else
             "7.50 mm from z=0 to 13, 2.50 mm from z=13 to 38")  # fmt: skip
    assert found.notes == (f"the slice distance changes: {parts}",)
    assert found.step_mm == pytest.approx(2.5)
    volume = stack(z_mm)
    for z, mm in enumerate(z_mm):
        assert volume.voxel((mm, 0, 11))[0] == pytest.approx(z)


def test_a_gap_beside_a_change_is_counted_by_the_distance_around_it():
    z_mm = np.delete(np.r_[np.arange(20) * 2.5, 47.5 + np.arange(1, 15) * 5.0], [27, 28])
    found = slice_spacing(z_mm)
    assert found.missing.sum() == 2
    assert found.notes[0] == "gap of 2 slices after z=26"
    assert "5.00 mm from z=19 to 31" in found.notes[1]
