"""Layout of a review bundle on disk, and check of its hashes.

index.html             the first page
bundle.json            version, experiment, stages in order, files left out
SHA256SUMS             of every other file; `sha256sum -c SHA256SUMS` checks it too
requirements.lock      the environment
stages/<stage>/        notebook.html, params.json, metrics.json, manifest.json, log.csv,
                       tables/, figures/, predictions, and the pages of the stage
"""

from pathlib import Path
from typing import Any

from pekit.common.errors import UserError
from pekit.common.files import file_hash, read_json

VERSION = 2
CARD, SUMS, INDEX, STAGES = "bundle.json", "SHA256SUMS", "index.html", "stages"


def read_card(bundle: Path) -> dict[str, Any]:
    """Read bundle.json.

    Raises:
        UserError: the folder is not a bundle, or one of another version.
    """
    bundle = Path(bundle)
    if not (bundle / CARD).is_file():
        raise UserError(f"{bundle} is no review bundle (no {CARD}): make one with `make review`")
    card = read_json(bundle / CARD)
    if card.get("version") != VERSION:
        raise UserError(
            f"{bundle} is a bundle of version {card.get('version')}, this kit reads version "
            f"{VERSION}: use the kit at commit {card.get('commit')}, or make the bundle again"
        )
    return card


def files_of(bundle: Path) -> dict[str, Path]:
    """Every file but SHA256SUMS, by its path in the bundle, sorted."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    names = {path.relative_to(bundle).as_posix(): path for path in files}
    return {name: path for name, path in names.items() if name != SUMS}


def write_sums(bundle: Path) -> None:
    """Write SHA256SUMS for the files of the bundle."""
    lines = [f"{file_hash(path)}  {name}\n" for name, path in files_of(bundle).items()]
    (bundle / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(bundle: Path) -> list[str]:
    """Differences from SHA256SUMS: files changed, missing or not listed; empty if none.

    Raises:
        UserError: SHA256SUMS is missing or malformed.
    """
    try:
        lines = (bundle / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        raise UserError(f"{bundle} has no {SUMS}: make the bundle again") from None
    except ValueError:
        raise UserError(f"{bundle / SUMS} is not a list of hashes: make the bundle again") from None
    files = files_of(bundle)
    problems = [f"{name} is missing" for name in listed if name not in files]
    problems += [f"{name} is not listed" for name in files if name not in listed]
    problems += [
        f"{name} has changed"
        for name, path in files.items()
        if name in listed and file_hash(path) != listed[name]
    ]
    return sorted(problems)


def splits_used(bundle: Path, stage: str) -> dict[str, str]:
    """SHA-256 of the splits that a stage recorded, by name of the input.

    The name is "split"; a stage that gathers several levels has one "split <level>" per level.
    """
    inputs = stage_json(bundle, stage, "manifest").get("inputs", {})
    return {
        name: digest.removeprefix("sha256:")
        for name, digest in inputs.items()
        if name.split(" ")[0] == "split"
    }


def stage_json(bundle: Path, stage: str, name: str) -> dict[str, Any]:
    """The params, metrics or manifest of a stage; empty if the stage has none."""
    path = bundle / STAGES / stage / f"{name}.json"
    return read_json(path) if path.exists() else {}
