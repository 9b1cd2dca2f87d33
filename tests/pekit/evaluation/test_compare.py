"""Models of several experiments, on the studies that all of them judged."""

import json

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from pekit.evaluation.ablation import ablation
from pekit.evaluation.compare import common_predictions, comparison, differing_settings


def predictions(studies, hops=("hop1",), seed=0, part=lambda study: "test" if study % 2 else "val"):
    rng = np.random.default_rng(seed)
    rows = []
    for study in studies:
        for z in range(4):
            label = int(study % 3 == 0 and z == 1)
            row = {"StudyInstanceUID": f"s{study:02}", "z": z, "part": part(study)}
            probabilities = {hop: 0.3 * label + 0.7 * rng.random() for hop in hops}
            rows.append(row | {"pe_present_on_image": label} | probabilities)
    return pd.DataFrame(rows)


PARTS = ["val", "test"]


def test_only_studies_that_all_judged_count():
    models = {
        "demo": (predictions(range(40), ("hop1", "hop2")), ""),
        "nocrop": (predictions(range(2, 44), seed=1), "hop1"),
    }
    table, counts = common_predictions(models, PARTS)
    assert table.groupby("stage")["StudyInstanceUID"].nunique().tolist() == [38, 38]
    assert counts["hop"].tolist() == ["hop2", "hop1"]
    assert counts["left out"].tolist() == [2, 4]
    tables = ablation(table, comparison(models, choose_on="val", report_on="test", n_boot=50))
    rows = tables["arms"].query("protocol == 'held-out' and metric == 'AUROC'")
    assert rows["row"].tolist() == ["demo", "nocrop"]
    assert rows["studies"].tolist() == [19, 19]
    assert tables["steps"][["row", "against"]].drop_duplicates().to_numpy().tolist() == [
        ["nocrop", "demo"]
    ]


def test_a_study_in_another_part_is_not_in_common():
    """Thresholds chosen on a study must not be reported on it."""
    models = {
        "a": (predictions(range(10)), ""),
        "b": (predictions(range(10), part=lambda study: "val" if study in (1, 2) else "test"), ""),
    }
    table, _ = common_predictions(models, PARTS)
    assert set(table.loc[table["part"] == "val", "StudyInstanceUID"]) == {"s02"}
    assert "s01" not in set(table["StudyInstanceUID"])


@pytest.mark.parametrize(
    ("other", "hop", "message"),
    [
        (predictions(range(20, 30)), "", "no val study in common"),
        (predictions(range(10)), "hop3", "b has no hop3: choose hop1"),
        (predictions(range(10)).assign(pe_present_on_image=1), "", "b has other slices or labels"),
    ],
)
def test_what_cannot_be_compared_is_named(other, hop, message):
    with pytest.raises(UserError, match=message):
        common_predictions({"a": (predictions(range(10)), ""), "b": (other, hop)}, PARTS)


def test_settings_that_differ(tmp_path):
    for name, crop, cutout in (("demo", "hull", 0), ("nocrop", "none", 2)):
        for stage, settings in {
            "prepare": {"crop": crop, "data": f"runs/{name}/cohort"},
            "hop1": {"epochs": 3, "augment": {"cutout_holes": cutout}},
        }.items():
            folder = tmp_path / name / stage
            folder.mkdir(parents=True)
            (folder / "params.json").write_text(json.dumps(settings))
    (tmp_path / "demo" / "viewer").mkdir()
    (tmp_path / "demo" / "viewer" / "params.json").write_text('{"side": 64}')
    table = differing_settings({name: tmp_path / name for name in ("demo", "nocrop")})
    assert table.to_numpy().tolist() == [
        ["hop1", "augment.cutout_holes", "0", "2"],
        ["prepare", "crop", "hull", "none"],
        ["viewer", "side", "64", ""],
    ]
