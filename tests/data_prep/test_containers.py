"""Image files that are damaged are refused, whatever the container; sound ones are read."""

import bz2
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from data_prep.anatomy.precomputed import read_mask
from data_prep.errors import StudyError
from data_prep.images import UNORIENTED, read_image, read_image_volume, write_image

SHAPE = (8, 10, 12)
HU = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
GRID = ((2.5, 0.5, 0.7), (30.0, -20.0, -10.0))
# Files by format: the header, the file with the voxels, and whether these have a checksum.
FORMATS = {
    "nifti": ("a.nii", "a.nii", False), "nifti-gzip": ("a.nii.gz", "a.nii.gz", True),
    "mha": ("a.mha", "a.mha", False), "mha-zlib": ("a.mha", "a.mha", True),
    "mhd": ("a.mhd", "a.raw", False), "mhd-zlib": ("a.mhd", "a.zraw", True),
    "nrrd": ("a.nrrd", "a.nrrd", False), "nrrd-gzip": ("a.nrrd", "a.nrrd", True),
    "nhdr": ("a.nhdr", "a.raw", False), "nhdr-gzip": ("a.nhdr", "a.raw.gz", True),
}  # fmt: skip
EACH = 36  # damaged files in each format


def write(folder: Path, form: str, array: np.ndarray = HU) -> Path:
    """A file as ITK writes it; returns its path."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(GRID[0][::-1])
    image.SetOrigin(GRID[1][::-1])
    path = folder / FORMATS[form][0]
    sitk.WriteImage(image, str(path), useCompression=FORMATS[form][2])
    return path


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, a piece of zeros, a piece more, a piece less, or the end cut off."""
    at, size = int(rng.integers(len(data))), int(rng.choice([1, 16, 200]))
    kind = rng.choice(["flip", "flip", "zero", "insert", "remove", "cut"])
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + rng.bytes(size) + data[at:]
    if kind == "remove":
        return data[:at] + data[at + size :]
    changed = bytearray(data)
    if kind == "zero":
        changed[at : at + size] = bytes(len(changed[at : at + size]))
    else:
        for place in rng.integers(len(data), size=rng.choice([1, 4])):
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("form", FORMATS)
def test_damage_is_refused_where_the_container_can_tell(tmp_path, form):
    header, file = write(tmp_path, form), tmp_path / FORMATS[form][1]
    whole, refused = file.read_bytes(), 0
    named = set()
    for seed in range(EACH):
        damaged = damage(whole, np.random.default_rng(seed))
        file.write_bytes(damaged)
        try:
            found = read_image(header).array
        except StudyError as error:
            refused += damaged != whole
            named.add((error.where, str(tmp_path) in error.reason))
            continue
        if FORMATS[form][2]:
            np.testing.assert_array_equal(found, HU, err_msg=f"seed {seed}")
        else:  # without a checksum, only the size can tell
            assert found.size == HU.size, f"seed {seed}"
            if len(damaged) != len(whole):  # in the text of the header
                np.testing.assert_array_equal(found, HU, err_msg=f"seed {seed}")
    assert named == {(header, False)}
    assert refused > (0.8 if FORMATS[form][2] else 0.3) * EACH


@pytest.mark.parametrize("form", ["mhd-zlib", "nhdr-gzip"])
def test_damage_of_a_header_beside_its_data(tmp_path, form):
    header = write(tmp_path, form)
    whole = header.read_bytes()
    for seed in range(EACH):
        header.write_bytes(damage(whole, np.random.default_rng(seed)))
        try:
            assert read_image(header).array.size == HU.size
        except StudyError:
            continue


