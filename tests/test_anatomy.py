"""The choice of a segmentation method, and masks that another segmenter made."""

import nibabel
import numpy as np
import pytest

from data_prep.anatomy import segment
from pekit.errors import UserError

SPACING = (5.0, 4.0, 4.0)


def test_precomputed_masks_come_in_any_orientation(tmp_path):
    lung, heart = np.zeros((2, 4, 5, 6), bool)
    lung[1, 2, 3] = heart[3, 0, 5] = True
    ras = np.diag([0.7, 0.5, 2.5, 1.0])
    # RAS: x and y run against LPS. The heart is stored with its axes (z, y, x), LPS.
    image = nibabel.Nifti1Image(lung[:, ::-1, ::-1].T.astype(np.uint8), ras)
    nibabel.save(image, tmp_path / "lung.nii.gz")
    lps = np.array([[0, 0, -0.7, 0], [0, -0.5, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(heart.astype(np.uint8), lps), tmp_path / "heart.nii.gz")
    hu = np.zeros((4, 5, 6), np.int16)
    masks = segment(hu, (2.5, 0.5, 0.7), method="precomputed", folder=tmp_path)
    np.testing.assert_array_equal(masks.lung, lung)
    np.testing.assert_array_equal(masks.heart, heart)
    with pytest.raises(UserError, match=r"shape \(4, 5, 6\), the volume \(9, 5, 6\)"):
        segment(np.zeros((9, 5, 6), np.int16), SPACING, method="precomputed", folder=tmp_path)
    (tmp_path / "lung.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"lung\.nii\.gz: not a readable"):
        segment(hu, SPACING, method="precomputed", folder=tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        segment(hu, SPACING, method="precomputed", folder=tmp_path / "absent")


def test_unknown_method_and_option():
    hu = np.zeros((4, 5, 6), np.int16)
    with pytest.raises(UserError, match="did you mean threshold"):
        segment(hu, SPACING, method="treshold")
    with pytest.raises(UserError, match="folder"):
        segment(hu, SPACING, method="precomputed")
    with pytest.raises(UserError, match="sigma"):
        segment(hu, SPACING, sigma=2)
