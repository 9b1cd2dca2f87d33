"""thresholds.json: the votes that an evaluation chose, and the studies and criterion of the choice.

    {"split": "41bb...", "chosen_on": "validation", "criterion": "f1", "at": null,
     "votes": {"hop1": {"mu": 1, "delta": 0.92}, "hop2": {"mu": 1, "delta": 0.96}}}

A vote is valid only for the network and the split that it was chosen with, so a reader of the file
passes the split that is in use.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pekit.common.errors import UserError
from pekit.common.files import read_json, write_json
from pekit.dataset.schema import hop_names
from pekit.voting import Vote, named_criterion

_FIELDS = ("split", "chosen_on", "criterion", "at", "votes")


@dataclass(frozen=True)
class Thresholds:
    """The votes of a run's hops.

    Args:
        split: SHA-256 of the split.
        chosen_on: the part of the split whose studies they were chosen on.
        criterion, at: the criterion of the choice and its target (`pekit.voting`).
        votes: hop -> vote, such as "hop2", in the order of the hops: the last hop last.
    """

    split: str
    chosen_on: str
    criterion: str
    at: float | None
    votes: dict[str, Vote]


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Write thresholds.json, atomically."""
    votes = {hop: {"mu": int(v.mu), "delta": float(v.delta)} for hop, v in thresholds.votes.items()}
    write_json(path, {**asdict(thresholds), "votes": votes})


def read_thresholds(path: Path, split_hash: str | None = None) -> Thresholds:
    """Read thresholds.json.

    Args:
        path: the file.
        split_hash: SHA-256 of the split in use; None if there is no split to compare with.

    Raises:
        UserError: the file is missing, malformed, or from a run with another split.
    """
    content = read_json(path)
    redo = "run 31_evaluate again"
    if not isinstance(content, dict) or sorted(content) != sorted(_FIELDS):
        raise UserError(f"{path} does not have the fields {', '.join(_FIELDS)}: {redo}")
    if not content["votes"] or not isinstance(content["votes"], dict):
        raise UserError(f"{path} has no votes: {redo}")
    try:
        named_criterion(content["criterion"], content["at"])
        hops = hop_names(content["votes"])
        if unknown := sorted(set(content["votes"]) - set(hops)):
            raise UserError(f"{unknown[0]!r} is not a hop")
        votes = {hop: Vote(**content["votes"][hop]) for hop in hops}
    except (TypeError, UserError) as error:
        raise UserError(f"{path} is malformed ({error}): {redo}") from None
    if split_hash is not None and content["split"] != split_hash:
        raise UserError(
            f"{path} is of another run: its thresholds were chosen with split "
            f"{str(content['split'])[:12]}, this one is {split_hash[:12]}: {redo}"
        )
    return Thresholds(**{**content, "votes": votes})
