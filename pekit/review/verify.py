"""Verify a review bundle: one line per check, the outcome in the last line.

    python -m pekit.review.verify runs/demo/review

Recomputes every table that depends only on predictions in the bundle and compares all cells.
Compares the tables in index.html with the files, the split with its hash, and every file with
SHA256SUMS; decodes every picture. Other numbers, such as losses and timings, are listed as not
checked.
Exit status 1 if anything differs, or if nothing could be recomputed.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import file_hash, read_table
from pekit.dataset.schema import hop_names
from pekit.review.bundle import (
    INDEX,
    STAGES,
    SUMS,
    check_sums,
    files_of,
    read_card,
    splits_used,
    stage_json,
)
from pekit.review.index import render_index, tables_shown
from pekit.review.pictures import damaged_pictures
from pekit.review.recompute import Check, table_checks
from pekit.tracking.provenance import git_state

SLICE = "SOPInstanceUID"
SHOWN = 5  # problems of one kind in a message


def verify(bundle: Path) -> list[Check]:
    """Run all checks of a bundle, in the order in which they are printed.

    Raises:
        UserError: the folder is not a bundle, or one of another version.
    """
    bundle = Path(bundle)
    card = read_card(bundle)
    checks = [_files(bundle), _pictures(bundle), *_split(bundle, card), *_inputs(bundle, card)]
    recomputed: set[str] = set()
    for stage, about in card["stages"].items():
        checks += _predictions(bundle, stage, about)
        for check in table_checks(bundle, stage):
            recomputed.add(check.name)
            checks.append(check)
    if not recomputed:
        text = "no stage holds predictions from which tables can be recomputed"
        checks.append(Check("tables", False, text))
    checks += [_index(bundle), *_not_checked(bundle, recomputed)]
    return checks


def _files(bundle: Path) -> Check:
    if problems := check_sums(bundle):
        return Check(SUMS, False, _some(problems))
    own = file_hash(bundle / SUMS)
    return Check(SUMS, True, f"{len(files_of(bundle))} files; the bundle's own hash is {own}")


def _pictures(bundle: Path) -> Check:
    number, damaged = damaged_pictures(bundle)
    if damaged:
        return Check("pictures", False, f"{len(damaged)} do not decode: {_some(damaged)}")
    return Check("pictures", True, f"all {number} decode")


def _some(problems: list[str]) -> str:
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return ", ".join(problems[:SHOWN]) + more


def _split(bundle: Path, card: Mapping) -> Iterator[Check]:
    splits = sorted(bundle.glob(f"{STAGES}/*/split.csv"))
    users = {
        f"{stage}{name.removeprefix('split')}": digest
        for stage in card["stages"]
        for name, digest in splits_used(bundle, stage).items()
    }
    present = {file_hash(path) for path in splits}
    others = [stage for stage, used in users.items() if used not in present]
    for path in splits:
        name = path.relative_to(bundle).as_posix()
        digest = file_hash(path)
        beside = path.with_name("split.csv.sha256")
        frozen = beside.read_text(encoding="utf-8").split() if beside.exists() else []
        if frozen[:1] != [digest]:
            yield Check(name, False, "it is not the frozen split: its hash differs")
        elif others:
            yield Check(name, False, f"another split was used by {', '.join(others)}")
        else:
            using = list(users.values()).count(digest)
            yield Check(
                name, True, f"equal to the frozen hash and to the hash that {using} stages recorded"
            )
    if users and not splits:
        yield Check("split.csv", False, "it is not in the bundle")


def _inputs(bundle: Path, card: Mapping) -> Iterator[Check]:
    """Check that files of the bundle have the hashes that the stages recorded on reading them."""
    for stage, about in card["stages"].items():
        recorded = stage_json(bundle, stage, "manifest").get("inputs", {})
        for name, file in about["inputs"].items():
            if name in splits_used(bundle, stage):  # checked by `_split`
                continue
            path = bundle / file
            digest = str(recorded.get(name)).removeprefix("sha256:")
            equal = path.is_file() and file_hash(path) == digest
            text = f"{file} is {'' if equal else 'not '}what the stage read"
            yield Check(f"{stage}, input {name}", equal, text)


def _predictions(bundle: Path, stage: str, about: Mapping) -> Iterator[Check]:
    """Check that the probabilities a stage evaluated are those that earlier stages predicted."""
    path = bundle / STAGES / stage / "predictions.parquet"
    sources = [f for f in about["inputs"].values() if f.endswith("predictions.parquet")]
    if not path.exists() or not sources:
        return
    columns = []
    for table in (read_table(bundle / file, (SLICE,)) for file in sources):
        table = table.drop_duplicates(SLICE).set_index(SLICE)
        columns += [table[hop] for hop in hop_names(table)]
    for name, probs in _evaluated(read_table(path)):
        found = any(probs.equals(column.reindex(probs.index)) for column in columns)
        label = f"{path.relative_to(bundle).as_posix()}, {name}"
        words = "the same as" if found else "not in"
        shown = ", ".join(sources[:SHOWN]) + (" and more" if len(sources) > SHOWN else "")
        yield Check(label, found, f"{len(probs)} probabilities, {words} {shown}")


def _evaluated(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Models of an evaluation or runs of an ablation: name, and probabilities by slice."""
    if "model" in table:
        for model, rows in table.groupby("model", sort=False):
            yield str(model), rows.set_index(SLICE)["prob"]
    elif {"stage", "level", "seed"} <= set(table):
        hops = hop_names(table)
        for run, rows in table.groupby(["stage", "level", "seed"], sort=False):
            for hop in hops:
                if rows[hop].notna().all():
                    label = " ".join(str(part) for part in (*run, hop) if part != "")
                    yield label, rows.set_index(SLICE)[hop]


def _index(bundle: Path) -> Check:
    if not (bundle / INDEX).exists():
        return Check(INDEX, False, "it is not in the bundle")
    shown = tables_shown((bundle / INDEX).read_text(encoding="utf-8"))
    equal = bool(shown) and shown == tables_shown(render_index(bundle))
    words = "the same as" if equal else "other values than"
    return Check(INDEX, equal, f"it shows {words} the files of the tables")


def _not_checked(bundle: Path, recomputed: set[str]) -> Iterator[Check]:
    """List what holds numbers that predictions in the bundle do not determine."""
    for name in files_of(bundle):
        table = name.split("/")[2:3] == ["tables"] or name.endswith("/table.csv")
        if table and name not in recomputed:
            yield Check(name, None, "it does not depend on predictions in the bundle alone")
    text = "losses, timings and results as the stages recorded them; notebooks as executed"
    yield Check("log.csv, metrics.json and notebook.html of each stage", None, text)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder written by `make review`")
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
