"""Landmarks from masks, from CSV files, and as a table of all twenty."""

import numpy as np
import pytest

from data_prep.anatomy import segment
from data_prep.anatomy.masks import Masks
from data_prep.dicom import read_series
from data_prep.images import read_image
from data_prep.landmarks import from_masks, landmark_table, read_landmarks_csv, to_voxels
from data_prep.phantom import PhantomConfig, make_phantom
from data_prep.volume import Volume
from pekit.common.errors import UserError
from pekit.dataset.schema import LANDMARKS


@pytest.mark.parametrize("seed", [2, 6, 9, 12])
def test_phantom_landmarks_are_found_near_their_truth(seed):
    phantom = make_phantom(seed, PhantomConfig())
    masks = segment(phantom.hu, phantom.spacing_mm)
    found = from_masks(masks, phantom.hu, phantom.spacing_mm)
    volume = Volume(phantom.hu, phantom.spacing_mm, phantom.origin_mm, "s", "t", ())
    truth = to_voxels(phantom.landmarks_mm, volume)
    # At this voxel size a main bronchus may enter the lung at once.
    bronchi = [name for name in ("Right Primary Bronchus", "Left Primary Bronchus") if found[name]]
    assert bronchi
    tops = ("Right Lung Top", "Left Lung Top", "Carina Bifurcation", "Liver Top", "Heart")
    inside = [name for name in (*tops, *bronchi) if truth[name]]  # a short scan may lack the liver
    assert len(inside) > 4
    for name in inside:
        error = np.array(found[name]) - truth[name]
        assert np.linalg.norm(error * phantom.spacing_mm) < 18, name


def test_landmarks_of_a_real_ct(shared_data):
    volume = read_series(shared_data / "chest_dicom")
    masks = segment(volume.hu, volume.spacing_mm)
    found = from_masks(masks, volume.hu, volume.spacing_mm)
    # Placed by eye in pictures of the slices, voxels (z, y, x).
    seen = {
        "Carina Bifurcation": (53, 29.5, 30.5),
        "Right Lung Top": (75, 30, 22),
        "Left Lung Top": (75, 30, 42),
        "Heart": (34, 21, 32),
        "Liver Top": (23, 20, 17),
    }
    for name, voxel in seen.items():
        error = (np.array(found[name]) - voxel) * volume.spacing_mm
        assert np.linalg.norm(error) < 15, name


def test_traced_main_bronchi_of_a_real_ct(shared_data):
    image = read_image(shared_data / "chest_ct" / "lung2_image.nrrd")
    hu = image.array.astype(np.int16)
    nothing = np.zeros(hu.shape, bool)
    found = from_masks(Masks(nothing, nothing), hu, image.spacing_mm)
    # Read off pictures of the slices: from the carina (slice 40) to the origin of the right upper
    # lobe bronchus (slice 37), and 2.5 cm down on the left.
    for name, voxel in {
        "Right Primary Bronchus": (38.5, 275, 241),
        "Left Primary Bronchus": (37, 287, 281),
    }.items():
        error = (np.array(found[name]) - voxel) * image.spacing_mm
        assert np.linalg.norm(error) < 10, name


def test_landmarks_cut_by_the_edge_are_absent():
    shape = (10, 12, 12)
    lung, heart = np.zeros((2, *shape), bool)
    lung[2:9, 3:9, 1:4] = True
    lung[2:10, 3:9, 8:11] = True
    heart[0:4, 4:6, 5:7] = True
    hu = np.where(lung, -850, 40).astype(np.int16)
    found = from_masks(Masks(lung, heart), hu, (5.0, 4.0, 4.0))
    assert found["Right Lung Top"] == (8.0, 5.5, 2.0)
    assert found["Left Lung Top"] is None
    assert found["Heart"] is None
    assert found["Carina Bifurcation"] is None
    assert found["Liver Top"] is None
    heart[0] = False
    assert from_masks(Masks(lung, heart), hu, (5.0, 4.0, 4.0))["Heart"] == (2.0, 4.5, 5.5)


def test_csv_in_mm_becomes_voxels(tmp_path):
    """After a gap too, and a landmark beyond the volume is absent."""
    path = tmp_path / "landmarks.csv"
    path.write_text("StudyInstanceUID,name,z_mm,y_mm,x_mm\n000012345678,T4,-10,20.5,6\n")
    table = read_landmarks_csv(path)
    assert table["StudyInstanceUID"].tolist() == ["000012345678"]
    z_mm = np.array([-20, -17.5, -15, -10, -7.5])  # -12.5 is missing
    hu = np.zeros((5, 20, 30), np.int16)
    volume = Volume(hu, (2.5, 2, 0.5), (-20, 0.5, -4), "s", "t", ("",) * 5, z_mm=z_mm)
    row = table.iloc[0]
    given = {row["name"]: (row.z_mm, row.y_mm, row.x_mm), "Heart": None, "Liver Top": (0, 20, 6)}
    voxels = to_voxels(given, volume)
    assert voxels == {"T4": (3.0, 10.0, 20.0), "Heart": None, "Liver Top": None}
    present = landmark_table("s", voxels).set_index("name")["present"]
    assert present[present].index.tolist() == ["T4"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("StudyInstanceUID,name,z_mm,y_mm\n", "lacks the columns x_mm"),
        ("{head}\na,Hart,1,2,3\n", "unknown landmark 'Hart': did you mean Heart"),
        ("{head}\na,T4,1,2,3\na,T4,1,2,4\n", "study a has 'T4' twice"),
        ("{head}\na,Heart,1,2,3\na,T4,1,,3\n", "row 3 has no position"),
        ("{head}\na,T4,1,two,3\n", "row 2 has no position"),
        ("{head}\na,T4,1,2,inf\n", "row 2 has no position"),
        ("{head}\na,T4,1,2,3\n../a,T4,1,2,3\n", "row 3 has no valid StudyInstanceUID"),
        ("{head}\na\\b,T4,1,2,3\n", "row 2 has no valid StudyInstanceUID"),
        ("{head}\n..,T4,1,2,3\n", "row 2 has no valid StudyInstanceUID"),
        ("{head}\n,T4,1,2,3\n", "row 2 has no valid StudyInstanceUID"),
        ("", "is not a CSV"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, problem):
    path = tmp_path / "landmarks.csv"
    path.write_text(text.replace("{head}", "StudyInstanceUID,name,z_mm,y_mm,x_mm"))
    with pytest.raises(UserError, match=problem) as caught:
        read_landmarks_csv(path)
    assert str(path) in str(caught.value)


def test_missing_csv_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv does not exist"):
        read_landmarks_csv(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_landmarks_csv(tmp_path)


def test_table_has_all_twenty():
    table = landmark_table("0003b3d648eb", {"T4": (1.0, 2.0, 3.5), "Heart": None})
    assert table["name"].tolist() == list(LANDMARKS)
    assert table.loc[table.present, ["name", "z", "y", "x"]].to_numpy().tolist() == [
        ["T4", 1.0, 2.0, 3.5]
    ]
    assert table["z"].isna().sum() == 19
    assert set(table["StudyInstanceUID"]) == {"0003b3d648eb"}
    with pytest.raises(UserError, match="did you mean Liver Top"):
        landmark_table("0003b3d648eb", {"Liver top": None})
