"""The hull around a mask and the crop to it, counted by hand."""

import numpy as np
import pytest

from data_prep.anatomy.hull import apply_crop, convex_hull, crop_box, hull_and_box, volume_ratio
from data_prep.anatomy.masks import Masks
from data_prep.errors import SegmentationError
from pekit.common.errors import UserError
from pekit.dataset.schema import OUTSIDE_HU


def test_convex_hull_on_each_slice_by_itself():
    mask = np.zeros((3, 10, 10), bool)
    mask[0, 2, 2] = mask[0, 2, 8] = mask[0, 8, 2] = True
    mask[2, 5, 5] = True
    hull = convex_hull(mask)
    # A right triangle with legs of 6 has 7 + 6 + ... + 1 voxels on and inside its edges.
    assert hull[0].sum() == 28
    assert hull[0, 4, 4]
    assert not hull[0, 8, 8]
    assert not hull[1].any()
    assert hull[2].sum() == 1


def test_convex_hull_holds_any_mask():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 30, 40)) < 0.02
    hull = convex_hull(mask)
    assert hull[mask].all()


def test_box_crop_and_ratio():
    hu = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    mask = np.zeros(hu.shape, bool)
    mask[1, 1, 2] = mask[1, 3, 2] = mask[2, 1, 4] = True
    hull, box = hull_and_box(Masks(mask, np.zeros_like(mask)))
    assert box.tolist() == [[1, 3], [1, 4], [2, 5]]
    assert volume_ratio(box, hu.shape) == pytest.approx(2 * 3 * 3 / 120)
    masked = apply_crop(hu, hull, box, "masked")
    assert masked.dtype == np.int16
    # Slice 1: the column x = 2 from y = 1 to 3; slice 2: one voxel.
    assert masked[0, :, 0].tolist() == hu[1, 1:4, 2].tolist()
    assert masked[1, 0, 2] == hu[2, 1, 4]
    assert (masked == OUTSIDE_HU).sum() == 18 - 4
    np.testing.assert_array_equal(apply_crop(hu, hull, box, "box"), hu[1:3, 1:4, 2:5])
    np.testing.assert_array_equal(apply_crop(hu, hull, box, "none"), hu)
    with pytest.raises(UserError, match="'hull'"):
        apply_crop(hu, hull, box, "hull")
    with pytest.raises(SegmentationError, match="empty"):
        crop_box(np.zeros_like(mask))
