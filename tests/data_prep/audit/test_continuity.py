"""Damaged slices differ from their neighbours; intact ones, with motion too, do not."""

import time

import numpy as np
import pytest
import SimpleITK as sitk
from encoders import replace_stream, write_slice
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGLosslessSV1

from data_prep.audit.continuity import damaged_slices
from data_prep.dicom import read_series
from data_prep.dicom.decode import decode
from data_prep.errors import StudyError
from data_prep.images import read_image
from data_prep.phantom import PhantomConfig, make_phantom


@pytest.fixture(scope="module")
def chest(shared_data) -> np.ndarray:
    """(Z, Y, X) HU of the real CT at full resolution."""
    image = sitk.ReadImage(str(shared_data / "chest_ct" / "lung2_image.nrrd"))
    return sitk.GetArrayFromImage(image).clip(-1024, 3000).astype(np.int16)


def zero_lower_half(image, rng):
    image[len(image) // 2 :] = 0


def air_in_an_eighth(image, rng):
    image[len(image) * 3 // 8 : len(image) // 2] = -1024


def noise(image, rng):
    image[:] = rng.integers(-1000, 1000, image.shape)


def noise_in_one_row(image, rng):
    image[len(image) // 2] = rng.integers(-1000, 1000, image.shape[1])


def shift_lower_half(image, rng):
    image[len(image) // 2 :] += 256


DAMAGE = (zero_lower_half, air_in_an_eighth, noise, noise_in_one_row, shift_lower_half)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_slice_is_found(damage):
    rng = np.random.default_rng(0)
    for seed in range(4):
        whole = make_phantom(seed).hu
        for z in (5, len(whole) // 2, len(whole) - 6):
            hu = whole.copy()
            damage(hu[z], rng)
            assert damaged_slices(hu).tolist() == [z]


def test_blank_rows_are_found_at_the_ends_too():
    whole = make_phantom(1).hu
    for z in (0, len(whole) - 1):
        hu = whole.copy()
        hu[z, 60:68] = -1024
        assert damaged_slices(hu).tolist() == [z]


@pytest.mark.parametrize("damage", [zero_lower_half, noise])
def test_first_last_and_pairs(damage):
    rng, whole = np.random.default_rng(0), make_phantom(1).hu
    for damaged in ([0], [len(whole) - 1], [20, 21]):
        hu = whole.copy()
        for z in damaged:
            damage(hu[z], rng)
        assert damaged_slices(hu).tolist() == damaged


def test_nothing_in_phantoms_with_and_without_motion():
    moved = PhantomConfig(pe_fraction=0, indeterminate_fraction=1)
    phantoms = [make_phantom(s) for s in range(6)] + [make_phantom(s, moved) for s in range(12)]
    assert sum(phantom.exam_labels["qa_motion"] for phantom in phantoms) > 3
    for phantom in phantoms:
        assert damaged_slices(phantom.hu).tolist() == []


def test_nothing_where_slices_are_missing_or_few():
    hu = make_phantom(3).hu
    assert damaged_slices(np.delete(hu, slice(20, 25), axis=0)).tolist() == []
    for count in range(6):
        assert damaged_slices(hu[:count]).tolist() == []


def test_nothing_in_real_chests(shared_data, chest):
    assert damaged_slices(chest).tolist() == []
    assert damaged_slices(read_series(shared_data / "chest_dicom").hu).tolist() == []
    crop = read_image(shared_data / "chest_segmented" / "ct_cropped.nii.gz").array
    assert damaged_slices(crop.clip(-1024, 3000).astype(np.int16)).tolist() == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_slice_of_a_real_chest_is_found(chest, damage):
    rng = np.random.default_rng(0)
    for z in (8, 25, 40, 52):
        hu = chest[z - 5 : z + 6].copy()
        damage(hu[5], rng)
        assert damaged_slices(hu).tolist() == [5]


def test_flipped_bits_that_decode_silently_are_found_when_they_change_much(tmp_path, chest):
    file, z = tmp_path / "a.dcm", 30
    write_slice(file, chest[z] + 1024, JPEGLosslessSV1)
    dataset = dcmread(file)
    whole = next(generate_frames(dataset.PixelData, number_of_frames=1))
    rng, silent = np.random.default_rng(0), 0
    for _ in range(60):
        stream = bytearray(whole)
        for at in rng.integers(1000, len(whole) - 4, 4):
            stream[at] ^= 1 << int(rng.integers(8))
        replace_stream(dataset, bytes(stream))
        try:
            hu = decode(file, dataset) - 1024
        except StudyError:
            continue
        if (np.abs(hu.clip(-1024, 1024) - chest[z]) > 100).mean() > 0.02:
            silent += 1
            series = chest[z - 5 : z + 6].copy()
            series[5] = hu
            assert 5 in damaged_slices(series)
    assert silent >= 2


def test_fast_enough_for_a_whole_study():
    hu = np.tile(make_phantom(0).hu[:25], (10, 4, 4))
    assert hu.shape == (250, 512, 512)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        damaged_slices(hu)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.5  # 0.04 s alone on the machine
