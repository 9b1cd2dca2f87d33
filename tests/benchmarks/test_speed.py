"""How fast the parts are: `.venv/bin/python -m pytest tests/benchmarks --benchmark-only`.

Figures depend on the machine; compare them within one run.
"""

import numpy as np
import pytest
import torch

from data_prep.dicom import read_series
from data_prep.phantom import CohortConfig, PhantomConfig, make_phantom, write_cohort
from data_prep.study import PrepareSettings, prepare_volume
from pekit.config import AugmentSettings
from pekit.dataset import StackDataset, training_samples
from pekit.hop import HopNet
from pekit.model import Encoder
from pekit.predict import predict_volume, to_best_device
from pekit.store import BOX_COLUMNS, SLICE_LABEL, Store, write_table


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
    """One prepared study of the real size: a 250 x 330 x 400 crop of smooth tissue and noise."""
    import pandas as pd

    store = Store.create(tmp_path_factory.mktemp("store"), {})
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 25, (250, 330, 400)) + np.linspace(-900, 300, 400)
    store.write_volume("0" * 12, hu.astype(np.int16))
    box = dict(zip(BOX_COLUMNS, (0, 250, 0, 330, 0, 400), strict=True))
    row = {"StudyInstanceUID": "0" * 12, "verdict": "ok", **box}
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


@pytest.mark.parametrize("size", [96, 576])
def test_augmented_stack(benchmark, large_store, size):
    """One training stack from a prepared study of the real size: read, resize, augment."""
    samples = training_samples(large_store, ["0" * 12])
    dataset = StackDataset(large_store, samples, size, AugmentSettings())
    rng = np.random.default_rng(0)
    benchmark(lambda: dataset[(int(rng.integers(250)), int(rng.integers(2**31)))])


@pytest.mark.parametrize("hops", [1, 2])
def test_predict_volume(benchmark, hops):
    """The demo's network on 40 slices at 96 px."""
    torch.manual_seed(0)
    net = HopNet([Encoder("tf_efficientnet_lite0")])
    net = to_best_device(net if hops == 1 else net.add_hop())
    hu = np.random.default_rng(0).integers(-900, 400, (40, 80, 100)).astype(np.int16)
    benchmark(predict_volume, net, hu, 96)
