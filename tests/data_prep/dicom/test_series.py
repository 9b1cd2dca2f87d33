"""A folder of DICOM files becomes one volume in HU and LPS axes, or an error names the file."""

import gzip
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from encoders import BY_GDCM, compress
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
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
    message = r"2 files: 1 voxels inside the image are no HU.*a\.dcm, b\.dcm"
    with pytest.raises(StudyError, match=message):
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
    with pytest.raises(StudyError, match=r"SERIES=1 \(5 files\), SERIES=2 \(5 files") as caught:
        read_series(tmp_path)
    assert SERIES not in str(caught.value)
    for series, stored_zero in (("1", 0), ("1.9", 0), ("2", -1000), (SERIES, -1000)):
        assert read_series(tmp_path, series).hu[0, 0, 5] == stored_zero + 5
    with pytest.raises(StudyError, match=r"no such series; choose one .*SERIES=1"):
        read_series(tmp_path, series="3")


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


def test_slices_keep_their_positions_after_a_gap(tmp_path):
    write_series(tmp_path, positions=(0.0, 2.5, 10.0, 12.5, 15.0))
    assert read_series(tmp_path).z_mm.tolist() == [0, 2.5, 10, 12.5, 15]


def test_a_link_to_half_of_the_series_is_followed(tmp_path):
    write_series(tmp_path / "study")
    (tmp_path / "study" / "part1").rename(tmp_path / "elsewhere")
    (tmp_path / "study" / "part1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "study" / "again").symlink_to(tmp_path / "study" / "part0")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "study")
    volume = read_series(tmp_path / "study")
    assert (len(volume.hu), volume.repairs) == (5, ())
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "series").symlink_to(tmp_path / "study")
    assert len(read_series(tmp_path / "all").hu) == 5


@pytest.mark.parametrize("name", ["part1", "part0/9.dcm"])
def test_a_link_to_nothing_is_refused(tmp_path, name):
    write_series(tmp_path)
    link = tmp_path / name
    if link.is_dir():
        link = tmp_path / "part2"
    else:
        link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="link to a file that is missing") as caught:
        read_series(tmp_path)
    assert caught.value.where == link


def write_two(folder: Path, first: dict, second: dict, shift: float = 1.25, count: int = 5) -> None:
    """Two acquisitions in one series: the second has twice the values, `shift` mm higher.

    A tag's value may be a function of the slice's number.
    """
    for k, tags in enumerate((first, second)):
        for z in range(count):
            values = {n: v(z) if callable(v) else v for n, v in tags.items()}
            pixels = stored_pixels()[z % 5] * (k + 1)
            uid = f"1.2.3.{k}.{z}"
            path = folder / f"{k}{z}.dcm"
            write_slice(path, pixels, 2.5 * z + k * shift, SOPInstanceUID=uid, **values)


@pytest.mark.parametrize("shift", [1.25, 0.0, -0.5])
@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("AcquisitionNumber", (3, 12)),
        ("ContentTime", ("101500", "101730.25")),
        ("ContentTime", (lambda z: f"1015{z:02}.5", lambda z: f"1018{z:02}.5")),
        ("AcquisitionTime", (lambda z: f"101500.{z}", lambda z: f"101500.{z + 5}")),
        ("TriggerTime", (100, 450)),
        ("ExposureTime", (500, 750)),
        ("Exposure", (20, 210)),
        ("ContrastBolusAgent", ("", "Iopamidol")),
    ],
)
def test_interleaved_acquisitions_are_named_and_one_can_be_chosen(tmp_path, tag, values, shift):
    """Without and with contrast in one series, as public data sets have them (dcm2niix#721)."""
    write_two(tmp_path, {tag: values[0]}, {tag: values[1]}, shift)
    with pytest.raises(StudyError, match=f"2 acquisitions share one series.*by {tag}") as caught:
        read_series(tmp_path)
    assert "SERIES=1.1 (5 files), SERIES=1.2 (5 files)" in str(caught.value)
    for k in (1, 2):
        volume = read_series(tmp_path, series=f"1.{k}")
        np.testing.assert_array_equal(volume.hu, stored_pixels() * k - 1000)
        assert volume.spacing_mm[0] == pytest.approx(2.5)


