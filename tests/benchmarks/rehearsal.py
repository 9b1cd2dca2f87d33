"""Audit and split a synthetic copy of the whole RSNA-STR data set, headers only, in minutes.

    python tests/benchmarks/rehearsal.py FOLDER [--studies 7279] [--workers 2]

Writes in FOLDER (about 7 GB on disk for all studies) a train.csv and, for each of its 1.8 million
slices, a DICOM file that ends where the pixels would begin; some studies are broken in known ways.
Prints time and memory of the audit and the split; fails if a broken study is not found, or an
intact one does not get the status ok.
"""

import argparse
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.uid import JPEGLosslessSV1 as JPEGLossless

from data_prep.audit.studies import examine
from data_prep.split import make_split
from pekit.common.progress import progress
from pekit.dataset.schema import EXAM_LABELS, LABELS, SLICE_LABEL, UIDS

STUDIES, SLICES, WITH_PE, INDETERMINATE = 7279, 1_790_594, 2211, 157
SYNTAXES = ((ImplicitVRLittleEndian, 0.70), (ExplicitVRLittleEndian, 0.22), (JPEGLossless, 0.08))
# Defect: (status that the study must get, number of studies with it among 7,279).
DEFECTS = {
    "gap": ("ok", 80), "half": ("excluded", 20), "truncated": ("excluded", 40),
    "copy": ("repaired", 30), "two series": ("excluded", 15), "labels": ("excluded", 25),
    "other study": ("excluded", 5),
}  # fmt: skip


