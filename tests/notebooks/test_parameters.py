"""TRAIN of the training notebooks: checked key by key before anything runs."""

from pathlib import Path

import pytest

from batch.parameters import check_parameters, read_parameters
from pekit.common.errors import UserError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TRAININGS = sorted(NOTEBOOKS.glob("2*_*.ipynb"))


@pytest.mark.parametrize("notebook", TRAININGS, ids=lambda path: path.stem)
def test_defaults_fit(notebook):
    check_parameters(notebook, read_parameters(notebook), "defaults")


@pytest.mark.parametrize(
    ("notebook", "given", "message"),
    [
        ("21_train_hop1", {"batchsize": 3}, "hop1: TRAIN: no setting 'batchsize'; did you mean"),
        ("21_train_hop1", {"lr": "1e-3"}, "TRAIN: lr = '1e-3'.*write 1.0e-3"),
        ("21_train_hop1", {"workers": 1.5}, "TRAIN: workers = 1.5"),
        (
            "21_train_hop1",
            {"augment": {"contrst": 0.1}},
            "'augment.contrst'; did you mean contrast",
        ),
        ("21_train_hop1", {"epochs": 3}, "TRAIN: 'epochs' is set by EPOCHS"),
        ("21_train_hop1", {"z_scale": 100.0}, "TRAIN: this stage does not take 'z_scale'"),
        ("20_pretrain_landmarks", {"positive_fraction": 0.4}, "does not take 'positive_fraction'"),
        ("22_train_hop2", {"image_size": 96}, "does not take 'image_size'"),
        ("23_train_study_heads", {"hiden": 64}, "no setting 'hiden'; did you mean hidden"),
        ("23_train_study_heads", {"hidden": 63}, "TRAIN: hidden = 63"),
    ],
)
def test_bad_settings_are_named(notebook, given, message):
    with pytest.raises(UserError, match=message):
        check_parameters(NOTEBOOKS / f"{notebook}.ipynb", {"TRAIN": given}, "hop1")


def test_a_setting_that_a_stage_takes_is_no_error():
    check_parameters(NOTEBOOKS / "20_pretrain_landmarks.ipynb", {"TRAIN": {"z_scale": 5.0}}, "a")
    check_parameters(NOTEBOOKS / "21_train_hop1.ipynb", {"TRAIN": {}}, "a")