def test_acquisitions_above_each_other_or_alike_by_chance_are_one_volume(tmp_path):
    # A scan in steps: each rotation is an acquisition.
    write_two(tmp_path / "a", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, shift=12.5)
    assert len(read_series(tmp_path / "a").hu) == 10
    # The tube's current follows the patient: values repeat, without an order.
    current = [200, 200, 210, 200, 210, 210, 200, 210, 210, 210]
    times = [f"10150{z // 4}.{z % 4}" for z in (3, 0, 1, 2, 7, 4, 5, 6, 9, 8)]
    for z in range(10):
        tags = {"XRayTubeCurrent": current[z], "ContentTime": times[z], "AcquisitionNumber": 1}
        write_slice(tmp_path / "b" / f"{z}.dcm", stored_pixels()[0], 2.5 * z, **tags)
    assert len(read_series(tmp_path / "b").hu) == 10
    # Or it alternates with the rotation.
    for z in range(10):
        tags = {"XRayTubeCurrent": (200, 250)[z % 2], "InstanceNumber": 90 - z}
        write_slice(tmp_path / "c" / f"{z}.dcm", stored_pixels()[0], 2.5 * z, **tags)
    assert len(read_series(tmp_path / "c").hu) == 10


def without_meta(path: Path, what: str) -> None:
    """Leave out parts of the file meta, as public files do."""
    pydicom.dcmread(path).save_as(path, enforce_file_format=True)
    raw, meta = path.read_bytes(), pydicom.dcmread(path).file_meta
    data = raw[144 + int.from_bytes(raw[140:144], "little") :]
    if what == "no preamble":
        path.write_bytes(raw[132:])
    elif what == "no meta":
        path.write_bytes(data)
    else:
        short = FileMetaDataset()
        if keep := what.removeprefix("only "):
            setattr(short, keep, meta[keep].value)
        file = io.BytesIO()
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, short, enforce_standard=False)
        path.write_bytes(file.getvalue() + data)


META = (
    "only TransferSyntaxUID", "only MediaStorageSOPClassUID", "only ", "no preamble", "no meta",
)  # fmt: skip


@pytest.mark.parametrize("what", META)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_meta_with_less_than_the_standard_asks(tmp_path, syntax, what):
    for path in write_series(tmp_path, syntax=syntax):
        without_meta(path, what)
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.hu, stored_pixels() - 1000)
    assert (volume.notes, volume.repairs) == ((), ())
    assert open_series(tmp_path).syntaxes == (syntax.keyword,)


def test_a_syntax_of_compressed_pixels_is_not_guessed(tmp_path):
    for path in write_series(tmp_path, syntax=JPEGLosslessSV1):
        without_meta(path, "only MediaStorageSOPClassUID")
    with pytest.raises(StudyError, match="5 files: compressed pixels without a transfer syntax"):
        read_series(tmp_path)


def test_files_of_a_disc_or_an_archive_are_set_aside_and_counted(tmp_path):
    write_series(tmp_path)
    others = {
        "LICENSE": b"CC BY " * 99, "Thumbs.db": bytes(600), "AUTORUN.INF": b"[autorun]",
        "viewer/start.exe": b"MZ" + bytes(900), "viewer/libgtk.so.1": b"\x7fELF", "README": b"",
        "notes.pdf": b"%PDF-1.4", "series.tar.gz": gzip.compress(b"tar" * 200), ".DS_Store": b"x",
    }  # fmt: skip
    for name, content in others.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    volume = read_series(tmp_path)
    assert len(volume.hu) == 5
    assert volume.notes == (f"ignored {len(others)} files that are not DICOM images",)


def test_a_dose_report_of_one_page_is_set_aside(tmp_path):
    """A screen capture of modality CT in a series of its own, without a position."""
    write_series(tmp_path)
    none = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    page = {"SeriesInstanceUID": "1.9", "SOPInstanceUID": "1.9.1", "RescaleSlope": None}
    write_slice(tmp_path / "dose.dcm", stored_pixels()[0], 0.0, **none, **page)
    volume = read_series(tmp_path)
    assert len(volume.hu) == 5
    assert volume.repairs == (
        "set aside: a series without positions, such as a dose report (1 files)",
    )


