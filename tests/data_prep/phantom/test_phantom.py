"""The phantom: its anatomy, its clots, and labels that obey the rules of the RSNA data."""

import time

import numpy as np
import pytest
from scipy import ndimage

from data_prep.phantom import Phantom, PhantomConfig, make_phantom
from data_prep.phantom.body import LANDMARKS_MM, Contrast, paint_body
from data_prep.phantom.disease import label_slices
from data_prep.phantom.habitus import draw_habitus
from data_prep.phantom.vessels import LEVELS, Grid, Painter, Tube, arterial_tree
from pekit.dataset.schema import EXAM_LABELS, LANDMARKS

SMALL = (32, 64, 64)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(seed) for seed in range(20)]


@pytest.fixture(scope="module")
def small() -> list[Phantom]:
    config = PhantomConfig(shape=SMALL, indeterminate_fraction=0.1)
    return [make_phantom(seed, config) for seed in range(90)]


def voxel(phantom: Phantom, point: tuple[float, float, float]) -> tuple[int, int, int]:
    index = (np.array(point) - phantom.origin_mm) / phantom.spacing_mm
    return tuple(np.rint(index).astype(int))


def centre(phantom: Phantom, mask: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask)) * phantom.spacing_mm + phantom.origin_mm


def test_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = (make_phantom(seed, PhantomConfig(shape=SMALL)) for seed in (7, 7, 8))
    assert first.hu.tobytes() == again.hu.tobytes()
    assert first.clot.tobytes() == again.clot.tobytes()
    assert first.landmarks_mm == again.landmarks_mm
    assert first.spacing_mm != other.spacing_mm
    assert not np.array_equal(first.hu, other.hu)


def test_arrays_have_the_stated_shapes_and_types(phantoms):
    for phantom in phantoms:
        assert phantom.hu.shape == (48, 128, 128)
        assert phantom.hu.dtype == np.int16
        assert phantom.hu.min() >= -1024
        assert phantom.slice_labels.shape == (48,)
        assert phantom.slice_labels.dtype == np.uint8
        for mask in (phantom.lung, phantom.heart, phantom.clot, phantom.artery):
            assert mask.shape == phantom.hu.shape
            assert mask.dtype == bool


def test_axes_are_lps(phantoms):
    """z to the head, y to the back, x to the patient's left."""
    for phantom in phantoms:
        marks = phantom.landmarks_mm
        top, liver = marks["Right Lung Top"], marks["Liver Top"]
        assert top[0] > marks["Carina Bifurcation"][0]
        assert liver is None or marks["Carina Bifurcation"][0] > liver[0]
        assert marks["T4"][1] > marks["Carina Bifurcation"][1] > marks["Suprasternal Notch"][1]
        assert marks["Left Lung Top"][2] > marks["T4"][2] > marks["Right Lung Top"][2]
        heart, lung = centre(phantom, phantom.heart), centre(phantom, phantom.lung)
        assert heart[2] > marks["T4"][2], "most of the heart lies to the left"
        assert heart[1] < lung[1], "the heart lies in front"
        assert np.linalg.norm(heart - marks["Heart"]) < 15


def test_landmarks_lie_on_what_they_name(phantoms):
    for phantom in phantoms:
        if phantom.exam_labels["qa_motion"] or phantom.exam_labels["qa_contrast"]:
            continue
        if phantom.landmarks_mm["Liver Top"] is None or phantom.landmarks_mm["Sternum Tip"] is None:
            continue
        dz, dy, _ = phantom.spacing_mm

        def at(name: str, z: float = 0, y: float = 0, reach: int = 1, phantom=phantom) -> float:
            """Median HU in a square of 2 reach + 1 voxels around a landmark, shifted by mm."""
            k, j, i = voxel(phantom, np.add(phantom.landmarks_mm[name], (z, y, 0)))
            square = phantom.hu[k, j - reach : j + reach + 1, i - reach : i + reach + 1]
            return float(np.median(square))

        assert at("T4") > 120, "marrow"
        assert min(at("T4", y=mm) for mm in range(14, 38, 2)) < 150, "spinal canal behind it"
        assert at("Carina Bifurcation", z=2 * dz) < -400, "air of the trachea"
        assert at("Carina Bifurcation", z=-5 * dz) > -400, "no airway below the carina"
        assert at("Left Primary Bronchus") < -200
        assert at("Right Primary Bronchus") < -200
        assert at("Liver Top", z=-3 * dz) > 50
        assert at("Liver Top", z=3 * dz, reach=6) < -500
        assert at("Left Lung Top", z=-2 * dz) < -500
        assert at("Aortic Arch Center") > 80
        assert at("Sternum Tip", z=2 * dz) > at("Sternum Tip", z=2 * dz, y=5 * dy)


