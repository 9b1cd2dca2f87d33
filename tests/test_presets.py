from pathlib import Path

import pytest

from batch.experiment import read_experiment
from batch.parameters import check_parameters, read_parameters
from pekit.errors import UserError
from pekit.presets import PRESETS, preset
from pekit.study_train import HeadSettings

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def peers():
    return read_experiment(NOTEBOOKS / "experiments" / "peers.yaml")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_the_notebooks(name):
    peer = preset(name)
    assert peer.source
    check_parameters(NOTEBOOKS / "05_train_hop1.ipynb", peer.hop1, name)
    check_parameters(NOTEBOOKS / "12_study_heads.ipynb", peer.heads, name)
    given = read_parameters(NOTEBOOKS / "12_study_heads.ipynb") | peer.heads
    for kind in given["HEADS"]:
        HeadSettings(kind=kind, hidden=given["HIDDEN"], dropout=given["DROPOUT"], lr=given["LR"])


@pytest.mark.parametrize("name", PRESETS)
def test_the_experiment_runs_the_presets(peers, name):
    encoder, heads = peers.stages[name], peers.stages[f"{name}_heads"]
    assert preset(name).hop1.items() <= encoder.params.items()
    assert preset(name).heads.items() <= heads.params.items()
    assert set(heads.after) == {"prepare", name}


def test_all_peers_share_split_and_recipe(peers):
    """They differ in what the presets name, and in their folders."""
    stages = [peers.stages[name] for name in PRESETS]
    assert {stage.params["PREPARED"] for stage in stages} == {"../runs/peers/prepare"}
    own = {"RUN", "ENCODER", "INIT", "IMAGE_SIZE"}
    recipes = [{k: v for k, v in s.params.items() if k not in own} for s in stages]
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("name", ["xu", "pan", "darragh"])
def test_encoders_have_pretrained_weights(name):
    import timm

    assert timm.models.is_model_pretrained(preset(name).hop1["ENCODER"])


def test_an_unknown_preset_is_named():
    with pytest.raises(UserError, match=r"no preset 'dargh' \(do you mean darragh"):
        preset("dargh")