@pytest.mark.parametrize(
    ("names", "damaged"),
    [
        ("IM{:04}", "IM0002"),
        ("{}.dcm", "2.dcm"),
        ("1.2.840.{}", "1.2.840.2"),
        ("{:08X}", "00000002"),
    ],
)
@pytest.mark.parametrize("content", [b"", bytes(9000), b"<html>" * 99])
def test_a_damaged_file_is_told_from_other_files_by_its_name(tmp_path, names, damaged, content):
    for z, pixels in enumerate(stored_pixels()):
        write_slice(tmp_path / names.format(z), pixels, 2.5 * z)
    (tmp_path / "LICENSE").write_text("CC BY")
    (tmp_path / damaged).write_bytes(content)
    with pytest.raises(StudyError, match="not a DICOM file, or damaged") as caught:
        read_series(tmp_path)
    assert caught.value.where == tmp_path / damaged


def test_files_compressed_by_gzip_are_named(tmp_path):
    for path in write_series(tmp_path):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(StudyError, match=f"5 files: .* gzip.*9.dcm.gz.*gunzip -r {tmp_path}"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PixelData": bytes(20)}, "3 files: the pixels cannot be decoded"),
        ({"RescaleSlope": None}, "3 files: the tag RescaleSlope is missing"),
        ({"NumberOfFrames": 3}, "3 files: a multi-frame file"),
        ({"PixelSpacing": [1, 1]}, "3 files: orientation or pixel spacing unlike"),
        ({"SOPInstanceUID": "1.2"}, "2 files: another file has the same SOPInstanceUID"),
        ({"Modality": "MR"}, "3 files: an object of modality MR in a series of CT"),
        ({"SeriesInstanceUID": None}, "3 files: no SeriesInstanceUID"),
    ],
)
def test_all_files_with_the_same_fault_are_named_at_once(tmp_path, tags, reason):
    write_series(tmp_path)
    for k in range(3):
        write_slice(tmp_path / f"zz{k}.dcm", stored_pixels()[k], 20.0 + 2.5 * k, **tags)
    with pytest.raises(StudyError, match=reason) as caught:
        read_series(tmp_path)
    first = 1 if "SOPInstanceUID" in tags else 0
    assert all(f"zz{k}.dcm" in str(caught.value) for k in range(first, 3))
    assert "zz" not in caught.value.reason


@pytest.mark.parametrize(
    ("name", "reason", "command"),
    [
        ("SeriesInstanceUID", "5 series of one file each", "-m SeriesInstanceUID=1.2.3"),
        ("StudyInstanceUID", "5 studies share one series", "-m StudyInstanceUID=1.2.3"),
        ("SOPInstanceUID", "4 files: another file has the same SOPInstanceUID", "-gin"),
    ],
)
def test_uids_of_a_bad_export_are_said_with_a_command(tmp_path, name, reason, command):
    """A UID for each slice that all should share (dcm2niix#495, fo-dicom#497), or the reverse."""
    for z, path in enumerate(write_series(tmp_path)):
        dataset = pydicom.dcmread(path)
        setattr(dataset, name, "1.2.3" if name == "SOPInstanceUID" else f"1.2.{z}")
        dataset.save_as(path)
    with pytest.raises(StudyError, match=reason) as caught:
        read_series(tmp_path)
    assert f"dcmodify -nb {command} " in str(caught.value)
    assert str(tmp_path) in caught.value.way_out


def test_a_decimal_comma_is_said_with_its_way_out(tmp_path):
    for path in write_series(tmp_path):
        path.write_bytes(path.read_bytes().replace(b"0.5\\0.7", b"0,5\\0,7"))
    with pytest.raises(StudyError, match="comma") as caught:
        read_series(tmp_path)
    assert r"dcmodify -nb -m 'PixelSpacing=0.5\0.7'" in str(caught.value)


def test_names_that_are_not_utf8_are_read_and_named(tmp_path):
    folder = os.fsencode(tmp_path) + b"/M\xfcller"
    os.mkdir(folder)
    for path in write_series(tmp_path / "series"):
        os.rename(path, folder + b"/\xe9" + path.name.encode())
    place = Path(os.fsdecode(folder))
    assert len(read_series(place).hu) == 5
    broken = sorted(place.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(StudyError, match=r"M\\xfcller/\\xe95\.dcm: ") as caught:
        read_series(place)
    str(caught.value).encode()  # so that it can be printed
