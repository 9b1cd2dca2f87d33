"""Time and memory of preparing studies of real size, 250 x 512 x 512, also in two processes.

    .venv/bin/python -m pytest tests/benchmarks/test_preparation.py --benchmark-only -s

Takes some minutes and 1 GB of disk. The voxels are those of a real CT if ../shared/data has one.
"""

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from encoders import BY_GDCM, compress
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, JPEGLosslessSV1

from data_prep.dicom import read_series
from data_prep.images import read_image_volume
from data_prep.phantom import PhantomConfig, make_phantom
from data_prep.prepare.studies import prepare
from data_prep.prepare.study import PrepareSettings, prepare_study
from data_prep.rsna import StudyTask
from pekit.dataset.schema import LABELS, UIDS
from pekit.dataset.store import Store

SHAPE = (250, 512, 512)
SYNTAXES = {"uncompressed": ImplicitVRLittleEndian, "jpeg-lossless": JPEGLosslessSV1}
ROOT = Path(__file__).resolve().parents[2]


def chest() -> tuple[np.ndarray, tuple[float, float, float]]:
    """A chest of SHAPE in HU and its voxel size: a real one, with interpolated slices, if any."""
    real = ROOT.parent / "shared" / "data" / "chest_ct" / "lung2_image.nrrd"
    if not real.exists():
        phantom = make_phantom(0, PhantomConfig(shape=SHAPE))
        return phantom.hu, phantom.spacing_mm
    volume = read_image_volume(real)
    at = np.linspace(0, len(volume.hu) - 1, SHAPE[0])
    low = np.minimum(at.astype(int), len(volume.hu) - 2)
    part = (at - low)[:, None, None].astype(np.float32)
    hu = volume.hu[low] * (1 - part) + volume.hu[low + 1] * part
    noise = np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.float32)
    z, y, x = volume.spacing_mm
    return (hu + noise).clip(-1024, 3000).astype(np.int16), (z * 60 / (SHAPE[0] - 1), y, x)


def write_study(folder: Path, uid: str, hu: np.ndarray, spacing, syntax: str) -> StudyTask:
    """Write a study in the RSNA layout; returns the task to prepare it."""
    series = folder / uid / f"e{uid[1:]}"
    series.mkdir(parents=True)
    rows = []
    for z, plane in enumerate(hu):
        sop = f"{z:04x}{uid[4:]}"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
            ImplicitVRLittleEndian,
            CTImageStorage,
        )
        meta.MediaStorageSOPInstanceUID = sop
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": sop, "StudyInstanceUID": uid,
            "SeriesInstanceUID": f"e{uid[1:]}", "Modality": "CT", "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "Rows": 512, "Columns": 512,
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
            "PixelSpacing": [f"{mm:.6f}" for mm in spacing[1:]], "RescaleSlope": 1,
            "ImagePositionPatient": [-160, -160, f"{z * spacing[0]:.3f}"],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "RescaleIntercept": -1024,
            "PixelData": (plane + 1024).astype("<i2").tobytes(),
        }  # fmt: skip
        with pydicom.config.disable_value_validation():
            for name, value in values.items():
                setattr(dataset, name, value)
            if syntax != ImplicitVRLittleEndian:
                dataset.save_as(series / f"{sop}.dcm")
                compress(series / f"{sop}.dcm", BY_GDCM[syntax])
            else:
                dataset.save_as(series / f"{sop}.dcm")
        rows.append((uid, f"e{uid[1:]}", sop))
    table = pd.DataFrame(rows, columns=list(UIDS))
    for name in LABELS:
        table[name] = int(name == "negative_exam_for_pe")
    return StudyTask(uid, "train", folder / uid, table)


@pytest.fixture(scope="module", params=SYNTAXES)
def task(request, tmp_path_factory):
    hu, spacing = chest()
    folder = tmp_path_factory.mktemp(request.param)
    return write_study(folder, "0" * 11 + "1", hu, spacing, SYNTAXES[request.param])


def test_prepare_study(benchmark, task, tmp_path):
    """Read, audit, masks, hull, crop, landmarks, store; on one core."""
    Store.create(tmp_path, {})
    cv2.setNumThreads(1)
    record = benchmark.pedantic(
        prepare_study, (task, tmp_path, PrepareSettings()), rounds=3, warmup_rounds=1
    )
    assert record["study"]["status"] == "ok", record["study"]["reasons"]
    benchmark.extra_info["stored / raw"] = record["study"]["bytes"] / (2 * np.prod(SHAPE))


def test_read_alone(benchmark, task):
    """Decoding only, a lower bound of the time to prepare."""
    benchmark.pedantic(read_series, (task.folder,), rounds=3, warmup_rounds=1)


def test_plain_loop(benchmark, task, tmp_path):
    """A plain loop as in other kits: decode each slice, resize it to 576 pixels and save it."""
    cv2.setNumThreads(1)

    def loop():
        for file in sorted(task.folder.rglob("*.dcm")):
            pixels = pydicom.dcmread(file).pixel_array
            np.save(tmp_path / f"{file.stem}.npy", cv2.resize(pixels, (576, 576)))

    benchmark.pedantic(loop, rounds=3, warmup_rounds=1)


def test_peak_memory(benchmark, task, tmp_path):
    """Peak memory of a process that prepares one study, imports included (not from ru_maxrss,
    which a child inherits from its parent)."""
    task.rows.to_pickle(tmp_path / "rows.pkl")
    Store.create(tmp_path / "store", {})
    code = (
        "import sys, pandas as pd; from pathlib import Path\n"
        "from data_prep.rsna import StudyTask\n"
        "from data_prep.prepare.study import PrepareSettings, prepare_study\n"
        "rows = pd.read_pickle(sys.argv[2])\n"
        "task = StudyTask(rows.iloc[0, 0], 'train', Path(sys.argv[1]), rows)\n"
        "prepare_study(task, Path(sys.argv[3]), PrepareSettings())\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1e6)\n"
    )
    command = [sys.executable, "-c", code, task.folder, tmp_path / "rows.pkl", tmp_path / "store"]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    )
    benchmark.extra_info["peak GB"] = float(done.stdout)
    print(f"\npeak memory {float(done.stdout):.2f} GB")


def test_two_processes(benchmark, tmp_path):
    """Studies per second with two processes and with one, from the first result on."""
    hu, spacing = chest()
    data = tmp_path / "data"
    tasks = [
        write_study(data / "train", f"{i:012x}", hu[:125], spacing, ImplicitVRLittleEndian)
        for i in range(1, 9)
    ]
    pd.concat([task.rows for task in tasks]).to_csv(data / "train.csv", index=False)

    def rate(workers: int) -> float:
        times = []

        def progress(studies, total, desc):
            for study in studies:
                times.append(time.perf_counter())
                yield study

        settings = PrepareSettings(on_failure="full")
        prepare(data, tmp_path / f"store{workers}", settings, ("train",), None, workers, progress)
        # Both processes have finished a first study before the clock starts.
        return (len(times) - workers) / (times[-1] - times[workers - 1])

    one, two = rate(1), benchmark.pedantic(rate, (2,))
    benchmark.extra_info["scaling"] = two / one
    print(f"\n{one:.2f} studies per second, {two:.2f} with two processes: {two / one:.2f} times")
