"""The published solutions of experiments/peers.yaml differ in encoder and study head alone."""

from pathlib import Path

import pytest
import timm

from batch.experiment import read_experiment

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("xu", "pan", "darragh", "ma")


@pytest.fixture(scope="module")
def peers():
    return read_experiment(ROOT / "notebooks" / "experiments" / "peers.yaml")


def test_all_peers_share_split_and_recipe(peers):
    stages = [peers.stages[name] for name in PEERS]
    assert {stage.params["PREPARED"] for stage in stages} == {"../runs/peers/prepare"}
    own = {"RUN", "ENCODER", "INIT", "IMAGE_SIZE"}
    recipes = [{k: v for k, v in s.params.items() if k not in own} for s in stages]
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("name", PEERS)
def test_each_head_reads_its_own_encoder(peers, name):
    assert set(peers.stages[f"{name}_predict"].after) == {"prepare", name}
    assert set(peers.stages[f"{name}_heads"].after) == {"prepare", f"{name}_predict"}


@pytest.mark.parametrize("name", ["xu", "pan", "darragh"])
def test_encoders_have_pretrained_weights(peers, name):
    assert timm.models.is_model_pretrained(peers.stages[name].params["ENCODER"])
