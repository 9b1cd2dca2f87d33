"""The hull where the image cuts the chest, where lung is opaque, and in a part of a chest."""

from functools import cache

import numpy as np
import pytest

from data_prep.anatomy import CTPA_MIN_HU, contrast_hu, segment
from data_prep.anatomy.body import midline
from data_prep.anatomy.hull import hull_and_box
from data_prep.audit.rules import audit_alone
from data_prep.landmarks import from_masks
from data_prep.phantom import PhantomConfig, make_phantom
from data_prep.prepare import PrepareSettings, prepare_volume
from data_prep.volume import Volume

REAL = ("chest_dicom", "chest_ct/lung2_image.nrrd")
NAMES = ("phantom 1", "phantom 6", *REAL)
KEPT = 0.98  # of the intact scan's hull, where the image still shows it


@pytest.fixture(params=NAMES)
def scan(request):
    """HU, spacing, masks, hull and liver top of an intact scan: phantom, real ones."""
    real = request.getfixturevalue("shared_data") if request.param in REAL else None
    return intact(request.param, real)


@cache
def intact(name, folder):
    if folder is None:
        phantom = make_phantom(int(name.split()[1]), PhantomConfig())
        hu, spacing = phantom.hu, phantom.spacing_mm
    else:
        volume = audit_alone(folder / name)[1]
        hu, spacing = volume.hu, volume.spacing_mm
    masks = segment(hu, spacing)
    assert masks.remarks == ()
    assert masks.unseen is None
    return hu, spacing, masks, hull_and_box(masks)[0], from_masks(masks, hu, spacing)["Liver Top"]


def check(hu, spacing, where, old, remark):
    """Segment a changed scan; its hull holds the old one, its heart is neither lost nor liver."""
    masks, hull, liver = old
    new = segment(hu, spacing)
    found, _ = hull_and_box(new)
    assert (found & hull[where]).sum() > KEPT * hull[where].sum()
    assert (found & masks.heart[where]).sum() > 0.99 * masks.heart[where].sum()
    assert (new.heart & masks.heart[where]).sum() > 0.9 * masks.heart[where].sum()
    assert remark in "; ".join(new.remarks)
    top = from_masks(new, hu, spacing)["Liver Top"]
    if top is not None:
        start = np.array([part.start or 0 for part in where])
        off = np.abs(np.array(top) + start - liver) * spacing
        assert off.max() < 16, "Liver Top stays on the liver"


@pytest.mark.parametrize("cut", [(0.1, 0.2), (0.2, 0.2), (0.2, 0.0)])
def test_sides_that_the_image_cuts(scan, cut):
    hu, spacing, *old = scan
    width = hu.shape[2]
    first, stop = round(cut[0] * width), width - round(cut[1] * width)
    where = np.s_[:, :, first:stop]
    remark = "the image cuts the lungs (right, left)" if cut == (0.2, 0.2) else ""
    check(np.ascontiguousarray(hu[where]), spacing, where, old, remark)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_lower_part_of_a_lung_is_opaque(scan, side):
    hu, spacing, *old = scan
    lung = old[0].lung.copy()
    middle = midline(hu, lung, spacing)
    lung[:, :, slice(middle, None) if side == "right" else slice(middle)] = False
    slices = np.flatnonzero(lung.any((1, 2)))
    lung[slices[0] + len(slices) // 3 :] = False
    fluid = hu.copy()
    fluid[lung] = np.random.default_rng(0).integers(10, 41, np.count_nonzero(lung))
    check(fluid, spacing, np.s_[:, :, :], old, f"part of the {side} lung is opaque")


def test_a_round_field_of_view_smaller_than_the_chest(scan):
    hu, spacing, *old = scan
    _, y, x = np.argwhere(old[0].lung).mean(0)
    rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
    radius = 0.42 * np.ptp(np.flatnonzero(old[0].lung.any((0, 1)))) * spacing[2]
    outside = ((rows - y) * spacing[1]) ** 2 + ((columns - x) * spacing[2]) ** 2 > radius**2
    padded = np.where(outside, np.int16(-1024), hu)
    new = segment(padded, spacing)
    shown = old[1] & ~outside
    assert (hull_and_box(new)[0] & shown).sum() > 0.97 * shown.sum()
    assert "the image cuts the lungs (right, left" in "; ".join(new.remarks)


@pytest.mark.parametrize(
    ("part", "ends"), [((0.3, 0.7), "below and above"), ((0.4, 1), "below"), ((0, 0.6), "above")]
)
def test_a_part_of_the_chest(scan, part, ends):
    hu, spacing, masks, *_ = scan
    slices = np.flatnonzero(masks.lung.any((1, 2)))
    first, stop = (round(slices[0] + share * len(slices)) for share in part)
    if part[1] == 1:
        stop = None
    new = segment(hu[first if part[0] else 0 : stop], spacing)
    assert f"which go on {ends}" in "; ".join(new.remarks)
    assert new.remarks[0].startswith("a part of the chest")


@pytest.mark.parametrize(("name", "slices"), [("chest_pa_contrast", 11), ("chest_arterial", 16)])
def test_real_slices_at_the_hilum_are_judged_as_a_part(shared_data, name, slices):
    found, volume = audit_alone(shared_data / name)
    assert (found.status, len(volume.hu)) == ("ok", slices)
    made = prepare_volume(volume, PrepareSettings())
    assert made.remarks[0].startswith("a part of the chest")
    assert len(made.remarks) == 1
    assert made.heart_hu > CTPA_MIN_HU
    assert made.box_zyx[0].tolist() == [0, slices]
    # Most of the bright blood lies in the hull, on each slice.
    rib_cage = made.hull.any((0, 2)).nonzero()[0][[0, -1]]
    assert np.ptp(rib_cage) * volume.spacing_mm[1] > 150


def test_remarks_reach_the_prepared_study():
    hu, spacing, *_ = intact("phantom 1", None)
    width = hu.shape[2]
    part = np.ascontiguousarray(hu[:, :, round(0.2 * width) : width - round(0.2 * width)])
    uids = tuple(map(str, range(len(part))))
    made = prepare_volume(Volume(part, spacing, (0, 0, 0), "s", "s", uids), PrepareSettings())
    assert any("the image cuts the lungs" in remark for remark in made.remarks)
    assert contrast_hu(part, segment(part, spacing).heart) == pytest.approx(made.heart_hu)
