"""The adapters to TotalSegmentator and lungmask.

The packages are faked, since the adapters are responsible for axes, labels, weights and settings.
Two tests use the real packages if they are installed.
"""

import json
import os
import sys
import types
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from data_prep.anatomy import segment
from data_prep.anatomy.from_lungmask import R231
from data_prep.anatomy.from_totalsegmentator import ORGANS
from data_prep.anatomy.precomputed import LOBES
from pekit.common.errors import UserError

SPACING = (10.0, 8.0, 8.0)
CLASSES = {5 + 2 * i: name for i, name in enumerate((*LOBES, "heart", *ORGANS, "spleen"))}
NUMBERS = {name: number for number, name in CLASSES.items()}


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body with two lungs, a bright heart between them and a clavicle at the left top."""
    hu = np.full((30, 40, 50), -1000, np.int16)
    hu[:, 4:36, 4:46] = 40
    lung, heart = np.zeros((2, *hu.shape), bool)
    lung[5:25, 10:30, 8:16] = lung[5:25, 10:30, 34:42] = True
    heart[8:18, 12:22, 20:30] = True
    hu[lung], hu[heart] = -850, 300
    hu[27, 6, 40] = 1000
    return hu, lung, heart


@pytest.fixture
def totalsegmentator(monkeypatch, tmp_path):
    """A fake TotalSegmentator that labels by the image's world coordinates (RAS)."""
    seen = []

    def run(image, output, task, fast, roi_subset, device, quiet):
        home = Path(os.environ["TOTALSEG_HOME_DIR"])
        seen.append(
            {
                "task": task,
                "fast": fast,
                "roi": roi_subset,
                "config": json.loads((home / "config.json").read_text()),
                "home": home,
                "weights": os.environ["TOTALSEG_WEIGHTS_PATH"],
                "forced": os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"],
            }
        )
        os.environ["NNUNET_RESULTS"] = os.environ["TOTALSEG_WEIGHTS_PATH"]  # as it does
        hu = np.asarray(image.dataobj)
        labels = np.zeros(hu.shape, np.uint8)
        if task == "lung_vessels":
            labels[hu == 300] = 1
            labels[hu == 40] = 2
        else:
            world = nibabel.affines.apply_affine(image.affine, np.argwhere(hu == -850))
            right = world[:, 0] > world[:, 0].mean()
            at = np.argwhere(hu == -850)
            labels[tuple(at[right].T)] = NUMBERS["lung_middle_lobe_right"]
            labels[tuple(at[~right].T)] = NUMBERS["lung_upper_lobe_left"]
            labels[hu == 300] = NUMBERS["heart"]
            labels[hu == 40] = NUMBERS["spleen"]
            bone = np.argwhere(hu == 1000)
            x, y, z = nibabel.affines.apply_affine(image.affine, bone[0])
            middle = nibabel.affines.apply_affine(image.affine, np.array(hu.shape) / 2)
            # RAS: the patient's left, front and top.
            assert (x < middle[0], y > middle[1], z > middle[2]) == (True, True, True)
            labels[tuple(bone.T)] = NUMBERS["clavicula_left"]
        return nibabel.Nifti1Image(labels, image.affine)

    package = types.ModuleType("totalsegmentator")
    package.python_api = types.SimpleNamespace(totalsegmentator=run)
    package.map_to_binary = types.SimpleNamespace(class_map={"total": CLASSES})
    folders = {n: {"foldername": f"Dataset{n}_x"} for n in (117, *range(291, 296), 297, 298)}
    package.map_tasks_config = types.SimpleNamespace(TASK_ID_WEIGHTS_CONFIGS=folders)
    monkeypatch.setitem(sys.modules, "totalsegmentator", package)
    for name in ("python_api", "map_to_binary", "map_tasks_config"):
        monkeypatch.setitem(sys.modules, f"totalsegmentator.{name}", getattr(package, name))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    return seen


def test_totalsegmentator_axes_labels_and_settings(totalsegmentator, tmp_path):
    hu, lung, heart = chest()
    (tmp_path / "w" / "Dataset297_x").mkdir(parents=True)
    before = dict(os.environ)
    masks = segment(hu, SPACING, "totalsegmentator", weights=tmp_path / "w")
    np.testing.assert_array_equal(masks.lung, lung)
    np.testing.assert_array_equal(masks.heart, heart)
    assert list(masks.organs) == ["clavicula_left"]
    assert np.argwhere(masks.organs["clavicula_left"]).tolist() == [[27, 6, 40]]
    (call,) = totalsegmentator
    assert (call["task"], call["fast"], call["roi"]) == ("total", True, None)
    assert call["config"]["send_usage_stats"] is False
    assert call["weights"] == str(tmp_path / "w")
    assert call["forced"] == "1"
    assert not call["home"].exists()
    assert dict(os.environ) == before
    assert not (tmp_path / "home").exists()


