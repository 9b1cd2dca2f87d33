"""`make predict` on one study: refusals, failures, privacy.

Files and folders of the study are named after a patient, and no name may be kept.
"""

import gzip

import nbformat
import numpy as np
import pydicom
import pytest
from encoders import replace_stream, write_chest, write_slice
from pydicom.uid import RLELossless

from batch import commands
from pekit.common.errors import UserError


@pytest.fixture
def model(tmp_path) -> str:
    """A folder that passes for an experiment with a trained network."""
    card = tmp_path / "model" / "hop2" / "model" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    return str(tmp_path / "model")


def cut(folder):
    file = write_chest(folder)[3]
    file.write_bytes(file.read_bytes()[:400])


def spoil_pixels(folder):
    write_slice(write_chest(folder)[3], np.zeros((60, 70), np.int16), RLELossless, 15.0)
    dataset = pydicom.dcmread(folder / "DOE_3.dcm")
    replace_stream(dataset, bytes(100))
    dataset.save_as(folder / "DOE_3.dcm")


def add_a_series(folder):
    write_chest(folder)
    write_chest(folder / "DOE_2", SeriesInstanceUID="1.2.840.99.1")


def two_acquisitions(folder):
    write_chest(folder, AcquisitionNumber=1)
    for z, file in enumerate(write_chest(folder / "DOE_2", AcquisitionNumber=2)):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = f"1.2.9.{z}"
        dataset.save_as(file)


def lose_half(folder):
    for file in write_chest(folder)[3:7]:
        file.unlink()


def pack(folder):
    for file in write_chest(folder):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def empty(folder):
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (empty, "no DICOM file"),
        (cut, "DOE_3.dcm"),
        (spoil_pixels, "DOE_3.dcm: the pixels cannot be decoded"),
        (add_a_series, r"SERIES=1 \(8 files\), SERIES=2 \(8 files\)"),
        (two_acquisitions, r"SERIES=1.1 \(8 files\), SERIES=1.2 \(8 files\)"),
        (lose_half, "4 slices missing between 4 present ones"),
        (pack, "gunzip -r"),
    ],
)
def test_a_refused_study_is_named_to_the_user_and_leaves_nothing(
    tmp_path, monkeypatch, model, spoil, reason
):
    """Before a kernel or a network starts, by the user's own path, in each kind of refusal."""
    spoil(tmp_path / "DOE^JANE")
    monkeypatch.setattr(commands, "run_notebook", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(UserError, match=reason) as caught:
        commands.predict_study(str(tmp_path / "DOE^JANE"), model, str(tmp_path / "out"))
    assert str(tmp_path / "DOE^JANE") in str(caught.value)
    assert "1.2.840.99.1" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_notebook_that_fails_keeps_no_name_of_the_study(tmp_path, model):
    """The experiment is empty, so the notebook fails after it has read the study."""
    write_chest(tmp_path / "DOE^JANE", PatientName="DOE^JANE")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"params\.json does not exist"):
        commands.predict_study(str(tmp_path / "DOE^JANE"), model, str(out))
    kept = [file for file in out.rglob("*") if file.is_file()]
    assert [file.name for file in kept if file.suffix == ".ipynb"] == [
        "50_predict_one_study.failed.ipynb"
    ]
    assert [file for file in kept if b"DOE" in file.read_bytes()] == []
    assert not [file for file in out.rglob("*") if file.is_symlink() or "wandb" in file.name]


def test_an_error_about_a_file_of_the_study_is_shown_and_not_kept(tmp_path, monkeypatch, model):
    """What a notebook says of its links, such as of masks, is said of the user's own folders."""
    write_chest(tmp_path / "DOE^JANE")
    (tmp_path / "DOE_masks").mkdir()

    def fails(_, made, params, **__):
        text = f"{params['MASKS']}/DOE_lung.nii.gz is cut short"
        error = nbformat.v4.new_output("error", ename="UserError", evalue=text, traceback=[text])
        cell = nbformat.v4.new_code_cell("", outputs=[error])
        notebook = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(notebook, made.with_suffix(".failed.ipynb"))
        raise UserError(f"failed in cell [7]: {text}")

    monkeypatch.setattr(commands, "run_notebook", fails)
    study, masks, out = (str(tmp_path / name) for name in ("DOE^JANE", "DOE_masks", "out"))
    with pytest.raises(UserError) as caught:
        commands.predict_study(study, model, out, masks)
    assert str(caught.value) == f"failed in cell [7]: {masks}/DOE_lung.nii.gz is cut short"
    kept = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert [file for file in kept if file.suffix == ".ipynb"]
    assert [file for file in kept if b"DOE" in file.read_bytes()] == []


@pytest.mark.parametrize("out", ["a_file", "a_file/below", "/proc/pekit"])
def test_out_that_cannot_be_written_to_is_said(tmp_path, monkeypatch, model, out):
    write_chest(tmp_path / "study")
    (tmp_path / "a_file").write_text("")
    monkeypatch.setattr(commands, "run_notebook", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(UserError, match=r"OUT=.*cannot be written to"):
        commands.predict_study(str(tmp_path / "study"), model, str(tmp_path / out))
