"""Settings that notebooks make of their parameters: checked one by one before anything runs."""

from pathlib import Path

import pytest

from batch.parameters import read_parameters
from batch.settings import check_all, check_words
from pekit.common.errors import UserError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("notebook", ALL, ids=lambda path: path.stem)
def test_defaults_fit(notebook):
    check_all(notebook, read_parameters(notebook), "defaults")


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
        check_all(NOTEBOOKS / f"{notebook}.ipynb", {"TRAIN": given}, "hop1")


def test_a_setting_that_a_stage_takes_is_no_error():
    check_all(NOTEBOOKS / "20_pretrain_landmarks.ipynb", {"TRAIN": {"z_scale": 5.0}}, "a")
    check_all(NOTEBOOKS / "21_train_hop1.ipynb", {"TRAIN": {}}, "a")


@pytest.mark.parametrize(
    ("notebook", "params", "message"),
    [
        ("10_phantoms", {"BROKEN_FRACTION": 1.5}, "stage: BROKEN_FRACTION = 1.5: .* equal to 1"),
        ("10_phantoms", {"SLICES": 2}, r"= \(2, 96, 96\)|slices"),
        ("12_prepare", {"CROP": "maskd"}, "CROP = 'maskd': Input should be 'masked', 'box' or"),
        ("12_prepare", {"SEGMENTER": "treshold"}, "SEGMENTER = 'treshold': .*did you mean thresh"),
        ("21_train_hop1", {"TRAIN": {"optimizer": "adamm"}}, "optimizer = 'adamm': Input should"),
        ("21_train_hop1", {"IMAGE_SIZE": 8}, "IMAGE_SIZE = 8: Input should be greater"),
        ("23_train_study_heads", {"HEADS": ["gru", "lstmm"]}, "= 'lstmm': Input should be 'lstm'"),
        ("31_evaluate", {"CRITERION": "f2"}, "CRITERION = 'f2': Input should be 'f1'"),
        ("31_evaluate", {"AT": 1.5}, "AT = 1.5: Input should be less"),
        ("32_ablation_tables", {"N_BOOT": 0}, "N_BOOT = 0: Input should be greater"),
    ],
)
def test_bad_values_are_named(notebook, params, message):
    with pytest.raises(UserError, match=message):
        check_all(NOTEBOOKS / f"{notebook}.ipynb", params, "stage")


@pytest.mark.parametrize(
    ("notebook", "params", "message"),
    [
        ("11_audit", {"DEPTH": "header"}, "DEPTH = 'header': did you mean headers?"),
        ("30_predict", {"BACKEND": "openvno"}, "BACKEND = 'openvno': did you mean openvino"),
    ],
)
def test_words_that_a_function_does_not_take_are_named(notebook, params, message):
    path = NOTEBOOKS / f"{notebook}.ipynb"
    with pytest.raises(UserError, match=message):
        check_words(path, params)
    check_words(path, {name: read_parameters(path)[name] for name in params})
