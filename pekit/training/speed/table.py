"""The table of speeds: what follows from the measured rates, its text, and the two goals."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

FED, MATRIX = 0.90, 0.35  # goals: share of the synthetic rate when fed, share of the matrix rate
KEY = ["task", "hops", "mode"]
COLUMNS = (
    *KEY, "input", "devices", "batch", "stacks_per_s", "ms_per_step", "peak_gib",
    "gflop_per_stack", "tflops", "of_matrix_rate", "of_synthetic", "stacks_per_s_per_core",
    "loader_cores", "note",
)  # fmt: skip


def speed_table(rows: list[dict], matrix_flops: float) -> pd.DataFrame:
    """The measured rows, completed.

    Args:
        rows: task (train, predict), hops, mode (eager, compiled), input (synthetic, loader),
            devices, batch (stacks per device and step), stacks_per_s (of all devices; NaN where it
            was not measured, then `note` says why), peak_gib, gflop_per_stack,
            stacks_per_s_per_core (that one core loads), note.
        matrix_flops: FLOP per second of a large matrix product on one device.

    Returns:
        COLUMNS. tflops and of_matrix_rate are per device. of_synthetic: share of the rate on
        synthetic input with as many devices. loader_cores: cores that load as fast as the network
        takes synthetic input.
    """
    table = pd.DataFrame(rows)
    alone = table[(table["input"] == "synthetic") & (table["devices"] == 1)]
    alone = alone.set_index(KEY)["stacks_per_s"]
    synthetic = alone.reindex(pd.MultiIndex.from_frame(table[KEY])).to_numpy() * table["devices"]
    table["ms_per_step"] = 1000 * table["devices"] * table["batch"] / table["stacks_per_s"]
    table["tflops"] = table["stacks_per_s"] * table["gflop_per_stack"] / table["devices"] / 1000
    table["of_matrix_rate"] = table["tflops"] * 1e12 / matrix_flops
    table["of_synthetic"] = table["stacks_per_s"] / synthetic
    table["loader_cores"] = np.ceil(synthetic / table["stacks_per_s_per_core"])
    return table[list(COLUMNS)]


def goals(table: pd.DataFrame, on_gpu: bool) -> list[str]:
    """One line per goal: met, missed, or unseen. Of eager and compiled the faster one counts."""
    one = table[(table["devices"] == 1) & table["stacks_per_s"].notna()]
    synthetic = one[one["input"] == "synthetic"].sort_values("stacks_per_s")
    best = synthetic.drop_duplicates(["task", "hops"], keep="last").sort_index()
    fed = one[one["input"] == "loader"].merge(best[KEY], on=KEY)
    return [
        _goal("fed by the loader, of the synthetic rate", fed, "of_synthetic", FED, on_gpu),
        _goal("of the matrix rate", best, "of_matrix_rate", MATRIX, on_gpu),
    ]


def _goal(what: str, rows: pd.DataFrame, column: str, least: float, on_gpu: bool) -> str:
    figures = ", ".join(
        f"{task}, {hops} hop{'s' if hops > 1 else ''}: {100 * share:.0f} %"
        for task, hops, share in rows[["task", "hops", column]].itertuples(index=False)
    )
    if not on_gpu:
        verdict = "unseen, there is no GPU here; this CPU"
    elif rows.empty:
        verdict = "unseen, nothing could be measured"
    else:
        verdict = "met" if (rows[column] >= least).all() else "missed"
    return f"Goal, at least {100 * least:.0f} % {what}: {verdict} ({figures or 'no figure'})"


def table_text(table: pd.DataFrame) -> str:
    """The table for reading: rounded, in columns; a share as per cent."""

    def digits(number: int, scale: float = 1) -> Callable[[float], str]:
        return lambda value: "-" if math.isnan(value) else f"{scale * value:.{number}f}"

    formats = {name: digits(2) for name in ("peak_gib", "tflops")}
    formats |= {name: digits(1) for name in ("stacks_per_s", "ms_per_step", "gflop_per_stack")}
    formats |= {"stacks_per_s_per_core": digits(1), "loader_cores": digits(0)}
    formats |= {name: digits(0, 100) for name in ("of_matrix_rate", "of_synthetic")}
    names = {"of_matrix_rate": "%matrix", "of_synthetic": "%synthetic", "gflop_per_stack": "gflop"}
    names |= {"stacks_per_s_per_core": "per_core", "loader_cores": "cores"}
    shown = {names.get(name, name): form for name, form in formats.items()}
    return table.rename(columns=names).to_string(index=False, formatters=shown, na_rep="-")
