"""A folder of DICOM files becomes one volume in HU and LPS axes, or an error names the file."""

import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from encoders import BY_GDCM, compress
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MediaStorageDirectoryStorage,
)

from data_prep.dicom import open_series, read_headers, read_series
from data_prep.errors import StudyError
from data_prep.volume import PADDING, Orientation

SHAPE = (5, 8, 12)
STUDY, SERIES = "0003b3d648eb", "d2b2960c2bbf"


def stored_pixels() -> np.ndarray:
    """(Z, Y, X) int16 with every value different."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def write_slice(path: Path, pixels: np.ndarray, z_mm: float, syntax=ExplicitVRLittleEndian, **tags):
    """One CT slice; `tags` replace or, where None, remove attributes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == JPEGLosslessSV1 else syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{round(z_mm * 10) + 5000}"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [0.5, 0.7],
        "ImagePositionPatient": [-100.0, -200.0, z_mm],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
        "PixelData": pixels.astype("<i2").tobytes(),
    }
    with pydicom.config.disable_value_validation():
        for name, value in (values | tags).items():
            if value is not None:
                setattr(dataset, name, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path)
    if syntax == JPEGLosslessSV1:
        compress(path, BY_GDCM[JPEGLosslessSV1])


def write_series(folder: Path, positions=(0.0, 2.5, 5.0, 7.5, 10.0), **tags) -> list[Path]:
    """A series in two subfolders, with file names in the reverse of the z order."""
    paths = []
    for i, (pixels, z_mm) in enumerate(zip(stored_pixels(), positions, strict=True)):
        paths.append(folder / f"part{i % 2}" / f"{9 - i}.dcm")
        write_slice(paths[-1], pixels, z_mm, **tags)
    return paths


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLosslessSV1]
)
def test_pixels_are_hu_sorted_by_position(tmp_path, syntax):
    write_series(tmp_path, syntax=syntax)
    volume = read_series(tmp_path)
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, stored_pixels() - 1000)
    assert volume.spacing_mm == pytest.approx((2.5, 0.5, 0.7))
    assert volume.origin_mm == (0.0, -200.0, -100.0)
    assert (volume.study_uid, volume.series_uid) == (STUDY, SERIES)
    assert volume.sop_uids == tuple(f"1.2.3.{5000 + 25 * z}" for z in range(5))
    assert (volume.notes, volume.repairs, volume.missing_slices) == ((), (), 0)
    assert volume.orientation == Orientation()


def test_rescale_is_applied_per_slice_and_padding_becomes_air(tmp_path):
    pixels = np.full((4, 4), 100, np.int16)
    pixels[0, 0] = -2000
    write_slice(tmp_path / "a.dcm", pixels, 0.0, RescaleSlope=2, RescaleIntercept=-50)
    write_slice(tmp_path / "b.dcm", pixels, 1.0, RescaleSlope="0.5", RescaleIntercept="10.4")
    hu = read_series(tmp_path).hu
    assert hu[0, 1, 1] == 150
    assert hu[1, 1, 1] == 60
    assert hu[0, 0, 0] == -1024
    assert hu[1, 0, 0] == -990


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_padding_value_is_used_unless_it_would_erase_tissue(tmp_path, syntax):
    pixels = np.full((4, 4), 1040, np.int16)
    pixels[0, 0] = 8000
    write_slice(tmp_path / "a.dcm", pixels, 0.0, syntax, PixelPaddingValue=8000)
    write_slice(tmp_path / "b.dcm", pixels, 1.0, syntax, PixelPaddingValue=1040)
    volume = read_series(tmp_path)
    assert volume.hu[0, 0, 0] == -1024
    assert volume.hu[:, 1, 1].tolist() == [40, 40]
    assert any("1040" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("tags", "notes"),
    [
        ([], (PADDING,)),
        ([(0x00280120, "US", 63536)], ()),
        ([(0x00280120, "US", 60000), (0x00280121, "US", 65535)], ()),
        ([(0x00280120, "US", 65535), (0x00280121, "US", 60000)], ()),
        ([(0x00280120, "SS", -2000)], ()),  # of the wrong type: the same 16 bits
    ],
)
def test_padding_of_unsigned_pixels_is_air(tmp_path, tags, notes):
    for z in range(3):
        pixels = np.full((4, 6), 1064, np.uint16)
        pixels[:, :2] = 63536  # -2000 in 16 bits
        path = tmp_path / f"{z}.dcm"
        write_slice(path, pixels, z, PixelRepresentation=0, RescaleIntercept=-1024)
        dataset = pydicom.dcmread(path)
        for tag, vr, value in tags:
            dataset.add_new(tag, vr, value)
        dataset.save_as(path)
    volume = read_series(tmp_path)
    assert (volume.hu[:, :, :2] == -1024).all()
    assert (volume.hu[:, :, 2:] == 40).all()
    assert volume.notes == notes


