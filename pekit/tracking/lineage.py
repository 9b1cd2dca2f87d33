"""What a run reads belongs together: made from the same split, studies, model and predictions.

Each stage records the hashes of its inputs. A stage that reads two others compares them: it does
not evaluate the predictions of one split on another, nor explain a network that has not made them.
"""

from collections.abc import Mapping
from pathlib import Path

from pekit.common.errors import UserError
from pekit.common.files import read_json

NAMES = {
    "split": "split",
    "studies": "store of prepared studies",
    "model": "model",
    "predictions": "table of predictions",
    "thresholds": "set of thresholds",
}


def stage_of(path: Path) -> Path | None:
    """Folder of the stage that made a file (`<stage>/file` or `<stage>/folder/file`), if any."""
    folders = Path(path).resolve().parents[:2]
    return next((folder for folder in folders if (folder / "manifest.json").exists()), None)


def check_lineage(paths: Mapping[str, Path], hashes: Mapping[str, str]) -> None:
    """Compare each input's own inputs, as its stage recorded them, with those of this run.

    Args:
        paths: files that the run reads, by name; the same name means the same thing everywhere.
        hashes: their hashes now, by name.

    Raises:
        UserError: an input was made from something else than the run reads.
    """
    for name, path in paths.items():
        stage = stage_of(path)
        if stage is None:
            continue
        recorded = read_json(stage / "manifest.json").get("inputs", {})
        for other in (recorded.keys() & paths.keys()) - {name}:
            if recorded[other] != hashes[other]:
                ours = stage_of(paths[other]) or paths[other]
                raise UserError(
                    f"{_shown(stage)} was made from another {NAMES.get(other, other)} than "
                    f"{_shown(ours)} holds now: run {_notebook(stage)} again and then this one, or "
                    "choose folders that were made from each other"
                )


def _notebook(stage: Path) -> str:
    done = [path.name for path in stage.glob("[0-9]*.ipynb") if path.name.count(".") == 1]
    return done[0] if done else "its notebook"


def _shown(path: Path) -> str:
    """Experiment and stage; no absolute path, which may name people."""
    return "/".join(path.parts[-2:])
