"""The speed command on a CPU at its smallest: what the table holds, not how fast anything is."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_store

from pekit.common.errors import UserError
from pekit.dataset.synthetic import synthetic_store
from pekit.training.speed import rates
from pekit.training.speed.__main__ import labelled_split, main
from pekit.training.speed.table import COLUMNS, goals, speed_table, table_text

SMALLEST = ["--image-size", "32", "--batch-size", "2", "--seconds", "0.01", "--workers", "0"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    if torch.cuda.is_available():
        pytest.skip("a GPU takes the paper's network")
    out = tmp_path_factory.mktemp("speed")
    assert main(["--out", str(out), *SMALLEST]) == 0
    return pd.read_csv(out / "speed.csv"), (out / "speed.txt").read_text()


def test_one_row_per_task_hops_mode_and_input(measured):
    table, _ = measured
    assert table.columns.tolist() == list(COLUMNS)
    rows = table[table["devices"] == 1][["hops", "mode", "task", "input"]]
    assert len(rows) == len(rows.drop_duplicates()) == 16
    seen = table["stacks_per_s"].notna()
    assert (seen == ((table["mode"] == "eager") & (table["devices"] == 1))).all()
    assert table.loc[~seen, "note"].notna().all(), "what is not measured says why"
    assert table.loc[seen, "note"].isna().all()


def test_figures_belong_together(measured):
    table = measured[0].dropna(subset="stacks_per_s")
    step_s = table["ms_per_step"] / 1000
    np.testing.assert_allclose(table["stacks_per_s"] * step_s, table["batch"])
    flops = table["stacks_per_s"] * table["gflop_per_stack"] * 1e9
    np.testing.assert_allclose(table["tflops"] * 1e12, flops)
    matrix = table["tflops"] / table["of_matrix_rate"]
    np.testing.assert_allclose(matrix, matrix.iloc[0])
    assert (table["peak_gib"] > 0).all()
    rates_of = table.set_index(["hops", "task", "input"])
    for key in rates_of.index:
        synthetic = rates_of.loc[(*key[:2], "synthetic")]
        row = rates_of.loc[key]
        share = row["stacks_per_s"] / synthetic["stacks_per_s"]
        assert row["of_synthetic"] == pytest.approx(share)
        cores = synthetic["stacks_per_s"] / row["stacks_per_s_per_core"]
        assert row["loader_cores"] == math.ceil(cores)


def test_work_by_hand(measured):
    """The convolutions' products, by hooks; backward twice as many, but none in the frozen hop."""
    work = measured[0].drop_duplicates(["hops", "task"]).set_index(["hops", "task"])
    net, counts = rates.build_network("test_efficientnet", 32, 2), []

    def count(conv, _inputs, output):
        counts.append(2 * conv.weight[0].numel() * output[0].numel() / 1e9)

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    net.eval()(torch.zeros(1, 3, 32, 32))
    both = sum(counts)
    counts.clear()
    net.hop_logits(torch.zeros(1, 9, 32, 32), hops=1)
    one = sum(counts)
    expected = {
        (1, "predict"): one, (1, "train"): 3 * one,
        (2, "predict"): both, (2, "train"): one + 3 * (both - one),
    }  # fmt: skip
    # On a CPU, maps of 1 x 1 pixels take the middle of a kernel only: up to 2 % less.
    assert work["gflop_per_stack"].to_dict() == pytest.approx(expected, rel=0.025)


def test_without_a_gpu_the_goals_are_unseen(measured):
    lines = measured[1].splitlines()
    assert "matrix product in the same precision" in measured[1]
    assert [line for line in lines if line.startswith("Goal")] == lines[-2:]
    assert all("unseen, there is no GPU here" in line for line in lines[-2:])


