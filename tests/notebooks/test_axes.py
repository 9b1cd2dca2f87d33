"""Repeats of an experiment's stages over seeds and levels."""

from pathlib import Path

import pytest

from batch.axes import expand
from batch.experiment import read_experiment
from pekit.common.errors import UserError

PATH = Path("toy.yaml")


def stage(**given) -> dict:
    return {"notebook": "x.ipynb", "needs": {}, "gathers": {}, "params": {}} | given


STAGES = {
    "cohort": stage(params={"DIFFICULTY": "$difficulty"}),
    "prepare": stage(needs={"DATA": "cohort/train"}),
    "hop1": stage(needs={"PREPARED": "prepare"}, params={"SEED": "$seed", "LR": 0.1}),
    "about": stage(after=["prepare"], needs={"ALL": "."}),
    "single": stage(),
    "tables": stage(gathers={"RUNS": ["hop1", "single"]}),
}
AXES = {"difficulty": [1.0, 2.5], "seed": [0, 1]}


def test_stages_run_once_for_each_value_of_the_axes_that_they_and_their_needs_name():
    done = expand(STAGES, AXES, PATH)
    assert list(done) == [
        "cohort_difficulty1",
        "cohort_difficulty2p5",
        "prepare_difficulty1",
        "prepare_difficulty2p5",
        "hop1_difficulty1_seed0",
        "hop1_difficulty1_seed1",
        "hop1_difficulty2p5_seed0",
        "hop1_difficulty2p5_seed1",
        "about_difficulty1",
        "about_difficulty2p5",
        "single",
        "tables",
    ]
    assert done["cohort_difficulty2p5"]["params"] == {"DIFFICULTY": 2.5}
    assert done["prepare_difficulty2p5"]["needs"] == {"DATA": "cohort_difficulty2p5/train"}
    last = done["hop1_difficulty2p5_seed1"]
    assert last["params"] == {"SEED": 1, "LR": 0.1}
    assert last["needs"] == {"PREPARED": "prepare_difficulty2p5"}
    assert done["about_difficulty1"]["after"] == ["prepare_difficulty1"]
    assert done["about_difficulty1"]["needs"] == {"ALL": "."}


def test_an_axis_of_whole_numbers_may_be_shifted():
    done = expand({"hop2": stage(params={"SEED": "$seed+100"})}, {"seed": [0, 3]}, PATH)
    assert {name: entry["params"]["SEED"] for name, entry in done.items()} == {
        "hop2_seed0": 100,
        "hop2_seed3": 103,
    }
    with pytest.raises(UserError, match=r"stage hop2: \$level\+1 needs an axis of whole numbers"):
        expand({"hop2": stage(params={"X": "$level+1"})}, {"level": ["a", "b"]}, PATH)


def test_a_gathering_stage_gets_every_repeat_with_its_values():
    runs = expand(STAGES, AXES, PATH)["tables"]["gathers"]["RUNS"]
    assert len(runs) == 5
    folder = "hop1_difficulty1_seed1"
    assert runs[1] == {"stage": "hop1", "folder": folder, "difficulty": 1.0, "seed": 1}
    assert runs[4] == {"stage": "single", "folder": "single"}


def test_without_axes_nothing_changes():
    plain = {"a": stage(params={"LR": 0.1}), "b": stage(needs={"A": "a"})}
    done = expand(plain, {}, PATH)
    assert done == {name: entry | {"after": []} for name, entry in plain.items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hop1": stage(params={"SEED": "$sed"})}, r"\$sed.*did you mean seed"),
        ({"tables": stage(gathers={"RUNS": ["hop"]})}, "'hop'.*did you mean hop1"),
        ({"tables": stage(gathers={"RUNS": "hop1"})}, "not a list of stages"),
    ],
)
def test_unknown_names_are_told(change, named):
    with pytest.raises(UserError, match=named):
        expand(STAGES | change, AXES, PATH)


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"seed": 3}, "list"),
        ({"seed": []}, "list"),
        ({"seed": [1, 1.0]}, "twice"),
        ({"seed": ["a b"]}, "words"),
        ({"folder": [1]}, "folder"),
    ],
)
def test_bad_axes_are_told(axes, named):
    with pytest.raises(UserError, match=named):
        expand({"a": stage()}, axes, PATH)


def test_the_ablations_repeat_every_arm_for_each_seed_and_level():
    path = Path(__file__).parents[2] / "notebooks" / "experiments" / "ablations.yaml"
    stages = read_experiment(path).stages
    runs = stages["tables"].params["RUNS"]
    assert {(r["difficulty"], r["seed"]) for r in runs} == {
        (d, s) for d in (0.5, 1.0) for s in (0, 1, 2)
    }
    assert all(r["folder"].removeprefix("../runs/ablations/") in stages for r in runs)
    assert set(stages["tables"].after) == {Path(r["folder"]).name for r in runs}
