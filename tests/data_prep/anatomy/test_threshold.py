"""The embedded segmenter: its lung and heart masks compared with known ones."""

import numpy as np
import pytest

from data_prep.anatomy import CTPA_MIN_HU, contrast_hu, segment
from data_prep.anatomy.hull import hull_and_box, volume_ratio
from data_prep.anatomy.masks import Masks
from data_prep.dicom import read_series
from data_prep.errors import SegmentationError
from data_prep.images import read_image
from data_prep.phantom import PhantomConfig, make_phantom

SPACING = (5.0, 4.0, 4.0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def ellipsoid(shape, centre_mm, radii_mm) -> np.ndarray:
    points = np.stack(np.indices(shape), -1) * np.array(SPACING)
    return (((points - centre_mm) / radii_mm) ** 2).sum(-1) <= 1


def toy_chest(
    blood_hu: int = 40, lungs: str = "both", gap: float = 0.0
) -> tuple[np.ndarray, Masks]:
    """A body of water with lungs, a heart, a trachea and gas in the bowel; lungs at +-`gap`."""
    shape = (60, 80, 96)
    hu = np.full(shape, -1000, np.int16)
    hu[ellipsoid(shape, (150, 160, 192), (400, 130, 180))] = 40
    right = ellipsoid(shape, (170, 160, 110 - gap), (100, 90, 55))
    left = ellipsoid(shape, (170, 160, 274 + gap), (100, 90, 55))
    lung = np.zeros(shape, bool)
    if lungs in ("both", "right"):
        lung |= right
    if lungs in ("both", "left"):
        lung |= left
    heart = ellipsoid(shape, (150, 130, 205), (45, 40, 40)) & ~lung
    hu[lung] = -850
    hu[heart] = blood_hu
    trachea = ellipsoid(shape, (270, 160, 192), (80, 9, 9)) & ~lung
    hu[trachea] = -1000
    bowel = ellipsoid(shape, (20, 120, 250), (30, 30, 50)) & ~lung
    hu[bowel] = -1000
    return hu, Masks(lung, heart)


def test_toy_chest_without_trachea_and_bowel_gas():
    hu, truth = toy_chest(blood_hu=300)
    masks = segment(hu, SPACING)
    assert dice(masks.lung, truth.lung) > 0.99
    assert not masks.lung[55:].any()  # the trachea reaches above the lungs
    assert not masks.lung[:6].any()  # the bowel lies below
    assert (masks.heart & truth.heart).sum() > 0.9 * truth.heart.sum()
    # The wall is in the mask as well, blood sets the median.
    assert contrast_hu(hu, masks.heart) > CTPA_MIN_HU


def test_stool_mixed_with_gas_is_no_lung():
    hu, _ = toy_chest(blood_hu=300)
    bowel = (hu == -1000) & ellipsoid(hu.shape, (20, 120, 250), (30, 30, 50))
    hu[bowel] = -800
    assert not segment(hu, SPACING).lung[bowel].any()


def test_heart_without_contrast():
    hu, truth = toy_chest(blood_hu=45)
    masks = segment(hu, SPACING)
    assert (masks.heart & truth.heart).sum() > 0.6 * truth.heart.sum()
    assert contrast_hu(hu, masks.heart) < CTPA_MIN_HU


def test_lungs_that_touch():
    hu, truth = toy_chest(gap=-30)  # 110 + 30 + 55 > 274 - 30 - 55: they meet
    assert dice(segment(hu, SPACING).lung, truth.lung) > 0.97


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_hull_covers_an_opaque_lung(side):
    hu, truth = toy_chest(blood_hu=300, lungs=side)
    both = toy_chest()[1].lung
    masks = segment(hu, SPACING)
    assert dice(masks.lung, truth.lung) > 0.97  # the opaque lung is not in the mask
    assert (masks.heart & truth.heart).sum() > 0.8 * truth.heart.sum()
    hull, _ = hull_and_box(masks)
    assert hull[both].mean() > 0.97


def test_lungs_at_the_border_of_a_small_field_of_view():
    hu, truth = toy_chest(blood_hu=300)
    # The right lung begins at x = 14, the left one ends at 82, the front at y = 18.
    for where in (np.s_[:, :, 18:78], np.s_[:, 22:, :], np.s_[:, 14:66, 22:74]):
        masks = segment(hu[where], SPACING)
        assert dice(masks.lung, truth.lung[where]) > 0.97
        hull, _ = hull_and_box(masks)
        assert hull[truth.lung[where]].mean() > 0.99
    # A round field of view, with air around it.
    y, x = np.ogrid[:80, :96]
    outside = ((y - 40) / 30) ** 2 + ((x - 48) / 30) ** 2 > 1
    hu[:, outside] = -1000
    masks = segment(hu, SPACING)
    seen = truth.lung & ~outside
    assert dice(masks.lung, seen) > 0.97
    assert hull_and_box(masks)[0][seen].mean() > 0.97


def test_room_air_does_not_leak_through_a_thin_noisy_wall():
    hu, truth = toy_chest(blood_hu=300)
    hu[:, 38:42, :16] = np.where(truth.lung, hu, -600)[:, 38:42, :16]  # the wall's partial volume
    assert dice(segment(hu, SPACING).lung, truth.lung) > 0.97


def test_table_and_arms_are_no_lung():
    hu, truth = toy_chest(blood_hu=300)
    hu[:, 72:79, 10:86] = 200  # the table: a shell
    hu[:, 74:77, 12:84] = -900  # full of foam
    arm = ellipsoid(hu.shape, (150, 190, 20), (400, 30, 18))
    hu[arm & (hu == -1000)] = 60  # beside the body, air enclosed between them
    masks = segment(hu, SPACING)
    assert dice(masks.lung, truth.lung) > 0.98
    assert not masks.lung[:, 70:].any()


def test_heart_without_contrast_ends_at_the_liver():
    hu, truth = toy_chest(blood_hu=45)
    # A liver from side to side under the heart; its dome rises into the right lung.
    liver = ellipsoid(hu.shape, (40, 150, 110), (90, 90, 75))
    liver |= ellipsoid(hu.shape, (80, 130, 240), (60, 60, 60))
    liver &= ~truth.heart
    hu[liver] = 45
    masks = segment(hu, SPACING)
    assert (masks.heart & truth.heart).sum() > 0.9 * truth.heart.sum()
    assert (masks.heart & liver).sum() < 0.06 * masks.heart.sum()


def test_noise_does_not_break_the_heart_up():
    hu, truth = toy_chest(blood_hu=200)
    noisy = hu + np.random.default_rng(0).normal(0, 120, hu.shape).astype(np.int16)
    masks = segment(noisy, SPACING)
    assert (masks.heart & truth.heart).sum() > 0.9 * truth.heart.sum()


def test_what_is_no_chest_raises_with_the_reason():
    with pytest.raises(SegmentationError, match="no air inside the body"):
        segment(np.full((20, 64, 64), 40, np.int16), SPACING)
    hu, _ = toy_chest(lungs="none")
    with pytest.raises(SegmentationError, match="no lungs: nothing of their density"):
        segment(hu, SPACING)
    # Air as light as lung, but 4 x 10 x 10 voxels: 32 mL.
    hu[20:24, 30:40, 30:40] = -850
    with pytest.raises(SegmentationError, match="no lungs"):
        segment(hu, SPACING)
    # Pure gas of the size of a lung is not lung.
    hu[10:50, 30:50, 30:60] = -1000
    with pytest.raises(SegmentationError, match="no lungs"):
        segment(hu, SPACING)
    # Lungs with nothing but fat between them.
    hu, truth = toy_chest()
    hu[~truth.lung & (hu > -200)] = -100
    with pytest.raises(SegmentationError, match="no heart"):
        segment(hu, SPACING)


@pytest.mark.parametrize("seed", range(1, 11))
def test_phantoms(seed):
    check_phantom(make_phantom(seed, PhantomConfig()))


@pytest.mark.parametrize("shape", [(24, 64, 64), (32, 96, 96), (80, 192, 192)])
@pytest.mark.parametrize("difficulty", [0.5, 10])
def test_phantoms_of_other_sizes_and_noise(shape, difficulty):
    config = PhantomConfig(
        shape=shape, difficulty=difficulty, pe_fraction=1, indeterminate_fraction=0
    )
    check_phantom(make_phantom(3, config))


def check_phantom(phantom):
    masks = segment(phantom.hu, phantom.spacing_mm)
    assert dice(masks.lung, phantom.lung) >= 0.95
    assert (masks.heart & phantom.heart).sum() >= 0.7 * phantom.heart.sum()
    hull, _ = hull_and_box(masks)
    organs = phantom.lung | phantom.heart
    assert (hull & organs).sum() >= 0.99 * organs.sum()
    assert (phantom.clot & ~hull).sum() <= 0.01 * phantom.clot.sum()


def test_fine_voxels_give_the_same_masks_as_coarse_ones():
    hu, truth = toy_chest(blood_hu=300)
    fine = hu.repeat(3, 0).repeat(4, 1).repeat(4, 2)
    masks = segment(fine, (5.0 / 3, 1.0, 1.0))
    assert dice(masks.lung, truth.lung.repeat(3, 0).repeat(4, 1).repeat(4, 2)) > 0.98
    assert (masks.heart & truth.heart.repeat(3, 0).repeat(4, 1).repeat(4, 2)).any()


def test_lungs_of_a_real_ct(shared_data):
    volume = read_series(shared_data / "chest_dicom")
    lung = read_image(shared_data / "chest_dicom" / "whole_lung.nrrd").array > 0
    masks = segment(volume.hu, volume.spacing_mm)
    assert dice(masks.lung, lung) >= 0.97
    hull, box = hull_and_box(masks)
    assert (hull & lung).sum() >= 0.99 * lung.sum()
    assert 0.2 < volume_ratio(box, volume.hu.shape) < 0.8
    # The scan is without contrast, which the page of a study must state.
    assert contrast_hu(volume.hu, masks.heart) < CTPA_MIN_HU


def test_a_real_ct_at_full_resolution(shared_data):
    image = read_image(shared_data / "chest_ct" / "lung2_image.nrrd")
    hu = image.array
    masks = segment(hu, image.spacing_mm)
    hull, box = hull_and_box(masks)
    # Ends of the lungs as seen in the pictures: apices at slice 57, right base at 5, and the
    # widest section from x = 58 to 477.
    assert np.abs(box - [[5, 58], [115, 411], [56, 479]]).max() <= 6
    # The larynx above the apices is not lung.
    assert box[0, 1] <= 59
    # Voxels placed by eye: in both lungs, left and right heart, and left atrium.
    for z, y, x in ((40, 300, 130), (40, 300, 390), (25, 210, 290), (25, 200, 190), (31, 240, 250)):
        assert hull[z, y, x]
    assert masks.lung[40, 300, 130]
    assert masks.lung[40, 300, 390]
    assert masks.heart[25, 200, 250]
    # Neither the trachea nor the gas in the bowel is lung.
    assert hu[43, 265, 255] < -900
    assert not masks.lung[43, 265, 255]
    assert hu[4, 163, 376] < -900
    assert not masks.lung[:7, :, 300:].any()
