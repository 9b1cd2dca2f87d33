"""Mutated DICOM files end in a status: no crash, no hang, no other exception, no silent blank.

Each seed damages a slice of a five-slice series, which a worker process reads; if the worker dies
or hangs, the seed fails. To look at one seed: `read_with(pool, folder, seed, before)`.
"""

import logging
import multiprocessing
import resource
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from encoders import SYNTAXES, write_slice
from mutations import ABSURD, KINDS, mutate, set_absurd
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1

from data_prep.audit.rules import audit_alone
from data_prep.errors import StudyError
from data_prep.phantom import PhantomConfig, make_phantom

EACH = 40  # files in each of 13 syntaxes, every kind of damage in turn
SECONDS = 10  # for a series that takes 0.02 s
MEMORY = 6 << 30  # address space of the worker
# Reasons that compare two files and may name the other one.
OF_TWO = (
    "unlike the first file's", "the same SOPInstanceUID", "two slices at one position",
    "mm between two slices",
)  # fmt: skip


def prepare_worker():
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def look(folder: Path):
    """Read a folder: the error, or the volume's slices by UID and the audit."""
    try:
        audit, volume = audit_alone(folder)
    except StudyError as error:
        return error
    return dict(zip(volume.sop_uids, volume.hu, strict=True)), audit


@pytest.fixture(scope="module")
def pool():
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=start, initializer=prepare_worker) as pool:
        yield pool
        for process in list(pool._processes.values()):  # one that hangs would hold up the tests
            process.kill()


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """One folder per syntax, with five slices that resemble each other."""
    folder = tmp_path_factory.mktemp("fuzz")
    hu = make_phantom(3, PhantomConfig(shape=(48, 64, 64))).hu[21:26]
    for syntax in SYNTAXES:
        (folder / syntax).mkdir()
        scale = 16 if syntax == JPEGBaseline8Bit else 1
        for z, image in enumerate(hu):
            stored = (image.astype(int) + 1024).clip(0, 4095) // scale
            path = folder / syntax / f"{z}.dcm"
            write_slice(path, stored.astype(np.int16), syntax, 2.5 * z, RescaleSlope=scale)
    return folder


def flat_rows(image: np.ndarray) -> np.ndarray:
    return image.min(1) == image.max(1)


def fault(outcome, before: dict, file: Path) -> str | None:
    """What is wrong with the outcome of a damaged file, or None.

    Args:
        outcome: returned by `look`, or the exception that it raised.
        before: slices of the whole series by UID.
        file: the damaged one.
    """
    if isinstance(outcome, StudyError):
        blamed = outcome.where in (file, file.parent) or any(r in outcome.reason for r in OF_TWO)
        if not blamed or str(file.parent) in outcome.reason:
            return f"refused, but the reason names another file or the folder's path: {outcome}"
        return None
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {outcome}"
    slices, audit = outcome
    damaged = f"1.2.3.{25 * int(file.stem)}"
    for uid, image in before.items():
        if uid != damaged and not np.array_equal(slices.get(uid), image):
            return "another slice is lost or changed"
    images = [image for uid, image in slices.items() if uid == damaged or uid not in before]
    if not images:
        said = any(reason.startswith("set aside") for reason in audit.reasons)
        return None if said else "a slice is lost without a note"
    (image,) = images
    change = np.abs(image.astype(int) - before[damaged]).mean(1)
    # Blank rows in the air around the patient cannot be noticed, and nothing is lost.
    blank = flat_rows(image) & ~flat_rows(before[damaged]) & (change > 100)
    if blank.sum() >= len(blank) / 16 and audit.status != "excluded":
        return f"{blank.sum()} blank rows that the audit did not find"
    return None


def read_with(pool, folder: Path, seed: int, before: dict):
    """(fault, outcome) of one seed; the file is whole again afterwards."""
    kind, z = KINDS[seed % len(KINDS)], seed // len(KINDS) % 5
    file = folder / f"{z}.dcm"
    whole = file.read_bytes()
    file.write_bytes(mutate(whole, seed, kind))
    try:
        outcome = pool.submit(look, folder).result(SECONDS)
    except (BrokenProcessPool, TimeoutError):
        raise
    except Exception as error:
        outcome = error
    finally:
        file.write_bytes(whole)
    return fault(outcome, before, file), outcome


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_end_in_a_status(series, pool):
    faults, counts = [], dict.fromkeys(("refused", "read"), 0)
    for n, syntax in enumerate(SYNTAXES):
        before, audit = pool.submit(look, series / syntax).result(60)
        assert len(before) == 5
        assert audit.status == "ok"
        for seed in range(n * 1000, n * 1000 + EACH):
            try:
                wrong, outcome = read_with(pool, series / syntax, seed, before)
            except (BrokenProcessPool, TimeoutError) as error:
                pytest.fail(f"{syntax.name}, seed {seed}: the reader died or hung ({error!r})")
            counts["refused" if isinstance(outcome, StudyError) else "read"] += 1
            if wrong:
                kind = KINDS[seed % len(KINDS)]
                faults.append(f"{syntax.name}, seed {seed}, {kind}: {wrong}")
    assert not faults, "\n".join(faults)
    # Damage that is never or always refused would test nothing.
    assert min(counts.values()) > 100
    assert sum(counts.values()) >= 500


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLosslessSV1])
def test_a_series_of_absurd_tags_ends_in_a_status(series, pool, tmp_path, syntax):
    refused = 0
    for tags in ABSURD:
        for file in sorted((series / syntax).iterdir()):
            dataset = dcmread(file)
            set_absurd(dataset, tags)
            dataset.save_as(tmp_path / file.name)
        try:
            outcome = pool.submit(look, tmp_path).result(SECONDS)
        except StudyError as error:
            outcome = error
        except Exception as error:
            pytest.fail(f"{tags}: {error!r}")
        refused += isinstance(outcome, StudyError)
    assert refused > len(ABSURD) / 3