def rows(**changes):
    """One network of 1000 GFLOP per stack; 100 stacks per second alone, 95 fed, 180 by two."""
    values = {"task": "train", "hops": 1, "mode": "eager", "batch": 10, "peak_gib": 1.0}
    values |= {"gflop_per_stack": 1000.0, "stacks_per_s_per_core": 30.0, "note": ""} | changes
    made = (("synthetic", 1, 100.0), ("loader", 1, 95.0), ("loader", 2, 180.0))
    return [values | {"input": i, "devices": d, "stacks_per_s": s} for i, d, s in made]


def test_shares_by_hand():
    table = speed_table(rows(), matrix_flops=250e12)
    assert table["ms_per_step"].tolist() == pytest.approx([100, 105.263, 111.111], rel=1e-4)
    assert table["tflops"].tolist() == [100, 95, 90]  # per device
    assert table["of_matrix_rate"].tolist() == pytest.approx([0.4, 0.38, 0.36])
    assert table["of_synthetic"].tolist() == pytest.approx([1, 0.95, 0.9])
    assert table["loader_cores"].tolist() == [4, 4, 7]


def test_goals_are_met_or_missed():
    met = speed_table(rows(), matrix_flops=250e12)
    fed, matrix = goals(met, on_gpu=True)
    assert fed.endswith("of the synthetic rate: met (train, 1 hop: 95 %)")
    assert matrix.endswith("of the matrix rate: met (train, 1 hop: 40 %)")
    # The faster mode counts, and every network has to reach the goal.
    slow = [row | {"mode": "compiled", "stacks_per_s": row["stacks_per_s"] / 2} for row in rows()]
    two = [row | {"stacks_per_s": row["stacks_per_s"] / 2} for row in rows(hops=2)]
    assert goals(speed_table(rows() + slow, 250e12), on_gpu=True) == [fed, matrix]
    fed, matrix = goals(speed_table(rows() + slow + two, 250e12), on_gpu=True)
    assert fed.endswith("met (train, 1 hop: 95 %, train, 2 hops: 95 %)")
    assert matrix.endswith("missed (train, 1 hop: 40 %, train, 2 hops: 20 %)")


def test_nothing_measured_is_unseen():
    table = speed_table(
        [r | {"stacks_per_s": math.nan, "note": "out of memory"} for r in rows()], 1
    )
    assert all("unseen, nothing could be measured" in line for line in goals(table, on_gpu=True))
    assert "nan" not in table_text(table).lower()


def test_without_a_compiler_the_reason_is_given(monkeypatch):
    def fail(function):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(torch, "compile", fail)
    assert rates.compile_problem("cpu").endswith("not usable: Failed to find C compiler.")


def test_synthetic_studies_shrink_like_ct(tmp_path):
    store, split = synthetic_store(tmp_path, 6, (20, 160, 200))
    assert split["part"].tolist().count("validation") == 2
    last = split["StudyInstanceUID"].iloc[-1]
    hu = store.read_volume(last)
    assert hu.shape == store.volume_shape(last) == (20, 160, 200)
    assert 1.9 < hu.nbytes / store.volume_path(last).stat().st_size < 2.7
    assert labelled_split(store)["part"].tolist().count("validation") == 2


def test_a_store_without_labels_is_refused(tmp_path):
    store, _ = toy_store(tmp_path, n=2)  # one study with a positive slice
    with pytest.raises(UserError, match="fewer than two studies with a positive slice"):
        labelled_split(store)


def test_a_wrong_setting_is_said_in_a_line(capsys):
    assert main(["--image-size", "8"]) == 1
    assert capsys.readouterr().err.startswith("SpeedSettings: image_size = 8")


def test_mixed_precision_is_measured_in_mixed_precision():
    """An autocast that is off inside one that is on computes in float32."""
    net = rates.build_network("test_efficientnet", 32, 1)
    seen = set()
    net.encoders[0].net.conv_head.register_forward_hook(lambda m, i, out: seen.add(out.dtype))
    stacks = np.zeros((2, 3, 32, 32), np.int16)
    rates.predict_alone(net, stacks, mixed=True, seconds=0)
    assert seen == {torch.bfloat16}