def test_patients_differ_in_where_their_organs_lie():
    """If patients are alike, the outline of the lungs determines a landmark's place; else not."""

    def spread(variety: float) -> np.ndarray:
        """Mean distance (z, y, x) in mm of landmarks from their mean place in the lungs' box."""
        places, sides = [], []
        for seed in range(16):
            p = make_phantom(seed, PhantomConfig(shape=SMALL, variety=variety))
            found = [np.flatnonzero(p.lung.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
            box = np.array([(f[0], f[-1] + 1) for f in found]) * np.array(p.spacing_mm)[:, None]
            low, side = box[:, 0] + p.origin_mm, box[:, 1] - box[:, 0]
            marks = [p.landmarks_mm[n] or (np.nan,) * 3 for n in LANDMARKS]
            places.append((np.array(marks) - low) / side)
            sides.append(side)
        off = np.abs(places - np.nanmean(places, axis=0)) * np.array(sides)[:, None]
        return np.nanmean(off, axis=(0, 1))

    assert np.all(spread(0)[1:] < 2.5), "below a voxel"
    assert np.all(spread(1)[1:] > 5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_habitus_can_be_inverted_and_moves_nothing_beyond_the_thorax(axis):
    mm = np.linspace(-400, 400, 201)
    for seed in range(50):
        habitus = draw_habitus(np.random.default_rng(seed), variety=2)
        there = habitus.to_patient(mm, axis)
        assert np.all(np.diff(there) > 0)
        assert np.allclose(habitus.to_template(there, axis), mm, atol=0.01)
        assert np.allclose(there[np.abs(mm) > 160], mm[np.abs(mm) > 160])
    assert np.array_equal(draw_habitus(np.random.default_rng(0), 0).to_patient(mm, axis), mm)


def test_landmarks_outside_the_volume_are_missing(small):
    assert set(LANDMARKS_MM) == set(LANDMARKS)
    for phantom in small:
        assert tuple(phantom.landmarks_mm) == LANDMARKS
        low = np.array(phantom.origin_mm) - np.array(phantom.spacing_mm) / 2
        high = low + np.array(phantom.hu.shape) * phantom.spacing_mm
        for point in filter(None, phantom.landmarks_mm.values()):
            assert np.all(low <= point)
            assert np.all(point <= high)
    celiac = [phantom.landmarks_mm["Celiac Trunk"] is None for phantom in small]
    assert 0.1 < np.mean(celiac) < 0.9, "short scans end above the celiac trunk"


def test_air_of_the_lungs_is_cut_off_from_the_outside_by_the_body(phantoms):
    for phantom in phantoms[:8]:
        if phantom.exam_labels["qa_motion"]:
            continue
        air = ndimage.median_filter(phantom.hu, (1, 3, 3)) < -500
        parts, _ = ndimage.label(air)
        outside = parts[:, 0, 0]
        assert not np.isin(parts[phantom.lung], outside[outside > 0]).any()
        assert np.mean(air[phantom.lung]) > 0.8, "the rest is vessels"
        volume = phantom.lung.sum() * np.prod(phantom.spacing_mm) / 1e6
        assert 2.5 < volume < 8, "litres"


def test_arteries_taper_from_trunk_to_subsegmental():
    tubes = arterial_tree(np.random.default_rng(0))
    means = [np.mean([t.ra + t.rb for t in tubes if t.level == level]) for level in LEVELS]
    assert means == sorted(means, reverse=True)
    assert min(t.rb for t in tubes) >= 1.5 * 2.8, "1.5 voxels of a 128 pixel image"
    for level in LEVELS[1:]:
        assert {t.side for t in tubes if t.level == level} == {"left", "right"}


def test_clots_are_filling_defects_inside_arteries(phantoms):
    positive = [phantom for phantom in phantoms if phantom.clot.any()]
    assert len(positive) > 4
    for phantom in positive:
        assert not (phantom.clot & ~phantom.artery).any()
        assert phantom.clot.sum() < phantom.artery.sum() / 2
        core = ndimage.binary_erosion(phantom.artery & ~phantom.clot, iterations=1)
        assert np.median(phantom.hu[core]) - np.median(phantom.hu[phantom.clot]) > 80


def test_a_slice_is_labelled_from_8_voxels_at_128_pixels():
    clot = np.zeros((3, 128, 128), bool)
    clot[1].flat[:7] = True
    clot[2].flat[:8] = True
    assert label_slices(clot).tolist() == [0, 0, 1]
    half = np.zeros((2, 64, 64), bool)
    half[0].flat[:1] = True
    half[1].flat[:2] = True
    assert label_slices(half).tolist() == [0, 1], "a quarter of the voxels for the same area"


def test_exam_labels_obey_the_rules_of_the_data(small):
    places = ("leftsided_pe", "rightsided_pe", "central_pe")
    only_positive = (
        "rv_lv_ratio_gte_1",
        "rv_lv_ratio_lt_1",
        *places,
        "chronic_pe",
        "acute_and_chronic_pe",
    )
    for phantom in small:
        labels = phantom.exam_labels
        assert tuple(labels) == EXAM_LABELS
        assert set(labels.values()) <= {0, 1}
        if phantom.slice_labels.any():
            assert labels["rv_lv_ratio_gte_1"] + labels["rv_lv_ratio_lt_1"] == 1
            assert sum(labels[name] for name in places) >= 1
            assert labels["chronic_pe"] + labels["acute_and_chronic_pe"] <= 1
            assert labels["negative_exam_for_pe"] == labels["indeterminate"] == 0
        else:
            assert labels["negative_exam_for_pe"] + labels["indeterminate"] == 1
            assert not any(labels[name] for name in only_positive)
            assert not phantom.clot.any()
    assert all(any(p.exam_labels[name] for p in small) for name in EXAM_LABELS), "all occur"
    assert 0.3 < np.mean([p.slice_labels.any() for p in small]) < 0.5


def test_location_labels_name_the_side_of_the_clots(phantoms):
    for phantom in phantoms:
        middle = voxel(phantom, phantom.landmarks_mm["Carina Bifurcation"])[2]
        labels = phantom.exam_labels
        lateral = round(60 / phantom.spacing_mm[2])
        assert labels["rightsided_pe"] or not phantom.clot[..., : middle - lateral].any()
        assert labels["leftsided_pe"] or not phantom.clot[..., middle + lateral :].any()


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_ventricles_have_the_ratio_that_the_label_says(ratio):
    spacing = np.array((2.5, 2.5, 2.5))
    grid = Grid((64, 96, 96), spacing, np.array((-150.0, -120, -120)), np.zeros(3), 1.0)
    blood = Contrast(artery=1000.0, vein=185.0, aorta=555.0, cava=2000.0)
    body = paint_body(grid, np.random.default_rng(0), blood, ratio)
    below = slice(0, 36)  # z < -60: no other vessel holds blood of these HU in the heart
    right = body.heart[below] & (np.abs(body.hu[below] - 970) < 1)
    left = body.heart[below] & (np.abs(body.hu[below] - 555) < 1)
    widths = [np.sqrt(mask.sum((1, 2)).max()) for mask in (right, left)]
    assert widths[0] / widths[1] == pytest.approx(ratio, rel=0.12)


def test_indeterminate_exams_are_spoilt_and_hold_no_clot():
    config = PhantomConfig(shape=SMALL, pe_fraction=0, indeterminate_fraction=1)
    spoilt = [make_phantom(seed, config) for seed in range(12)]
    for phantom in spoilt:
        assert phantom.exam_labels["indeterminate"] == 1
        assert phantom.exam_labels["negative_exam_for_pe"] == 0
        if phantom.exam_labels["qa_contrast"]:
            assert np.median(phantom.hu[phantom.artery]) < 100
        else:
            assert phantom.exam_labels["qa_motion"] == 1
    assert {p.exam_labels["qa_motion"] for p in spoilt} == {0, 1}


def test_difficulty_makes_clots_smaller_mimics_more_frequent_and_noise_stronger():
    def measure(difficulty: float) -> tuple[float, float, float]:
        config = PhantomConfig(shape=SMALL, difficulty=difficulty, indeterminate_fraction=0)
        made = [make_phantom(seed, config) for seed in range(40)]
        noise = np.median([np.std(p.hu[:, :6, :6]) for p in made])
        return (
            np.mean([p.clot.sum() for p in made]),
            np.mean([p.exam_labels["flow_artifact"] for p in made]),
            noise,
        )

    (easy_clot, easy_flow, easy_noise), (hard_clot, hard_flow, hard_noise) = measure(1), measure(3)
    assert hard_clot < easy_clot / 2
    assert hard_flow > easy_flow
    assert hard_noise > easy_noise


def test_a_painted_tube_has_the_voxels_of_its_analytic_shape():
    """Rounded cone: voxels within the interpolated radius of the nearest point of the axis."""
    grid = Grid((20, 30, 30), np.ones(3), np.zeros(3), np.zeros(3), 1.0)
    mask = np.zeros(grid.shape, bool)
    tube = Tube(np.array((5.0, 10, 10)), np.array((14.0, 10, 10)), 4.0, 2.0)
    painted = Painter(grid).paint(mask, tube, True)
    assert painted == mask.sum()
    # In the plane z = 5 a disc of radius 4 (49 lattice points), at z = 14 one of radius 2 (13).
    assert mask[5].sum() == 49
    assert mask[14].sum() == 13
    assert mask[17].sum() == 0


def test_painting_outside_the_volume_changes_nothing():
    grid = Grid((8, 8, 8), np.ones(3), np.zeros(3), np.zeros(3), 1.0)
    mask = np.zeros(grid.shape, bool)
    away = Tube(np.array((40.0, 3, 3)), np.array((50.0, 3, 3)), 2.0, 2.0)
    assert Painter(grid).paint(mask, away, True) == 0
    assert not mask.any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dificulty": 2}, "dificulty"),
        ({"shape": (4, 128, 128)}, "8 slices"),
        ({"pe_fraction": 1.2}, "pe_fraction"),
        ({"pe_fraction": 0.9, "indeterminate_fraction": 0.2}, "must not exceed 1"),
        ({"difficulty": 0}, "difficulty"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        PhantomConfig(**settings)


def test_a_phantom_takes_less_than_its_share_of_the_budget():
    def seconds(seed: int) -> float:
        start = time.process_time()
        make_phantom(seed)
        return time.process_time() - start

    assert min(seconds(seed) for seed in range(3)) < 0.2