@pytest.mark.parametrize("form", FORMATS)
def test_a_mask_that_is_cut_short_is_refused(tmp_path, form):
    path, file = write(tmp_path, form, (HU > 0).astype(np.uint8)), tmp_path / FORMATS[form][1]
    np.testing.assert_array_equal(read_mask(path, SHAPE, *GRID), HU > 0)
    whole = file.read_bytes()
    for size in (len(whole) * 6 // 10, len(whole) - 2):  # the last bytes are the checksum
        file.write_bytes(whole[:size])
        with pytest.raises(StudyError, match="not a readable image"):
            read_mask(path, SHAPE, *GRID)


@pytest.mark.parametrize("form", ["nifti", "nifti-gzip"])
def test_a_lost_part_that_was_filled_with_zeros_is_refused(tmp_path, form):
    hu = HU.copy()
    hu[5:] = 0
    with pytest.raises(StudyError, match="3 planes hold nothing but 0"):
        read_image_volume(write(tmp_path, form, hu))


def nrrd(header: str, data: bytes = b"") -> bytes:
    fields = (
        "NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior",
        "sizes: 12 10 8", "space directions: (0.7,0,0) (0,0.5,0) (0,0,2.5)", "endian: little",
        "space origin: (-10,-20,30)", header,
    )  # fmt: skip
    return "\n".join(fields).encode() + b"\n\n" + data


def metaimage(header: str, data: bytes = b"") -> bytes:
    fields = (
        "NDims = 3", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "DimSize = 12 10 8",
        "Offset = -10 -20 30", "ElementSpacing = 0.7 0.5 2.5", "ElementType = MET_SHORT", header,
    )  # fmt: skip
    return "\n".join(fields).encode() + b"\n" + data


RAW, TEXT = HU.astype("<i2").tobytes(), " ".join(map(str, HU.ravel())).encode()
HALVES = {"0.raw": RAW[: len(RAW) // 2], "1.raw": RAW[len(RAW) // 2 :]}


@pytest.mark.parametrize(
    ("name", "data", "files"),
    [
        ("a.nrrd", nrrd("encoding: raw", RAW), {}),
        ("a.nrrd", nrrd("encoding: ascii", TEXT), {}),
        ("a.nrrd", nrrd("encoding: bzip2", bz2.compress(RAW)), {}),
        ("a.nrrd", nrrd("encoding: gz", gzip.compress(RAW[:99]) + gzip.compress(RAW[99:])), {}),
        ("a.nhdr", nrrd("encoding: raw\nbyte skip: -1\ndata file: a.raw"), {"a.raw": b"x" + RAW}),
        ("a.nhdr", nrrd("encoding: raw\nline skip: 1\ndatafile: a.raw"), {"a.raw": b"x\n" + RAW}),
        ("a.nhdr", nrrd("encoding: raw\ndata file: %d.raw 0 1 1"), HALVES),
        ("a.nhdr", nrrd("encoding: raw\ndata file: LIST\n0.raw\n1.raw"), HALVES),
        ("a.mhd", metaimage("ElementDataFile = a b.raw"), {"a b.raw": RAW}),
        ("a.mhd", metaimage("HeaderSize = -1\nElementDataFile = a.raw"), {"a.raw": b"x" + RAW}),
        ("a.mhd", metaimage("ElementDataFile = %d.raw 0 1 1"), HALVES),
        ("a.mhd", metaimage("ElementDataFile = LIST\n0.raw\n1.raw\n"), HALVES),
        ("a.mha", metaimage("BinaryData = False\nElementDataFile = LOCAL", TEXT), {}),
        (
            "a.mha",
            metaimage(
                "BinaryDataByteOrderMSB = True\nElementDataFile = LOCAL", HU.astype(">i2").tobytes()
            ),
            {},
        ),
    ],
)
def test_sound_files_of_every_encoding(tmp_path, name, data, files):
    for part, content in (files | {name: data}).items():
        (tmp_path / part).write_bytes(content)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image.array, HU)
    assert image.spacing_mm == pytest.approx(GRID[0])
    assert image.origin_mm == pytest.approx(GRID[1])
    assert image.notes == ()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
def test_sound_nifti_of_every_kind(tmp_path, order, dtype):
    affine = np.diag([-0.7, -0.5, 2.5, 1.0])
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    image = nibabel.Nifti1Image(HU.T.astype(dtype), affine, header)
    nibabel.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, HU)
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([2, -5], f"{order}f4").tobytes()  # slope and intercept
    (tmp_path / "scaled.nii").write_bytes(gzip.compress(data))  # packed, whatever its name
    truth = nibabel.Nifti1Image.from_bytes(bytes(data)).get_fdata().T
    np.testing.assert_allclose(read_image(tmp_path / "scaled.nii").array, truth)
    np.testing.assert_allclose(truth, 2.0 * HU - 5)


@pytest.mark.parametrize("form", ["mhd", "mhd-zlib", "nhdr", "nhdr-gzip"])
def test_data_beside_the_users_path_or_beside_the_file_that_it_links_to(tmp_path, form):
    (tmp_path / "scan").mkdir()
    header = write(tmp_path / "scan", form)
    link = tmp_path / "run" / f"study{header.suffix}"
    link.parent.mkdir()
    link.symlink_to(header)
    np.testing.assert_array_equal(read_image(link).array, HU)
    # As in an annex: both files are links into a store of contents.
    store = tmp_path / "store"
    store.mkdir()
    for n, file in enumerate(sorted((tmp_path / "scan").iterdir())):
        file.rename(store / f"{n}{file.suffix}")
        file.symlink_to(os.path.relpath(store / f"{n}{file.suffix}", file.parent))
    np.testing.assert_array_equal(read_image(link).array, HU)
    (tmp_path / "scan" / FORMATS[form][1]).unlink()
    with pytest.raises(StudyError, match="a data file that it names is missing") as caught:
        read_image(link)
    assert f"put {FORMATS[form][1]} beside it" in caught.value.way_out


def test_a_file_that_does_not_say_how_it_lies_gets_a_remark(tmp_path):
    write_image(tmp_path / "said.nii.gz", HU, *GRID)
    assert read_image_volume(tmp_path / "said.nii.gz").notes == ()
    image = nibabel.Nifti1Image(HU.T, None)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_image_volume(tmp_path / "a.nii.gz").notes == (UNORIENTED,)
    (tmp_path / "a.mha").write_bytes(
        metaimage("ElementDataFile = LOCAL", RAW).replace(b"TransformMatrix", b"Comment")
    )
    assert read_image_volume(tmp_path / "a.mha").notes == (UNORIENTED,)
    (tmp_path / "a.nrrd").write_bytes(
        nrrd("encoding: raw", RAW).replace(b"left-posterior-superior", b"3D-right-handed")
    )
    assert read_image_volume(tmp_path / "a.nrrd").notes == (UNORIENTED,)


@pytest.mark.parametrize("mm", [0.0, 1e-6, 1e4])
def test_voxels_of_no_scanner_are_refused(tmp_path, mm):
    image = nibabel.Nifti1Image(HU.T, np.diag([0.7, 0.7, 2.5, 1.0]))
    data = bytearray(image.to_bytes())
    data[84:88] = np.float32(mm).tobytes()  # pixdim[2]
    data[254:256] = b"\0\0"  # the qform, made of pixdim, is used instead of the sform
    data[252:254] = b"\1\0"
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(StudyError, match=r"no CT's|not a readable image"):
        read_image(tmp_path / "a.nii")
