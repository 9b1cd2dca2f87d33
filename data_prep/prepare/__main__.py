"""Prepare a data set, or one shard of it: `python -m data_prep.prepare --help`."""

import argparse
import json
from pathlib import Path

from data_prep.audit.studies import read_exclusions
from data_prep.prepare.studies import prepare
from data_prep.prepare.study import PrepareSettings
from pekit.common.processors import processors
from pekit.common.progress import progress as show_progress


def main(arguments: list[str] | None = None) -> None:
    """Prepare a data set, or one shard of it, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder in the RSNA layout")
    parser.add_argument("root", type=Path, help="the store's folder")
    parser.add_argument("--shard", default="1/1", help="i/n: the i-th of n shards")
    parser.add_argument("--workers", type=int, default=processors(), help="processes")
    parser.add_argument("--limit", type=int, default=None, help="studies of each source, at most")
    parser.add_argument("--settings", default="{}", help="PrepareSettings as JSON")
    parser.add_argument("--exclude", type=Path, default=None, help="exclusions.csv of the audit")
    options = parser.parse_args(arguments)
    try:
        part, parts = (int(number) for number in options.shard.split("/"))
        settings = PrepareSettings(**json.loads(options.settings))
        prepare(
            options.data,
            options.root,
            settings,
            limit=options.limit,
            workers=options.workers,
            progress=show_progress,
            exclude=read_exclusions(options.exclude) if options.exclude else None,
            shard=(part, parts),
        )
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
