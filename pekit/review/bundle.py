"""How a review bundle lies on disk, and whether it is as it was made.

index.html             where to start
bundle.json            version, experiment, stages in their order, what was left out
SHA256SUMS             of every other file; `sha256sum -c SHA256SUMS` reads it too
requirements.lock      the environment
stages/<stage>/        notebook.html, params.json, metrics.json, manifest.json, log.csv,
                       tables/, figures/, predictions, and the pages that the stage wrote
"""

from pathlib import Path
from typing import Any

from pekit.common.errors import UserError
from pekit.common.files import file_hash, read_json

VERSION = 2
CARD, SUMS, INDEX, STAGES = "bundle.json", "SHA256SUMS", "index.html", "stages"


def read_card(bundle: Path) -> dict[str, Any]:
    """The bundle's bundle.json.

    Raises:
        UserError: no bundle is there, or one of another version.
    """
    bundle = Path(bundle)
    if not (bundle / CARD).is_file():
        raise UserError(f"{bundle} is no review bundle (it has no {CARD}): make one by make review")
    card = read_json(bundle / CARD)
    if card.get("version") != VERSION:
        raise UserError(
            f"{bundle} is a bundle of version {card.get('version')}, this kit reads version "
            f"{VERSION}: use the kit at the bundle's commit {card.get('commit')}, or make it again"
        )
    return card


def files_of(bundle: Path) -> dict[str, Path]:
    """Every file but SHA256SUMS, by its name within the bundle, sorted."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    names = {path.relative_to(bundle).as_posix(): path for path in files}
    return {name: path for name, path in names.items() if name != SUMS}


def write_sums(bundle: Path) -> None:
    """Write SHA256SUMS over what the bundle holds now."""
    lines = [f"{file_hash(path)}  {name}\n" for name, path in files_of(bundle).items()]
    (bundle / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(bundle: Path) -> list[str]:
    """What differs from SHA256SUMS: files changed, missing, or not listed; empty when none does.

    Raises:
        UserError: there is no such file, or it is not in its form.
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
    """Hashes of the splits that a stage recorded, by the input's name.

    That is "split", or where it gathers several levels of an experiment "split <level>" for each.
    """
    inputs = stage_json(bundle, stage, "manifest").get("inputs", {})
    return {
        name: digest.removeprefix("sha256:")
        for name, digest in inputs.items()
        if name.split(" ")[0] == "split"
    }


def stage_json(bundle: Path, stage: str, name: str) -> dict[str, Any]:
    """A stage's params, metrics or manifest; empty where the stage has none."""
    path = bundle / STAGES / stage / f"{name}.json"
    return read_json(path) if path.exists() else {}
