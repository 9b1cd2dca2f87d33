"""Make a review bundle from the folders of an experiment's stages."""

import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pekit.common.errors import UserError
from pekit.common.files import atomic, file_hash, read_json, write_json
from pekit.review.bundle import CARD, INDEX, STAGES, SUMS, VERSION, files_of, write_sums
from pekit.review.index import render_index
from pekit.review.notebook import notebook_page
from pekit.review.pictures import damaged_pictures
from pekit.review.privacy import check_privacy, scrub
from pekit.tracking.provenance import git_state

DONE = "metrics.json"  # written last by a stage
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
# Files copied from the folder of a stage; no others are.
SCRUBBED = ("params.json", "metrics.json", "manifest.json", "log.csv", "table.csv", "table.txt")
AS_IT_IS = (
    *("split.csv", "split.csv.sha256", "exclusions.csv", "thresholds.json", "evaluation.json"),
    "ablation.json",
    *("predictions.parquet", "exam_predictions.parquet", "studies.parquet", "submission.csv"),
    *("slices.csv", "tables/*.csv"),
)
FIGURES, PAGES = "figures/*.png", "*.html"
# Markup that loads something from another host; plain links do not match.
_LOADS = re.compile(
    r"(?:src|srcset|poster|data)\s*=\s*[\"']?(?:https?:)?//"
    r"|<link[^>]+href\s*=\s*[\"']?(?:https?:)?//|url\(\s*[\"']?(?:https?:)?//|@import",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Review:
    """A bundle: its folder, its zip file, the size of both in MB, and SHA-256 of its SHA256SUMS."""

    folder: Path
    archive: Path
    size_mb: float
    archive_mb: float
    sha256: str


def make_review(folder: Path, out: Path, stages: Mapping[str, str], images: bool = True) -> Review:
    """Make the bundle of an experiment beside `out`, then replace an older bundle at `out` by it.

    Args:
        folder: of the experiment, with one folder per stage.
        out: folder of the bundle; `out`.zip holds the same.
        stages: notebook of each stage, by name of the stage, in the order in which they run.
        images: whether to include images of patients; without them, charts are the only pictures,
            and pages of stages are left out.

    Raises:
        UserError: a stage is not finished, `out` exists and is no bundle, a file holds something
            private (`check_privacy`), or a picture does not decode.
    """
    folder, out = Path(folder), Path(out)
    if missing := [stage for stage in stages if not (folder / stage / DONE).exists()]:
        raise UserError(
            f"{folder.name} is not finished, these stages are missing: {', '.join(missing)}; "
            f"run `make experiment NAME={folder.name}`"
        )
    if out.exists() and not (out / CARD).exists():
        raise UserError(f"{out} exists and is no review bundle: set another OUT")
    beside = out.with_name(f".{out.name}.making")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        _fill(beside, folder, stages, images)
        _exchange(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    archive = _zip(out, f"{folder.name}-review")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Review(out, archive, size / 1e6, archive.stat().st_size / 1e6, file_hash(out / SUMS))


def _fill(bundle: Path, folder: Path, stages: Mapping[str, str], images: bool) -> None:
    """Write all files of a bundle into the new folder `bundle`, the hashes last."""
    bundle.mkdir(parents=True)
    left_out: list[str] = []
    for stage, notebook in stages.items():
        left_out += _take(folder / stage, bundle / STAGES / stage, notebook, images)
    if LOCK.exists():
        shutil.copyfile(LOCK, bundle / LOCK.name)
    digests = {file_hash(path): name for name, path in files_of(bundle).items()}
    write_json(
        bundle / CARD,
        {
            "version": VERSION,
            "experiment": folder.name,
            "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            "commit": git_state()["commit"],
            "images": images,
            "left_out": left_out,
            "lock": LOCK.name if LOCK.exists() else None,
            "splits": _splits(bundle),
            "stages": {
                stage: {
                    "notebook": notebook,
                    "inputs": _inputs(bundle / STAGES / stage / "manifest.json", digests),
                }
                for stage, notebook in stages.items()
            },
        },
    )
    (bundle / INDEX).write_text(render_index(bundle), encoding="utf-8")
    check_privacy(bundle)
    if damaged := damaged_pictures(bundle)[1]:
        raise UserError(f"{damaged[0]} does not decode: run its stage again")
    write_sums(bundle)


def _take(source: Path, target: Path, notebook: str, images: bool) -> list[str]:
    """Copy the files of one stage; returns the names of those left out because of `images`."""
    target.mkdir(parents=True)
    executed = source / notebook
    if not executed.exists():
        raise UserError(f"{executed} does not exist: run the stage {source.name} again")
    page = notebook_page(executed, source.name, images)
    (target / "notebook.html").write_text(page, encoding="utf-8")
    charts = read_json(source / "manifest.json").get("charts", [])
    left_out = []
    for pattern in (*SCRUBBED, *AS_IT_IS, FIGURES, PAGES):
        for file in sorted(source.glob(pattern)):
            name = file.relative_to(source)
            chart = pattern == FIGURES and file.stem in charts
            if not images and pattern in (FIGURES, PAGES) and not chart:
                left_out.append(f"{source.name}/{name.as_posix()}")
                continue
            (target / name).parent.mkdir(exist_ok=True)
            if pattern in SCRUBBED:
                text = scrub(file.read_text(encoding="utf-8"))
                (target / name).write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(file, target / name)
            if pattern == PAGES and (match := _LOADS.search(file.read_text(encoding="utf-8"))):
                raise UserError(
                    f"{file} loads from another host ({match.group()}): embed the content"
                )
    return left_out


def _splits(bundle: Path) -> list[str]:
    """SHA-256 of the splits, usually one. Raises UserError if one differs from its frozen hash."""
    digests = {}
    for split in sorted(bundle.glob(f"{STAGES}/*/split.csv")):
        digest = file_hash(split)
        frozen = split.with_name("split.csv.sha256")
        if not frozen.exists() or frozen.read_text(encoding="utf-8").split()[:1] != [digest]:
            stage = split.parent.name
            raise UserError(f"{stage}/split.csv is not the frozen split: run {stage} again")
        digests[digest] = split
    return list(digests)


def _inputs(manifest: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """The inputs of a stage that are files of the bundle, by name of the input."""
    recorded: dict[str, Any] = read_json(manifest).get("inputs", {})
    hashes = {name: str(value).removeprefix("sha256:") for name, value in recorded.items()}
    return {name: digests[digest] for name, digest in hashes.items() if digest in digests}


def _exchange(new: Path, out: Path) -> None:
    """Replace the folder `out`, if there is one, by a finished folder."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _zip(bundle: Path, name: str) -> Path:
    """Write <bundle>.zip, with the files in one folder `name`."""
    path = bundle.with_name(bundle.name + ".zip")
    with atomic(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, f"{name}/{file.relative_to(bundle).as_posix()}")
    return path
