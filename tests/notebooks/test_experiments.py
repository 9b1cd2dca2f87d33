"""The experiment files: rsna.yaml is the paper's recipe; the control draws as hop 2 does."""

import re
from pathlib import Path

import pytest

from batch.experiment import read_experiment
from pekit.training.settings import TrainSettings

EXPERIMENTS = Path(__file__).resolve().parents[2] / "notebooks" / "experiments"
WITH_HOPS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if "hop2" in path.read_text()]


@pytest.fixture(scope="module")
def rsna():
    stages = read_experiment(EXPERIMENTS / "rsna.yaml").stages
    return {name: stage.params for name, stage in stages.items()}


def settings(stage) -> TrainSettings:
    """As the notebook makes them from its parameters."""
    size = {"image_size": stage["IMAGE_SIZE"]} if "IMAGE_SIZE" in stage else {}
    return TrainSettings(**stage["TRAIN"], epochs=stage["EPOCHS"], **size)


def test_rsna_is_section_iv_for_all_trainings(rsna):
    """Numbers from the paper's text, section IV unless another is named."""
    for name in ("pretrain", "hop1", "hop2", "hop1_control"):
        s = settings(rsna[name])
        assert s.epochs == 10
        assert s.warmup_steps == 1000
        assert s.samples_per_epoch is None, "every slice, at its natural prevalence"
        assert s.positive_fraction is None
        assert (s.depth, s.stride) == (3, 1), "section III: stacks of 3 slices, around every slice"
        assert s.encoder_lr == 1
        if name != "hop2":  # its encoder and size are those of hop 1
            assert s.image_size == 576
            assert rsna[name]["ENCODER"].startswith("tf_efficientnetv2_l.in21k")
        augment = s.augment
        assert augment.contrast == 0.2
        assert (augment.shift, augment.scale, augment.rotate_deg) == (0.2, 0.2, 45)
        assert (augment.cutout_holes, augment.cutout_size) == (2, 0.4)


def test_rsna_optimisers_are_the_papers(rsna):
    landmarks = settings(rsna["pretrain"])
    assert (landmarks.optimizer, landmarks.lr) == ("sgd", 0.1)
    assert landmarks.z_scale == 600
    assert rsna["pretrain"]["INIT"] == "timm", "ImageNet-21k weights, from timm"
    for name in ("hop1", "hop2", "hop1_control"):
        s = settings(rsna[name])
        assert (s.optimizer, s.lr) == ("lars", 0.003)


def test_rsna_splits_and_chains_as_the_paper(rsna):
    prepare = rsna["prepare"]
    assert prepare["SEGMENTER"] in ("totalsegmentator", "precomputed"), "all 20 landmarks"
    assert prepare["LANDMARKS"] == "masks"
    assert (prepare["VALIDATION"], prepare["TEST"]) == (836, 0)
    assert rsna["hop1"]["INIT"].endswith("/pretrain")
    assert rsna["hop2"]["HOP1"].endswith("/hop1")
    assert rsna["evaluate"]["CHOOSE_ON"] == rsna["evaluate"]["REPORT_ON"] == "validation"


@pytest.mark.parametrize("path", WITH_HOPS, ids=lambda path: path.stem)
def test_the_control_draws_as_hop_2_and_otherwise_than_hop_1(path):
    stages = read_experiment(path).stages
    by_name = {name: stage.params for name, stage in stages.items()}
    second = [name for name in by_name if re.match(r"hop2(_|$)", name)]
    assert second
    for name in second:
        repeat = name.removeprefix("hop2")
        first = Path(by_name[name]["HOP1"]).name
        controls = [
            params
            for other, params in by_name.items()
            if other.endswith(repeat) and Path(str(params.get("INIT"))).name == first
        ]
        assert controls, f"{name} has a control"
        for control in controls:
            assert control["SEED"] == by_name[name]["SEED"]
            assert control.get("EPOCHS") == by_name[name].get("EPOCHS")
            assert control.get("TRAIN") == by_name[name].get("TRAIN")
        assert by_name[name]["SEED"] != by_name[first].get("SEED", 0)
