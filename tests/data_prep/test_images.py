"""Image files of one study: NIfTI and NRRD, in any orientation, there and back."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from data_prep.errors import StudyError
from data_prep.images import is_image, read_image, read_image_volume, write_image
from data_prep.volume import PADDING

ZYX = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 1000


def test_axes_are_brought_to_lps(tmp_path):
    # NIfTI is RAS: stored along (x, y, z), with x and y in the directions opposite to LPS.
    affine = np.diag([-0.7, -0.5, 2.5, 1.0])
    affine[:3, 3] = (10, 20, 30)
    nibabel.save(nibabel.Nifti1Image(ZYX.T, affine), tmp_path / "lps.nii.gz")
    image = read_image(tmp_path / "lps.nii.gz")
    np.testing.assert_array_equal(image.array, ZYX)
    assert image.spacing_mm == pytest.approx((2.5, 0.5, 0.7))
    assert image.origin_mm == pytest.approx((30, -20, -10))
    # Stored as (z, x, y), z running to the feet: the first voxel is in the last slice.
    affine = np.array([[0, -0.7, 0, 10], [0, 0, -0.5, 20], [-2.5, 0, 0, 30], [0, 0, 0, 1.0]])
    stored = ZYX[::-1].transpose(0, 2, 1)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), affine), tmp_path / "z.nii")
    image = read_image(tmp_path / "z.nii")
    np.testing.assert_array_equal(image.array, ZYX)
    assert image.spacing_mm == pytest.approx((2.5, 0.5, 0.7))
    assert image.origin_mm == pytest.approx((27.5, -20, -10))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_written_and_read_again(tmp_path, name):
    write_image(tmp_path / "new" / name, ZYX > -990, (2.5, 0.5, 0.7), (30, -20, -10))
    assert [f.name for f in (tmp_path / "new").iterdir()] == [name]
    image = read_image(tmp_path / "new" / name)
    np.testing.assert_array_equal(image.array, ZYX > -990)
    assert image.spacing_mm == pytest.approx((2.5, 0.5, 0.7))
    assert image.origin_mm == pytest.approx((30, -20, -10))
    assert is_image(tmp_path / name)
    assert not is_image(tmp_path / "a.dcm")


def test_a_study_from_one_file(tmp_path):
    affine = np.diag([-0.7, -0.5, 2.5, 1.0])
    hu = ZYX.astype(np.float32) + 0.4
    hu[0, 0, 0] = -3000
    nibabel.save(nibabel.Nifti1Image(hu.T, affine), tmp_path / "a.nii.gz")
    volume = read_image_volume(tmp_path / "a.nii.gz")
    assert volume.hu.dtype == np.int16
    assert volume.hu[0, 0, 0] == -1024
    np.testing.assert_array_equal(volume.hu[1], ZYX[1])
    assert volume.sop_uids[1] == f"{volume.study_uid}.1"
    assert len(volume.study_uid) == 64


def test_bad_files_are_named(tmp_path):
    with pytest.raises(StudyError, match=r"absent\.nii: no such file"):
        read_image(tmp_path / "absent.nii")
    (tmp_path / "a.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(StudyError, match=r"a\.nii\.gz: not a readable image") as caught:
        read_image(tmp_path / "a.nii.gz")
    assert str(tmp_path) not in caught.value.reason
    sitk.WriteImage(sitk.Image([4, 4], sitk.sitkInt16), str(tmp_path / "flat.nrrd"))
    with pytest.raises(StudyError, match="it has 2 dimensions"):
        read_image(tmp_path / "flat.nrrd")
    turned = sitk.GetImageFromArray(ZYX)
    turned.SetDirection([0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1])
    sitk.WriteImage(turned, str(tmp_path / "turned.nrrd"))
    with pytest.raises(StudyError, match="oblique"):
        read_image(tmp_path / "turned.nrrd")
    holes = sitk.GetImageFromArray(np.full((4, 4, 4), np.nan, np.float32))
    sitk.WriteImage(holes, str(tmp_path / "holes.nrrd"))
    with pytest.raises(StudyError, match="16 voxels inside the image are no HU, but such as nan"):
        read_image_volume(tmp_path / "holes.nrrd")


def test_a_real_ct(shared_data):
    volume = read_image_volume(shared_data / "chest_ct" / "lung2_image.nrrd")
    assert volume.hu.shape == (61, 512, 512)
    assert volume.spacing_mm == pytest.approx((5.0, 0.627, 0.627), abs=1e-3)
    # The liver lies below the right lung: at small x of the lowest slices.
    assert np.median(volume.hu[0, 200:300, 120:200]) > 0


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 62512, 1e20, -1e9, 3071])
def test_padding_outside_the_field_of_view_is_air(tmp_path, name, value):
    hu = np.random.default_rng(0).normal(40, 20, (4, 40, 40)).astype(np.float32)
    whole = hu.copy()
    y, x = np.ogrid[:40, :40]
    hu[:, (y - 20) ** 2 + (x - 20) ** 2 > 15**2] = value
    write_image(tmp_path / name, hu, (2.5, 0.5, 0.7), (30, -20, -10))
    volume = read_image_volume(tmp_path / name)
    assert (volume.hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 15:25, 15:25], np.rint(whole[:, 15:25, 15:25]))
    assert volume.notes == (PADDING,)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 62512, -1e9])
def test_values_that_are_no_hu_inside_the_body_are_refused(tmp_path, name, value):
    hu = np.random.default_rng(0).normal(40, 20, (4, 40, 40)).astype(np.float32)
    hu[2, 20, 20:22] = value
    write_image(tmp_path / name, hu, (2.5, 0.5, 0.7), (30, -20, -10))
    with pytest.raises(StudyError, match=r"2 voxels inside the image are no HU.* on slice z=2"):
        read_image_volume(tmp_path / name)


def test_metal_is_as_bright_as_it_is(tmp_path):
    hu = np.random.default_rng(0).normal(40, 20, (4, 40, 40)).astype(np.int16)
    hu[:, 20:22, 20:22] = 3071
    hu[1, 20, 20] = 28000  # in the extended CT scale
    write_image(tmp_path / "a.nii.gz", hu, (2.5, 0.5, 0.7), (30, -20, -10))
    volume = read_image_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.notes == ()
