"""Choice of a segmentation method, masks by another segmenter, implausible masks."""

import nibabel
import numpy as np
import pytest

from data_prep.anatomy import segment
from data_prep.anatomy.hull import hull_and_box
from data_prep.anatomy.masks import LabelMap, Masks
from data_prep.anatomy.plausible import check_masks
from data_prep.anatomy.precomputed import segment_precomputed
from data_prep.errors import SegmentationError
from data_prep.images import write_image
from pekit.common.errors import UserError

SPACING = (10.0, 8.0, 8.0)  # 0.64 mL a voxel
SHAPE = (30, 40, 50)
ORIGIN = (-100.0, 20.0, 30.0)


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body of water in air, its lungs (2 x 8 x 20 x 20 voxels: 4096 mL), its heart (256 mL)."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 4:36, 4:46] = 40
    lung, heart = np.zeros((2, *SHAPE), bool)
    lung[5:25, 10:30, 8:16] = lung[5:25, 10:30, 34:42] = True
    heart[8:18, 14:22, 22:27] = True
    hu[lung] = -850
    return hu, lung, heart


def write_masks(folder, **masks) -> None:
    for name, mask in masks.items():
        write_image(folder / f"{name}.nii.gz", mask, SPACING, ORIGIN)


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
    masks = segment_precomputed(hu, (2.5, 0.5, 0.7), folder=tmp_path)
    np.testing.assert_array_equal(masks.lung, lung)
    np.testing.assert_array_equal(masks.heart, heart)
    (tmp_path / "lung.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"lung\.nii\.gz: not a readable"):
        segment(hu, (2.5, 0.5, 0.7), method="precomputed", folder=tmp_path)


def test_precomputed_folder_with_further_organs(tmp_path):
    hu, lung, heart = chest()
    aorta = np.zeros(SHAPE, bool)
    aorta[20:24, 20:22, 24:26] = True
    write_masks(tmp_path, heart=heart, aorta=aorta)
    write_image(tmp_path / "lung.nrrd", lung, SPACING, ORIGIN)
    (tmp_path / "notes.txt").write_text("no mask")
    (tmp_path / "liver.nii.gz").write_bytes(b"read only when it is asked for")
    masks = segment(hu, SPACING, "precomputed", folder=tmp_path, origin_mm=ORIGIN)
    np.testing.assert_array_equal(masks.lung, lung)
    assert set(masks.organs) == {"lung", "heart", "aorta", "liver"}
    np.testing.assert_array_equal(masks.organs["aorta"], aorta)
    assert "liver" in masks.organs
    assert "sternum" not in masks.organs
    with pytest.raises(UserError, match=r"liver\.nii\.gz: not a readable"):
        masks.organs["liver"]


def test_precomputed_lobes_of_totalsegmentator_are_united(tmp_path):
    hu, lung, heart = chest()
    right, left = lung.copy(), lung.copy()
    right[:, :, 25:] = left[:, :, :25] = False
    write_masks(tmp_path, lung_lower_lobe_right=right, lung_upper_lobe_left=left, heart=heart)
    masks = segment(hu, SPACING, "precomputed", folder=tmp_path)
    np.testing.assert_array_equal(masks.lung, lung)


def test_precomputed_masks_must_fit_the_volume(tmp_path):
    hu, lung, heart = chest()
    with pytest.raises(UserError, match="absent does not exist"):
        segment(hu, SPACING, "precomputed", folder=tmp_path / "absent")
    write_masks(tmp_path, heart=heart)
    with pytest.raises(UserError, match=r"neither lung\.nii\.gz .* nor lobes"):
        segment(hu, SPACING, "precomputed", folder=tmp_path)
    write_masks(tmp_path, lung=lung)
    for volume, spacing, origin, problem in (
        (hu[:9], SPACING, None, r"shape \(30, 40, 50\), the volume \(9, 40, 50\)"),
        (hu, (10, 8, 7.9), None, r"spacing \(10.000, 8.000, 8.000\) mm .* 7.900\)"),
        (hu, SPACING, (-100, 20, 38), r"origin .* 30.000\) mm .* volume .* 38.000\)"),
    ):
        with pytest.raises(UserError, match=problem):
            segment(volume, spacing, "precomputed", folder=tmp_path, origin_mm=origin)
    write_image(tmp_path / "heart.nrrd", heart, SPACING, ORIGIN)
    with pytest.raises(UserError, match=r"heart\.nii\.gz and heart\.nrrd: keep one"):
        segment(hu, SPACING, "precomputed", folder=tmp_path)
    (tmp_path / "heart.nrrd").unlink()
    (tmp_path / "heart.nii.gz").unlink()
    with pytest.raises(UserError, match=r"no heart\.nii\.gz"):
        segment(hu, SPACING, "precomputed", folder=tmp_path)
    write_masks(tmp_path, heart=heart & False)
    with pytest.raises(SegmentationError, match="heart mask is empty"):
        segment(hu, SPACING, "precomputed", folder=tmp_path)


def test_unknown_method_and_option():
    hu = np.zeros((4, 5, 6), np.int16)
    with pytest.raises(UserError, match="did you mean threshold"):
        segment(hu, SPACING, method="treshold")
    with pytest.raises(UserError, match="folder"):
        segment(hu, SPACING, method="precomputed")
    with pytest.raises(UserError, match="sigma"):
        segment(hu, SPACING, sigma=2)


def test_implausible_volumes():
    hu, lung, heart = chest()
    assert check_masks(Masks(lung, heart), hu, SPACING).unseen is None
    few, wide = np.zeros((2, *SHAPE), bool)
    few[5:9, 10:20, 8:12] = few[5:9, 10:20, 38:42] = True  # 320 voxels
    wide[2:28, 4:36, 4:46] = True  # 34944 voxels
    for masks, problem in (
        (Masks(few, heart), r"lung of 205 mL is implausible \(300 to 12000 mL\)"),
        (Masks(wide, heart), "lung of 22364 mL is implausible"),
        (Masks(lung, few & ~few), "no heart: the mask is empty"),
        (Masks(lung, lung), "heart of 4096 mL is implausible"),
    ):
        with pytest.raises(SegmentationError, match=problem):
            check_masks(masks, hu, SPACING)


def test_box_of_the_whole_image_is_implausible():
    hu, lung, heart = chest()
    where = np.s_[5:25, 10:30, 8:42]  # the lungs' own box
    with pytest.raises(SegmentationError, match="the box is the whole image"):
        check_masks(Masks(lung[where], heart[where]), hu[where], SPACING)
    # A tight field of view whose first slice lies below the lungs is fine.
    where = np.s_[4:25, 10:30, 8:42]
    check_masks(Masks(lung[where], heart[where]), hu[where], SPACING)


@pytest.mark.parametrize(("side", "columns"), [("right", np.s_[8:16]), ("left", np.s_[34:42])])
def test_a_missing_lung_is_covered_unless_it_is_aerated(side, columns):
    hu, both, heart = chest()
    lung = both.copy()
    lung[:, :, columns] = False
    hu[both & ~lung] = 30  # fluid
    masks = check_masks(Masks(lung, heart), hu, SPACING)
    np.testing.assert_array_equal(masks.unseen, both & ~lung)
    hull, box = hull_and_box(masks)
    assert hull[both].all()
    assert box.tolist() == [[5, 25], [10, 30], [8, 42]]
    # A pneumothorax explains a missing lung too; an aerated lung was missed by the segmenter.
    hu[both & ~lung] = -1000
    assert check_masks(Masks(lung, heart), hu, SPACING).unseen is not None
    hu[both] = -850
    with pytest.raises(SegmentationError, match=f"no {side} lung in the mask, though"):
        check_masks(Masks(lung, heart), hu, SPACING)


def test_label_map_makes_a_mask_of_the_labels_that_are_there():
    labels = np.array([[[0, 3], [7, 3]]], np.uint8)
    organs = LabelMap(labels, {"aorta": 3, "liver": 7, "sternum": 9})
    assert list(organs) == ["aorta", "liver"]
    assert len(organs) == 2
    assert organs["aorta"].tolist() == [[[False, True], [False, True]]]
    assert "sternum" not in organs
    with pytest.raises(KeyError):
        organs["sternum"]