def test_totalsegmentator_at_full_resolution_with_airways(totalsegmentator, tmp_path, monkeypatch):
    hu, lung, heart = chest()
    for number in (291, 292, 293, 294, 295, 298):
        (tmp_path / f"Dataset{number}_x").mkdir()
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path))
    segment(hu, SPACING, "totalsegmentator", fast=False)
    assert {*LOBES, "heart", *ORGANS} == set(totalsegmentator[0]["roi"])
    with pytest.raises(UserError, match=r"Dataset117_x, Dataset297_x"):
        segment(hu, SPACING, "totalsegmentator", fast=False, airways=True)
    for number in (117, 297):
        (tmp_path / f"Dataset{number}_x").mkdir()
    masks = segment(hu, SPACING, "totalsegmentator", fast=False, airways=True)
    assert totalsegmentator[-1]["task"] == "lung_vessels"
    assert set(masks.organs) == {"clavicula_left", "lung_trachea_bronchia"}
    np.testing.assert_array_equal(masks.organs["lung_trachea_bronchia"], heart)
    np.testing.assert_array_equal(masks.lung, lung)


def test_totalsegmentator_without_weights_names_the_folder(totalsegmentator, tmp_path):
    hu, _, _ = chest()
    place = tmp_path / "home" / ".totalsegmentator" / "nnunet" / "results"
    with pytest.raises(UserError, match=r"Dataset297_x.*TOTALSEG_WEIGHTS_PATH") as caught:
        segment(hu, SPACING, "totalsegmentator")
    assert str(place) in str(caught.value)
    assert totalsegmentator == []
    assert not place.exists()


@pytest.fixture
def lungmask(monkeypatch, tmp_path):
    """A fake lungmask: lungs are voxels of -850 HU; it silences warnings like the real one."""
    seen = []

    class LMInferer:
        def __init__(self, modelpath, force_cpu, tqdm_disable):
            self.state = torch.load(modelpath)
            seen.append((modelpath, force_cpu, tqdm_disable))

        def apply(self, hu):
            assert hu.dtype == np.int16
            labels = (hu == -850).astype(np.uint8)
            labels[:, :, hu.shape[2] // 2 :] *= 2
            return labels

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "lungmask":
                return ModuleSpec(name, self)
            return None

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            warnings.filterwarnings("ignore", category=UserWarning)
            module.LMInferer = LMInferer

    finder = Finder()
    monkeypatch.delitem(sys.modules, "lungmask", raising=False)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield seen
    sys.modules.pop("lungmask", None)


def test_lungmask_finds_lungs_and_threshold_the_heart(lungmask, tmp_path, monkeypatch):
    hu, lung, heart = chest()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = tmp_path / "hub" / "checkpoints" / R231
    with pytest.raises(UserError, match="option weights") as caught:
        segment(hu, SPACING, "lungmask")
    assert str(weights) in str(caught.value)
    weights.parent.mkdir(parents=True)
    torch.save({"w": torch.ones(2)}, weights)
    filters = list(warnings.filters)
    masks = segment(hu, SPACING, "lungmask", force_cpu=True)
    assert warnings.filters == filters
    np.testing.assert_array_equal(masks.lung, lung)
    assert (masks.heart & heart).sum() > 0.8 * heart.sum()
    segment(hu, SPACING, "lungmask", force_cpu=True)
    assert lungmask == [(str(weights), True, True)]  # loaded once


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def check_refusal(tmp_path, monkeypatch):
    hu, _, _ = chest()
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.pth"
    torch.save({"w": RunsCode()}, weights)
    with pytest.raises(UserError, match=r"weights\.pth holds no weights of lungmask"):
        segment(hu, SPACING, "lungmask", weights=weights)
    assert not (tmp_path / "ran").exists()


def test_weights_that_hold_code_do_not_run(lungmask, tmp_path, monkeypatch):
    check_refusal(tmp_path, monkeypatch)


def test_real_lungmask_refuses_weights_that_hold_code(tmp_path, monkeypatch):
    pytest.importorskip("lungmask", reason="lungmask is not installed")
    check_refusal(tmp_path, monkeypatch)


def test_real_totalsegmentator_knows_the_names(tmp_path):
    pytest.importorskip("totalsegmentator", reason="TotalSegmentator is not installed")
    from totalsegmentator.map_to_binary import class_map

    assert {*LOBES, "heart", *ORGANS} <= set(class_map["total"].values())
    assert class_map["lung_vessels"][1] == "lung_airways"
    hu, _, _ = chest()
    with pytest.raises(UserError, match="Dataset297_TotalSegmentator_total_3mm_1559subj"):
        segment(hu, SPACING, "totalsegmentator", weights=tmp_path)


@pytest.mark.parametrize("package", ["totalsegmentator", "lungmask"])
def test_a_missing_package_names_its_extra(package, tmp_path, monkeypatch):
    hu, _, _ = chest()
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    weights = tmp_path / "weights.pth"
    torch.save({}, weights)
    with pytest.raises(UserError, match=rf"pip install 'pekit\[{package}\]'"):
        segment(hu, SPACING, package, weights=weights)
