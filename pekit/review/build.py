"""From the folders of an experiment's stages to a review bundle."""

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
from pekit.review.privacy import check_privacy, scrub
from pekit.tracking.provenance import git_state

DONE = "metrics.json"  # the last thing that a stage writes
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
# What is taken of a stage's folder; a file that is not named here stays where it is.
SCRUBBED = ("params.json", "metrics.json", "manifest.json", "log.csv", "table.csv", "table.txt")
AS_IT_IS = (
    *("split.csv", "split.csv.sha256", "exclusions.csv", "thresholds.json", "evaluation.json"),
    "ablation.json",
    *("predictions.parquet", "exam_predictions.parquet", "studies.parquet", "submission.csv"),
    *("slices.csv", "tables/*.csv"),
)
FIGURES, PAGES = "figures/*.png", "*.html"
# A page that would load something; a link that one may follow is no such thing.
_LOADS = re.compile(
    r"(?:src|srcset|poster|data)\s*=\s*[\"']?(?:https?:)?//"
    r"|<link[^>]+href\s*=\s*[\"']?(?:https?:)?//|url\(\s*[\"']?(?:https?:)?//|@import",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Review:
    """A bundle that was made: its folder, the same as a zip file, MB of both, and its hash."""

    folder: Path
    archive: Path
    size_mb: float
    archive_mb: float
    sha256: str


def make_review(folder: Path, out: Path, stages: Mapping[str, str], images: bool = True) -> Review:
    """Make the bundle of an experiment, beside `out`, and put it in the place of an older one.

    Args:
        folder: the experiment's, with a folder for each stage.
        out: the bundle's; `out`.zip holds the same.
        stages: name of each stage and of its notebook, in the order in which they run.
        images: with images of patients; else no picture but charts, and no page of a stage.

    Raises:
        UserError: stages are not finished, `out` is something else than a bundle, or what a stage
            recorded must not leave the machine.
    """
    folder, out = Path(folder), Path(out)
    if missing := [stage for stage in stages if not (folder / stage / DONE).exists()]:
        raise UserError(
            f"{folder.name} is not finished, these stages are missing: {', '.join(missing)}; "
            f"`make experiment NAME={folder.name}` goes on from there"
        )
    if out.exists() and not (out / CARD).exists():
        raise UserError(f"{out} exists and is no review bundle: give another OUT")
    beside = out.with_name(f".{out.name}.making")
    shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
    try:
        _fill(beside, folder, stages, images)
        _exchange(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    archive = _zip(out, f"{folder.name}-review")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Review(out, archive, size / 1e6, archive.stat().st_size / 1e6, file_hash(out / SUMS))


def _fill(bundle: Path, folder: Path, stages: Mapping[str, str], images: bool) -> None:
    """Everything of a bundle, ending with its hashes; `bundle` is a new folder."""
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
    write_sums(bundle)


def _take(source: Path, target: Path, notebook: str, images: bool) -> list[str]:
    """Copy what a bundle holds of one stage; names the files that are left out for `images`."""
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
                raise UserError(f"{file} would load from elsewhere ({match.group()}): embed it")
    return left_out


def _splits(bundle: Path) -> list[str]:
    """Hashes of the splits, which must be those that were frozen with them; most often one."""
    digests = {}
    for split in sorted(bundle.glob(f"{STAGES}/*/split.csv")):
        digest = file_hash(split)
        frozen = split.with_name("split.csv.sha256")
        if not frozen.exists() or frozen.read_text(encoding="utf-8").split()[:1] != [digest]:
            stage = split.parent.name
            raise UserError(
                f"{stage}/split.csv is not the split that was frozen: run {stage} again"
            )
        digests[digest] = split
    return list(digests)


def _inputs(manifest: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """Which of a stage's recorded inputs are files of the bundle."""
    recorded: dict[str, Any] = read_json(manifest).get("inputs", {})
    hashes = {name: str(value).removeprefix("sha256:") for name, value in recorded.items()}
    return {name: digests[digest] for name, digest in hashes.items() if digest in digests}


def _exchange(new: Path, out: Path) -> None:
    """Put a finished folder in the place of an older one."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _zip(bundle: Path, name: str) -> Path:
    """The bundle as <bundle>.zip, whose one folder is called `name`."""
    path = bundle.with_name(bundle.name + ".zip")
    with atomic(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, f"{name}/{file.relative_to(bundle).as_posix()}")
    return path
