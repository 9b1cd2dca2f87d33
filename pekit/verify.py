"""Does a review bundle hold what its predictions say? One line a table, at the end a verdict.

    python -m pekit.verify runs/demo/review

Recomputes every table that follows from predictions in the bundle and compares all cells, compares
what index.html shows with the tables, the split with its hash, and every file with SHA256SUMS.
Numbers that do not follow from predictions, such as losses and timings, are listed as not checked.
Exit status 1 where anything differs, or where nothing could be recomputed.
"""

import argparse
import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pekit.errors import UserError
from pekit.provenance import git_state
from pekit.review.bundle import (
    INDEX,
    STAGES,
    SUMS,
    check_sums,
    file_hash,
    files_of,
    read_card,
    stage_json,
)
from pekit.review.page import render_index, tables_shown

# Another machine's libraries may round the last digits of a float otherwise.
TOLERANCE = 1e-9
SHOWN = 5  # of many problems of one kind


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `equal` is None where it could not be checked."""

    name: str
    equal: bool | None
    text: str

    def __str__(self) -> str:
        word = {True: "equal", False: "FAILED", None: "not checked"}[self.equal]
        return f"{word:11}  {self.name}: {self.text}"


def _evaluation(folder: Path) -> Mapping[str, pd.DataFrame]:
    from pekit.evaluation import evaluate, read_inputs

    return evaluate(*read_inputs(folder)).tables


# A stage whose folder holds the file is recomputed by the function, which reads the folder and
# gives what tables/<name>.csv must hold.
Recompute = Callable[[Path], Mapping[str, pd.DataFrame]]
KINDS: dict[str, Recompute] = {"evaluation.json": _evaluation}


def verify(bundle: Path) -> list[Check]:
    """All checks of a bundle, in the order in which they are told.

    Raises:
        UserError: no bundle, or one of another version.
    """
    bundle = Path(bundle)
    card = read_card(bundle)
    checks = [_files(bundle), *_split(bundle, card), *_inputs(bundle, card)]
    recomputed: set[str] = set()
    for stage in card["stages"]:
        for check in _tables(bundle, stage):
            recomputed.add(check.name)
            checks.append(check)
    if not recomputed:
        text = "no stage holds predictions from which tables can be recomputed"
        checks.append(Check("tables", False, text))
    checks += [_index(bundle), *_not_checked(bundle, recomputed)]
    return checks


def first_difference(shown: pd.DataFrame, recomputed: pd.DataFrame) -> str:
    """Where two tables of texts differ first, in words; empty where they are equal.

    Numbers are equal up to 1e-9 of their size.
    """
    if list(shown.columns) != list(recomputed.columns):
        return f"its columns are {list(shown.columns)}, recomputed {list(recomputed.columns)}"
    labels = [name for name in shown if not _is_number(shown[name].iloc[0] if len(shown) else "")]
    for row, (ours, theirs) in enumerate(
        zip(shown.itertuples(index=False), recomputed.itertuples(index=False), strict=False)
    ):
        for column, here, there in zip(shown.columns, ours, theirs, strict=True):
            if not _same(here, there):
                about = ", ".join(str(shown[name].iloc[row]) for name in labels[:3])
                return (
                    f"row {row + 1} ({about}), column {column}: "
                    f"{here or 'nothing'} in the table, {there or 'nothing'} recomputed"
                )
    if len(shown) != len(recomputed):
        return f"it has {len(shown)} rows, recomputed {len(recomputed)}"
    return ""


def _same(here: str, there: str) -> bool:
    if here == there:
        return True
    if not (_is_number(here) and _is_number(there)):
        return False
    return math.isclose(float(here), float(there), rel_tol=TOLERANCE, abs_tol=1e-12)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _texts(csv: Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(csv, dtype=str, keep_default_na=False)


def _files(bundle: Path) -> Check:
    problems = check_sums(bundle)
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        return Check(SUMS, False, ", ".join(problems[:SHOWN]) + more)
    own = file_hash(bundle / SUMS)
    return Check(SUMS, True, f"{len(files_of(bundle))} files; the bundle's own hash is {own}")


def _split(bundle: Path, card: Mapping) -> Iterator[Check]:
    splits = sorted(bundle.glob(f"{STAGES}/*/split.csv"))
    recorded = {
        stage: stage_json(bundle, stage, "manifest").get("inputs", {}).get("split")
        for stage in card["stages"]
    }
    users = {stage: digest for stage, digest in recorded.items() if digest}
    for path in splits:
        name = path.relative_to(bundle).as_posix()
        digest = file_hash(path)
        frozen = path.with_name("split.csv.sha256").read_text(encoding="utf-8").split()[0]
        if digest != frozen:
            yield Check(name, False, "it is not the one that was frozen: its hash is another")
        elif others := [stage for stage, used in users.items() if used != digest]:
            yield Check(name, False, f"another one was used by {', '.join(others)}")
        else:
            yield Check(name, True, f"as frozen, and as {len(users)} stages recorded it")
    if users and not splits:
        yield Check("split.csv", False, "it is not in the bundle")


def _inputs(bundle: Path, card: Mapping) -> Iterator[Check]:
    """Files of the bundle that a stage read are as it read them."""
    for stage, about in card["stages"].items():
        recorded = stage_json(bundle, stage, "manifest").get("inputs", {})
        for name, file in about["inputs"].items():
            if name == "split":
                continue
            path = bundle / file
            digest = str(recorded.get(name)).removeprefix("sha256:")
            equal = path.is_file() and file_hash(path) == digest
            text = f"{file} is {'' if equal else 'not '}what the stage read"
            yield Check(f"{stage}, input {name}", equal, text)


def _tables(bundle: Path, stage: str) -> Iterator[Check]:
    """Every table of a stage that can be recomputed, against its recomputed self."""
    folder = bundle / STAGES / stage
    for marker, recompute in KINDS.items():
        if not (folder / marker).exists():
            continue
        try:
            tables = recompute(folder)
        except UserError as error:
            yield Check(f"{STAGES}/{stage}", False, f"it cannot be recomputed: {error}")
            continue
        for name, table in tables.items():
            path = folder / "tables" / f"{name}.csv"
            label = path.relative_to(bundle).as_posix()
            if not path.exists():
                yield Check(label, False, "it is not in the bundle")
                continue
            computed = _texts(io.StringIO(table.to_csv(index=False)))
            difference = first_difference(_texts(path), computed)
            numbers = sum(_is_number(cell) for cell in computed.to_numpy().ravel())
            text = difference or f"{numbers} numbers recomputed from the predictions"
            yield Check(label, not difference, text)


def _index(bundle: Path) -> Check:
    shown = tables_shown((bundle / INDEX).read_text(encoding="utf-8"))
    equal = bool(shown) and shown == tables_shown(render_index(bundle))
    return Check(INDEX, equal, f"it shows {'' if equal else 'other numbers than '}the tables'")


def _not_checked(bundle: Path, recomputed: set[str]) -> Iterator[Check]:
    """What holds numbers and does not follow from predictions."""
    for name in files_of(bundle):
        table = "/tables/" in name or name.endswith("/table.csv")
        if table and name not in recomputed:
            yield Check(name, None, "it does not follow from predictions in the bundle alone")
    text = "losses, timings and results as the stages recorded them; notebooks as executed"
    yield Check("log.csv, metrics.json and notebook.html of each stage", None, text)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder that `make review` wrote")
    bundle = parser.parse_args(arguments).bundle
    try:
        card, checks = read_card(bundle), verify(bundle)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    for check in checks:
        print(check)
    here = git_state()["commit"]
    if here != card["commit"]:
        print(f"This kit is at commit {here}, the bundle was made at {card['commit']}.")
    failed = [check for check in checks if check.equal is False]
    done = sum(check.equal is True for check in checks)
    words = f"{done} checks equal, {len(failed)} failed"
    print(f"{card['experiment']}: {'NOT VERIFIED' if failed else 'verified'} ({words})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
