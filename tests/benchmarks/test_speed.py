"""Speed of single steps: `.venv/bin/python -m pytest tests/benchmarks --benchmark-only`.

Times depend on the machine: compare only within one run.
"""

import albumentations as A
import cv2
import numpy as np
import pydicom
import pytest
import torch

from data_prep.dicom import read_series
from data_prep.phantom import CohortConfig, PhantomConfig, make_phantom, write_cohort
from data_prep.prepare.study import PrepareSettings, prepare_volume
from pekit.common.files import write_table
from pekit.dataset.augment import AugmentSettings
from pekit.dataset.schema import BOX_COLUMNS, SLICE_LABEL
from pekit.dataset.stacks import StackDataset, read_stack, resize_slices, training_samples
from pekit.dataset.store import Store
from pekit.dataset.windows import WINDOWS
from pekit.hop import HopNet, to_best_device
from pekit.inference.predict import predict_volume
from pekit.model.encoder import Encoder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    write_cohort(out, CohortConfig(n_train=1, n_test=0, broken_fraction=0, slice_jitter=0))
    return out


@pytest.fixture(scope="module")
def study(cohort):
    return next((cohort / "train").iterdir())


@pytest.fixture(scope="module")
def large_store(tmp_path_factory):
    """One prepared study of realistic size: a 250 x 330 x 400 crop of smooth tissue and noise."""
    import pandas as pd

    store = Store.create(tmp_path_factory.mktemp("store"), {})
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 25, (250, 330, 400)) + np.linspace(-900, 300, 400)
    store.write_volume("0" * 12, hu.astype(np.int16))
    box = dict(zip(BOX_COLUMNS, (0, 250, 0, 330, 0, 400), strict=True))
    row = {"StudyInstanceUID": "0" * 12, "status": "ok", **box}
    write_table(store.root / "studies.parquet", pd.DataFrame([row]))
    slices = pd.DataFrame({"z": range(250), SLICE_LABEL: 0, "StudyInstanceUID": "0" * 12})
    slices = slices.assign(SeriesInstanceUID="1", SOPInstanceUID=slices["z"].astype(str))
    write_table(store.root / "slices.parquet", slices)
    return store


def test_phantom(benchmark):
    """One study of 48 x 128 x 128."""
    seeds = iter(range(10_000))
    benchmark(lambda: make_phantom(next(seeds), PhantomConfig()))


def test_read_series(benchmark, study):
    """48 DICOM files of 128 x 128."""
    benchmark(read_series, study)


def test_prepare_volume(benchmark, study):
    """Masks, hull, crop and landmarks of 48 x 128 x 128."""
    benchmark(prepare_volume, read_series(study), PrepareSettings())


@pytest.fixture(scope="module")
def dicom_slices(cohort, tmp_path_factory):
    """250 uncompressed DICOM files of 512 x 512."""
    folder = tmp_path_factory.mktemp("dicom")
    first = pydicom.dcmread(next((cohort / "train").rglob("*.dcm")))
    rng = np.random.default_rng(0)
    for z in range(250):
        hu = rng.normal(0, 25, (512, 512)) + np.linspace(-900, 300, 512)
        first.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        first.Rows = first.Columns = 512
        first.BitsAllocated = first.BitsStored = 16
        first.HighBit, first.PixelRepresentation = 15, 1
        first.RescaleSlope, first.RescaleIntercept = 1, 0
        first.PixelData = hu.astype(np.int16).tobytes()
        first.save_as(folder / f"{z:03}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@pytest.fixture
def one_core():
    """One OpenCV thread, as in a worker of the data loader."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


def albumentations(settings):
    """The paper's augmentation of floats in [0, 1], by Albumentations."""
    side = (settings.cutout_size / 2, settings.cutout_size)
    holes = (settings.cutout_holes, settings.cutout_holes)
    limit = settings.contrast
    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=(0, 0), contrast_limit=limit, p=1),
            A.Affine(
                translate_percent=(-settings.shift, settings.shift),
                scale=(1 - settings.scale, 1 + settings.scale),
                rotate=(-settings.rotate_deg, settings.rotate_deg),
                keep_ratio=True,
                p=1,
            ),
            A.CoarseDropout(holes, side, side, fill=0, p=1),
        ]
    )


@pytest.mark.benchmark(group="augmented stack")
@pytest.mark.parametrize("size", [96, 576])
def test_augmented_stack(benchmark, large_store, one_core, size):
    """One training stack from a prepared study of realistic size: read, resize, augment."""
    samples = training_samples(large_store, ["0" * 12])
    dataset = StackDataset(large_store, samples, size, AugmentSettings())
    rng = np.random.default_rng(0)
    benchmark(lambda: dataset[(int(rng.integers(250)), int(rng.integers(2**31)))])


@pytest.mark.benchmark(group="augmented stack")
def test_augmented_stack_in_two_passes(benchmark, large_store, one_core):
    """The same at 576 pixels: resized first, then augmented as floats by Albumentations."""
    augment = albumentations(AugmentSettings(contrast=0))
    rng = np.random.default_rng(0)

    def stack():
        hu = resize_slices(read_stack(large_store, "0" * 12, int(rng.integers(250))), 576)
        unit = (hu.transpose(1, 2, 0).clip(-1350, 3071) + np.float32(1350)) / 4421
        unit = augment(image=unit)["image"]
        return np.rint(unit * 4421 - 1350).astype(np.int16).transpose(2, 0, 1)

    benchmark(stack)


@pytest.mark.benchmark(group="augmented stack")
def test_augmented_stack_from_dicom(benchmark, dicom_slices, one_core):
    """The same at 576 pixels without a store: three DICOM files to nine augmented channels."""
    augment = albumentations(AugmentSettings())
    centre, width = np.array(WINDOWS, np.float32).T
    rng = np.random.default_rng(0)

    def stack():
        row = int(rng.integers(1, 249))
        files = [pydicom.dcmread(path) for path in dicom_slices[row - 1 : row + 2]]
        hu = np.stack(
            [f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files]
        ).astype(np.float32)
        hu = resize_slices(hu, 576).transpose(1, 2, 0)[..., None]
        images = ((hu - (centre - width / 2)) / width).clip(0, 1).reshape(576, 576, 9)
        return augment(image=images)["image"].transpose(2, 0, 1)

    benchmark(stack)


@pytest.mark.parametrize("hops", [1, 2])
def test_predict_volume(benchmark, hops):
    """The demo's network on 40 slices at 96 pixels."""
    torch.manual_seed(0)
    net = HopNet([Encoder("tf_efficientnet_lite0")])
    net = to_best_device(net if hops == 1 else net.add_hop())
    hu = np.random.default_rng(0).integers(-900, 400, (40, 80, 100)).astype(np.int16)
    benchmark(predict_volume, net, hu, 96)