def test_pixels_beyond_all_hu_inside_the_image_are_refused(tmp_path):
    pixels = np.full((5, 5), 1064, np.uint16)
    pixels[2, 2] = 63536
    for z, name in enumerate("ab"):
        tags = {"PixelRepresentation": 0, "RescaleIntercept": -1024}
        write_slice(tmp_path / f"{name}.dcm", pixels, z, **tags)
    with pytest.raises(StudyError, match=r"a\.dcm: 1 voxels inside the image are no HU"):
        read_series(tmp_path)


# Cosines along rows and columns, and the orientation as (transposed, flip y, flip x).
@pytest.mark.parametrize(
    ("cosines", "orientation", "first_voxel"),
    [
        ([-1, 0, 0, 0, -1, 0], (False, True, True), (-200 - 7 * 0.5, -100 - 11 * 0.7)),
        ([1, 0, 0, 0, -1, 0], (False, True, False), (-200 - 7 * 0.5, -100)),
        ([0, 1, 0, 1, 0, 0], (True, False, False), (-200, -100)),
        ([0, 1, 0, -1, 0, 0], (True, False, True), (-200, -100 - 7 * 0.5)),
        ([0, -1, 0, 1, 0, 0], (True, True, False), (-200 - 11 * 0.7, -100)),
    ],
)
def test_orientation_is_brought_to_lps_and_undone(tmp_path, cosines, orientation, first_voxel):
    write_series(tmp_path, ImageOrientationPatient=cosines)
    volume = read_series(tmp_path)
    transposed, flip_y, flip_x = orientation
    expected = stored_pixels() - 1000
    if transposed:  # a row runs along y
        expected = expected.transpose(0, 2, 1)
    expected = expected[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    np.testing.assert_array_equal(volume.hu, expected)
    # PixelSpacing is (between rows, between columns) of the file.
    assert volume.spacing_mm == pytest.approx((2.5, 0.7, 0.5) if transposed else (2.5, 0.5, 0.7))
    assert volume.origin_mm == pytest.approx((0.0, *first_voxel))
    assert volume.orientation == Orientation(*orientation)
    assert volume.repairs == ("rows or columns turned to LPS",)
    np.testing.assert_array_equal(volume.orientation.to_stored(volume.hu), stored_pixels() - 1000)


@pytest.mark.parametrize(
    ("cosines", "reason"),
    [
        ([1, 0, 0, 0, 0.966, -0.259], r"tilted by 15 degrees \(gantry\)"),
        ([0.966, 0.259, 0, -0.259, 0.966, 0], "turned in their plane"),
        ([0, 1, 0, 0, 0, -1], "not axial"),
        ([1, 0, 0, 1, 0, 0], "not two perpendicular"),
    ],
)
def test_other_planes_are_refused_by_name(tmp_path, cosines, reason):
    write_series(tmp_path, ImageOrientationPatient=cosines)
    with pytest.raises(StudyError, match=reason):
        read_series(tmp_path)


def test_slices_shifted_sideways_and_studies_in_one_series_are_refused(tmp_path):
    write_series(tmp_path / "shifted")
    write_slice(
        tmp_path / "shifted" / "last.dcm",
        stored_pixels()[0],
        12.5,
        ImagePositionPatient=[-100.0, -150.0, 12.5],
    )
    with pytest.raises(StudyError, match="shifted sideways"):
        read_series(tmp_path / "shifted")
    write_series(tmp_path / "two")
    write_slice(tmp_path / "two" / "last.dcm", stored_pixels()[0], 12.5, StudyInstanceUID="1.7")
    with pytest.raises(StudyError, match="2 studies share one series"):
        read_series(tmp_path / "two")


def test_missing_slices_are_noted(tmp_path):
    write_series(tmp_path, positions=(0.0, 2.5, 10.0, 12.5, 15.0))
    volume = read_series(tmp_path)
    assert volume.notes == ("gap of 2 slices after z=1",)
    assert volume.missing_slices == 2
    assert volume.spacing_mm[0] == pytest.approx(2.5)


def test_uneven_distances_are_noted(tmp_path):
    write_series(tmp_path, positions=(0.0, 2.5, 5.0, 6.5, 9.0))
    assert read_series(tmp_path).notes == ("uneven slice distance, 1.50 to 2.50 mm",)


def test_two_slices_at_one_position_are_refused_unless_one_is_a_copy(tmp_path):
    paths = write_series(tmp_path, positions=(0.0, 2.5, 2.5, 5.0, 7.5))
    with pytest.raises(StudyError, match="same SOPInstanceUID"):
        read_series(tmp_path)
    dataset = pydicom.dcmread(paths[2])
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.save_as(paths[2])
    with pytest.raises(StudyError, match=r"one position \(2.5 mm\)"):
        read_series(tmp_path)
    paths[2].write_bytes(paths[1].read_bytes())
    volume = read_series(tmp_path)
    assert len(volume.hu) == 4
    assert volume.repairs == ("1 files are copies of others: left out",)


def test_localizers_and_reports_are_set_aside(tmp_path):
    write_series(tmp_path)
    image_type = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slice(tmp_path / "scout.dcm", stored_pixels()[0], 90.0, ImageType=image_type)
    write_slice(
        tmp_path / "report.dcm", stored_pixels()[0], 91.0, Modality="SR", SeriesInstanceUID="1.9"
    )
    volume = read_series(tmp_path)
    assert len(volume.hu) == 5
    assert volume.repairs == (
        "set aside: a localizer (1 files)",
        "set aside: an object of modality SR (1 files)",
    )
    # Within the series the tag must be damaged.
    write_slice(tmp_path / "odd.dcm", stored_pixels()[0], 92.0, Modality="CU")
    with pytest.raises(StudyError, match=r"odd\.dcm: an object of modality CU in a series of CT"):
        read_series(tmp_path)


def test_mixed_series_are_listed_and_one_can_be_chosen(tmp_path):
    write_series(tmp_path / "one")
    write_series(tmp_path / "two", SeriesInstanceUID="1.9", RescaleIntercept=0)
    with pytest.raises(StudyError, match=rf"choose one.*{SERIES} \(5 files\), 1.9 \(5 files"):
        read_series(tmp_path)
    assert read_series(tmp_path, series="1.9").hu[0, 0, 5] == 5
    with pytest.raises(StudyError, match=r"'1\.8' is none of"):
        read_series(tmp_path, series="1.8")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 65535}, "unlike the first"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"PhotometricInterpretation": "RGB"}, "RGB"),
        ({"RescaleSlope": None}, "RescaleSlope is missing"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImagePositionPatient": [1, 2]}, "does not hold 3 numbers"),
        ({"PixelSpacing": [0, 1]}, "must be positive"),
        ({"Modality": "MR"}, "modality MR, not a CT slice"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer, not a CT"),
        ({"PixelSpacing": [1, 100]}, "pixel spacing of 100 mm"),
        ({"ImagePositionPatient": [-100, -200, 2000]}, "1990 mm between two slices"),
        ({"PixelData": None}, "cannot be decoded"),
        ({"Rows": 80}, "unlike the first"),
    ],
)
def test_other_images_are_refused_by_file_and_reason(tmp_path, tags, reason):
    whole_series = set(tags) & {"PixelSpacing", "Modality", "ImageType"}
    write_series(tmp_path, **(tags if whole_series else {}))
    if not whole_series:
        write_slice(tmp_path / "zz.dcm", stored_pixels()[0], 12.5, **tags)
    with pytest.raises(StudyError, match=reason) as caught:
        read_series(tmp_path)
    assert str(caught.value.where) in str(caught.value)
    assert caught.value.where.is_file()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLosslessSV1])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.6, 0.9, 0.99])
