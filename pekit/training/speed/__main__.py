"""Measure how fast networks train and predict on this machine, and whether the loader keeps up.

    python -m pekit.training.speed
    python -m pekit.training.speed --store <prepared studies> --workers 16 --out runs/speed

Writes `speed.csv` and `speed.txt`. On a GPU it measures the paper's network (EfficientNetV2-L at
576 pixels, bf16, channels_last) with one hop and two; on a CPU a small one, which only shows that
the command works. Without --store the loader reads synthetic studies (`pekit.dataset.synthetic`),
which lie in memory: the disk is not measured.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pekit.common.errors import UserError
from pekit.common.files import atomic, write_csv
from pekit.common.progress import say
from pekit.dataset.schema import SLICE_LABEL
from pekit.dataset.store import Store
from pekit.dataset.synthetic import synthetic_store
from pekit.training.speed.measure import SpeedSettings, measure_speed
from pekit.training.speed.table import goals, table_text

LARGE = 256  # pixels; from here on the synthetic studies are as many and large as need be


def labelled_split(store: Store) -> pd.DataFrame:
    """A split of the labelled studies, every fourth into the validation part.

    Raises:
        UserError: fewer than two prepared studies have a positive slice.
    """
    slices, kept = store.slices, store.studies.query("status != 'excluded'")["StudyInstanceUID"]
    if SLICE_LABEL not in slices:
        raise UserError(f"{store.root} has no slice labels: give --store one with labelled studies")
    label = slices.groupby("StudyInstanceUID")[SLICE_LABEL].agg(lowest="min", highest="max")
    label = label.loc[label.index.intersection(kept)].query("lowest >= 0")
    if (label["highest"] == 1).sum() < 2:
        raise UserError(f"{store.root} has fewer than two studies with a positive slice")
    order = label.sort_values("highest", ascending=False, kind="stable").index
    part = np.where(np.arange(len(order)) % 4 == 1, "validation", "train")
    return pd.DataFrame({"StudyInstanceUID": order, "part": part})


def run(settings: SpeedSettings, store: str, out: Path) -> pd.DataFrame:
    """Measure, write `speed.csv` and `speed.txt` to `out`, and print the latter."""
    with tempfile.TemporaryDirectory() as folder:
        if store:
            studies = Store(Path(store))
            split, source = labelled_split(studies), store
        else:
            size = settings.image_size
            n, z = (512, 250) if size >= LARGE else (16, 24)
            shape = (z, round(0.57 * size), round(0.69 * size))  # a crop of a slice of 512 pixels
            studies, split = synthetic_store(Path(folder), n, shape)
            source = "synthetic studies in memory, the disk is not measured"
        table = measure_speed(settings, studies, split)
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        f"{settings.encoder} at {settings.image_size} pixels, {settings.precision}, channels_last; "
        f"{device}; torch {torch.__version__}; {settings.workers} workers",
        f"matrix product in the same precision: {table.attrs['matrix'] / 1e12:.3g} TFLOP/s",
        f"loader: {source}",
        "",
        table_text(table),
        "",
        *goals(table, on_gpu),
    ]
    write_csv(out / "speed.csv", table)
    with atomic(out / "speed.txt") as beside:
        beside.write_text("\n".join(lines) + "\n")
    say("\n" + "\n".join(lines))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speed"), help="folder of the tables")
    parser.add_argument("--store", default="", help="prepared studies; without: synthetic ones")
    parser.add_argument("--encoder", help="timm's name")
    parser.add_argument("--image-size", type=int, help="pixels")
    parser.add_argument("--batch-size", type=int, help="stacks; on a GPU by default what fits")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--workers", type=int, help="processes that load training data")
    parser.add_argument("--devices", type=int, help="also train in so many processes")
    parser.add_argument("--seconds", type=float, help="least duration of each measurement")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile")
    given = vars(parser.parse_args(arguments))
    out, store = given.pop("out"), given.pop("store")
    try:
        chosen = {name: value for name, value in given.items() if value is not None}
        run(SpeedSettings.here(**chosen), store, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