def template(syntax: str) -> bytes:
    """A CT header with placeholders: S*12 study, E*12 series, O*12 SOP UID, Z*8 the position."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "O" * 12
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        for name, value in {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": "O" * 12, "Modality": "CT",
            "StudyInstanceUID": "S" * 12, "SeriesInstanceUID": "E" * 12, "InstanceNumber": 1,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SliceThickness": 1.25,
            "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "Rows": 512,
            "Columns": 512, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
            "PixelRepresentation": 1, "PixelSpacing": [0.7, 0.7], "RescaleSlope": 1,
            "ImagePositionPatient": [-180, -180, "-9999999"], "RescaleIntercept": -1024,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }.items():  # fmt: skip
            setattr(dataset, name, value)
        buffer = BytesIO()
        dataset.save_as(buffer)
    return buffer.getvalue().replace(b"-9999999", b"Z" * 8)


def listing(studies: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """train.csv with consistent labels; and one row per study: uid, slices, syntax, defect."""
    rng = np.random.default_rng(seed)
    slices = np.clip(rng.lognormal(np.log(230), 0.32, studies), 60, 1083)
    slices = np.round(slices * SLICES / STUDIES / slices.mean()).astype(int).clip(40, 1083)
    kind = np.zeros(studies, int)
    kind[: round(studies * WITH_PE / STUDIES)] = 1
    kind[-round(studies * INDETERMINATE / STUDIES) :] = 2
    plan = pd.DataFrame({
        "uid": [f"{value:012x}" for value in rng.choice(2**47, studies, replace=False)],
        "slices": slices,
        "kind": rng.permutation(kind),
        "syntax": rng.choice(3, studies, p=[share for _, share in SYNTAXES]),
        "defect": "",
    })  # fmt: skip
    broken = iter(rng.permutation(studies))
    for defect, (_, count) in DEFECTS.items():
        for _ in range(max(1, round(count * studies / STUDIES))):
            plan.loc[next(broken), "defect"] = defect
    exams = pd.DataFrame(0, index=plan.index, columns=list(EXAM_LABELS))
    positive = plan["kind"] == 1
    exams["negative_exam_for_pe"] = (plan["kind"] == 0).astype(int)
    exams["indeterminate"] = (plan["kind"] == 2).astype(int)
    strain = rng.random(studies) < 0.43
    exams["rv_lv_ratio_gte_1"] = (positive & strain).astype(int)
    exams["rv_lv_ratio_lt_1"] = (positive & ~strain).astype(int)
    for name, share in (("leftsided_pe", 0.7), ("rightsided_pe", 0.85), ("central_pe", 0.18)):
        exams[name] = (positive & (rng.random(studies) < share)).astype(int)
    nowhere = positive & (exams[["leftsided_pe", "rightsided_pe", "central_pe"]].sum(axis=1) == 0)
    exams.loc[nowhere, "rightsided_pe"] = 1
    exams.loc[plan["defect"] == "labels", ["negative_exam_for_pe", "indeterminate"]] = 1
    of = np.repeat(np.arange(studies), slices)
    within = np.arange(len(of)) - np.repeat(slices.cumsum() - slices, slices)
    table = exams.iloc[of].reset_index(drop=True)
    fraction = within / slices[of]
    table[SLICE_LABEL] = (positive.to_numpy()[of] & (fraction > 0.45) & (fraction < 0.59)).astype(
        int
    )
    uids = plan["uid"].to_numpy()[of]
    table[UIDS[0]] = uids
    table[UIDS[1]] = [f"e{uid[1:]}" for uid in uids]
    table[UIDS[2]] = [f"{z:04x}{uid[:8]}" for z, uid in zip(within, uids, strict=True)]
    return table[[*UIDS, *LABELS]], plan


def write_study(folder: Path, uid: str, slices: int, syntax: int, defect: str) -> None:
    """Write the header files of one study, with its defect."""
    series = folder / uid / f"e{uid[1:]}"
    series.mkdir(parents=True)
    of = f"f{uid[1:]}" if defect == "other study" else uid
    head = template(SYNTAXES[syntax][0]).replace(b"S" * 12, of.encode())
    kept = range(slices)
    if defect == "gap":
        kept = [*range(slices // 2), *range(slices // 2 + 3, slices)]
    elif defect == "half":
        kept = range(slices // 2)
    for z in kept:
        sop = f"{z:04x}{uid[:8]}"
        ours = f"d{uid[1:]}" if defect == "two series" and z % 2 else f"e{uid[1:]}"
        data = head.replace(b"E" * 12, ours.encode()).replace(b"O" * 12, sop.encode())
        data = data.replace(b"Z" * 8, f"{z * 1.25:8.2f}".encode())
        if defect == "truncated" and z == slices // 3:
            data = data[: len(data) // 2]
        (series / f"{sop}.dcm").write_bytes(data)
        if defect == "copy" and z == 7:
            (series / "copy.dcm").write_bytes(data)


def main() -> None:
    """Write the headers unless they exist, then audit and split."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    table, plan = listing(options.studies)
    if not (options.folder / "train.csv").exists():
        (options.folder / "train").mkdir(parents=True)
        with ProcessPoolExecutor(options.workers) as pool:
            jobs = [
                pool.submit(write_study, options.folder / "train", *row)
                for row in plan[["uid", "slices", "syntax", "defect"]].itertuples(index=False)
            ]
            for job in progress(jobs, desc="writing headers"):
                job.result()
        table.to_csv(options.folder / "train.csv", index=False)
    print(f"{len(plan)} studies, {len(table)} slices")
    del table

    start = time.perf_counter()
    found = examine(
        options.folder, options.folder / "audit", sources=("train",), workers=options.workers,
        progress=progress,
    )  # fmt: skip
    print(f"audit: {time.perf_counter() - start:.0f} s with {options.workers} processes")
    print(found["status"].value_counts().to_string())
    found_by_study = found.set_index("StudyInstanceUID")
    expected = plan.set_index("uid")["defect"].map(lambda d: DEFECTS[d][0] if d else "ok")
    wrong = found_by_study[found_by_study["status"] != expected[found_by_study.index]]
    assert wrong.empty, f"studies with an unexpected status:\n{wrong}"

    start = time.perf_counter()
    labels = pd.read_csv(options.folder / "train.csv", dtype=dict.fromkeys(UIDS, str))
    exams = labels.groupby(UIDS[0], as_index=False)[list(EXAM_LABELS)].first()
    studies = exams.merge(found[[UIDS[0], "status"]])
    split = make_split(studies, max(1, 836 * len(plan) // STUDIES), 0, 5, seed=0)
    print(f"split: {time.perf_counter() - start:.0f} s; {split['part'].value_counts().to_dict()}")
    for who, name in ((resource.RUSAGE_SELF, "this"), (resource.RUSAGE_CHILDREN, "largest worker")):
        print(f"peak memory, {name}: {resource.getrusage(who).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