def test_truncated_file_is_an_error_that_names_it(tmp_path, syntax, part):
    broken = write_series(tmp_path, syntax=syntax)[2]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(StudyError, match=broken.name) as caught:
        read_series(tmp_path)
    # The reason may be shared, the file's name may not.
    assert broken.name not in caught.value.reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


def test_files_that_are_no_dicom(tmp_path):
    with pytest.raises(StudyError, match=f"{tmp_path}: no DICOM file"):
        read_series(tmp_path)
    with pytest.raises(StudyError, match="absent: the folder cannot be read"):
        read_series(tmp_path / "absent")
    write_series(tmp_path)
    (tmp_path / "mask.nrrd").write_text("NRRD")
    (tmp_path / ".hidden").write_text("x")
    assert read_series(tmp_path).notes == ("ignored 2 files that are not DICOM images",)
    (tmp_path / "page.dcm").write_text("<html>" * 100)
    with pytest.raises(StudyError, match=r"page.dcm: not a DICOM file"):
        read_series(tmp_path)


def test_dicomdir_is_passed_over(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "DICOMDIR", stored_pixels()[0], 99.0)
    dataset = pydicom.dcmread(tmp_path / "DICOMDIR")
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.SOPClassUID = MediaStorageDirectoryStorage
    dataset.save_as(tmp_path / "DICOMDIR")
    assert len(read_series(tmp_path).hu) == 5


def test_a_loop_of_links_ends(tmp_path):
    write_series(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(read_series(tmp_path).hu) == 5


def test_headers_are_read_without_pixels(tmp_path):
    paths = write_series(tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:-50])
    series = open_series(tmp_path)
    assert (series.shape, series.syntaxes) == (SHAPE, (ExplicitVRLittleEndian.keyword,))
    assert series.sop_uids == tuple(f"1.2.3.{5000 + 25 * z}" for z in range(5))
    headers = read_headers(tmp_path)
    assert len(headers) == 5
    assert set(headers["SeriesInstanceUID"]) == {SERIES}
    assert set(headers["TransferSyntax"]) == {ExplicitVRLittleEndian.keyword}
    assert set(headers["Rows"]) == {"8"}


def test_a_real_chest_ct(shared_data):
    volume = read_series(shared_data / "chest_dicom")
    assert volume.hu.shape == (79, 64, 64)
    assert volume.spacing_mm == pytest.approx((3.98734, 4.171872, 4.171872), abs=1e-4)
    assert volume.origin_mm == pytest.approx((-360.256, -264.414, -128.414))
    # The head end comes last: bone of the shoulders, while the first slice shows the liver.
    first = pydicom.dcmread(shared_data / "chest_dicom" / "IMG0001.dcm")
    np.testing.assert_array_equal(volume.hu[0], first.pixel_array.clip(-1024))
