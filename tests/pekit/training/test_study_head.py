import numpy as np
import pandas as pd
import pytest
import torch
from exams import exam_store, written_features
from toy import BELOW, DEPTH

from pekit.checkpoint import load_head
from pekit.common.errors import UserError
from pekit.common.files import write_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.exam_labels import exam_metrics, pe_probability
from pekit.inference.study_head import predict_head
from pekit.model.study_head import StudyHead
from pekit.training.settings import HeadSettings
from pekit.training.study_head import LabelledStudies, competition_loss, fit_head
from submissions.metric import EXAM_WEIGHTS, IMAGE_WEIGHT, weighted_log_loss

LABELS = tuple(EXAM_WEIGHTS)
SETTINGS = HeadSettings(kind="gru", hidden=16, epochs=12, batch_size=4, lr=5e-3, seed=3)


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    root = tmp_path_factory.mktemp("exams")
    store, split = exam_store(root / "store")
    return store, split, written_features(root / "features", store)


def new_head(kind="gru"):
    torch.manual_seed(0)
    return StudyHead(kind, 1280, LABELS, hidden=16)


def fit(exams, folder, head=None, settings=SETTINGS, log=lambda row, epoch: None):
    store, split, features = exams
    head = head or new_head()
    history = fit_head(
        head, features, store, split, EXAM_WEIGHTS, IMAGE_WEIGHT, settings, folder, log
    )
    return load_head(folder), history


@pytest.fixture(scope="module")
def trained(exams, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    return *fit(exams, folder), folder


def same(one, two):
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_the_loss_is_the_competitions_score(exams, trained):
    """For studies without slices outside the crop box, the loss is the score of the predictions."""
    store, split, features = exams
    head = trained[0]
    studies = split["StudyInstanceUID"].tolist()[1:5]
    batch = LabelledStudies(features, store, studies, LABELS).batch(studies)
    # Slices below the crop box do not count in the loss, but in the fraction of positive slices.
    assert batch["slices"].tolist() == [DEPTH + BELOW] * 4
    assert batch["positives"].tolist() == [3, 0, 3, 0]
    batch["slices"] = batch["slices"] - BELOW
    logits = head(batch["features"], batch["probability"], batch["mask"])
    weights = torch.tensor(list(EXAM_WEIGHTS.values()))
    above, below = competition_loss(*logits, batch, weights, IMAGE_WEIGHT)

    slices, exam = predict_head(head, features, store, studies)
    slices = slices[slices["z"] >= BELOW]
    truth = slices.merge(store.studies[["StudyInstanceUID", *LABELS]], on="StudyInstanceUID")
    long = exam.melt("StudyInstanceUID", var_name="of", value_name="label")
    ids = long["StudyInstanceUID"] + "_" + long["of"]
    submission = pd.concat(
        [
            pd.DataFrame({"id": ids, "label": long["label"]}),
            pd.DataFrame({"id": slices["SOPInstanceUID"], "label": slices["head"]}),
        ]
    )
    expected = weighted_log_loss(truth, submission)
    assert (above / below).item() == pytest.approx(expected, rel=1e-5)


def test_with_a_stride_the_loss_is_that_of_the_repeated_probabilities(exams, tmp_path):
    """Features of rows 0, 3, 6 and 9 of 10; rows 4, 5 and 6 have PE."""
    store, split, _ = exams
    features = written_features(tmp_path, store, stride=3)
    study = split["StudyInstanceUID"][1]
    batch = LabelledStudies(features, store, [study], LABELS).batch([study])
    assert batch["repeats"].tolist() == [[3, 3, 3, 1]]
    np.testing.assert_allclose(batch["slice_label"], [[0, 2 / 3, 1 / 3, 0]])
    assert (batch["positives"].item(), batch["slices"].item()) == (3, DEPTH + BELOW)
    head = new_head().eval()
    logits = head(batch["features"], batch["probability"], batch["mask"])
    above, _ = competition_loss(*logits, batch, torch.zeros(len(LABELS)), IMAGE_WEIGHT)

    slices, _ = predict_head(head, features, store, [study])
    inside = slices[slices["z"] >= BELOW]
    assert inside["head"].nunique() == 4
    assert (inside["frozen"].to_numpy() == features.read(study)[1].repeat(3)[:DEPTH]).all()
    label, p = inside[SLICE_LABEL], inside["head"]
    each = -(label * np.log(p) + (1 - label) * np.log(1 - p))
    expected = IMAGE_WEIGHT * 3 / (DEPTH + BELOW) * each.sum()
    assert above.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_by_hand():
    """Logits of 0 cost ln 2 each; padding and slices of a study without PE cost nothing."""
    batch = {
        "repeats": torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
        "slice_label": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        "exam_label": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "positives": torch.tensor([1.0, 0.0]),
        "slices": torch.tensor([4.0, 3.0]),  # two of the first study lie outside the crop box
    }
    slice_logits = torch.tensor([[0.0, 0.0, 9.0], [9.0, 9.0, 9.0]])
    weights = torch.tensor([0.75, 0.25])
    above, below = competition_loss(slice_logits, torch.zeros(2, 2), batch, weights, 0.5)
    assert below.item() == 2 + 0.5 * 1
    assert above.item() == pytest.approx((2 * (0.75 + 0.25) + 0.5 * 1 / 4 * 2) * np.log(2))


def test_training_learns_and_saves_the_head(exams, trained):
    head, history, folder = trained
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]
    assert history["validation_loss"].iloc[-1] < 0.6 * history["validation_loss"].iloc[0]
    assert not same(head, new_head())
    assert not list(folder.glob("resume-*"))
    store, split, features = exams
    held_out = split.query("part == 'validation'")["StudyInstanceUID"].tolist()
    slices, exam = predict_head(head, features, store, held_out)
    assert (pe_probability(exam) > 0.5).tolist() == [False, True]
    positive = slices[slices[SLICE_LABEL] == 1]
    assert positive["head"].mean() > positive["frozen"].mean()


def test_a_killed_run_ends_with_the_same_weights(exams, trained, tmp_path):
    def kill(row, epoch):
        if epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(exams, tmp_path, log=kill)
    assert len(list(tmp_path.glob("resume-*.ckpt"))) == 1
    rows = []
    head, history = fit(exams, tmp_path, log=lambda row, epoch: rows.append(epoch))
    assert same(head, trained[0])
    assert rows == list(range(1, 13))
    pd.testing.assert_frame_equal(history, trained[1])


def test_other_settings_do_not_resume(exams, tmp_path):
    def kill(row, epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(exams, tmp_path, log=kill)
    other = SETTINGS.model_copy(update={"epochs": 1})
    assert fit(exams, tmp_path, settings=other)[1]["epoch"].tolist() == [1]


@pytest.mark.parametrize("kind", ["lstm", "tcn", "transformer"])
def test_every_kind_trains(exams, tmp_path, kind):
    settings = SETTINGS.model_copy(update={"kind": kind, "epochs": 10})
    _, history = fit(exams, tmp_path, new_head(kind), settings)
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_slices_outside_the_box_get_zero(exams, trained):
    store, split, features = exams
    studies = split["StudyInstanceUID"].tolist()[:3]
    slices, exam = predict_head(trained[0], features, store, studies, batch_size=2)
    assert len(slices) == 3 * (DEPTH + BELOW)
    assert exam["StudyInstanceUID"].tolist() == studies
    outside = slices["z"] < BELOW
    assert (slices.loc[outside, ["frozen", "head"]] == 0).all(axis=None)
    assert (slices.loc[~outside, ["frozen", "head"]] > 0).all(axis=None)
    expected = np.concatenate([features.read(study)[1] for study in studies])
    np.testing.assert_array_equal(slices.loc[~outside, "frozen"], expected)


def test_bad_studies_and_labels_are_named(exams, tmp_path):
    store, split, features = exams
    with pytest.raises(UserError, match="no study in its train part"):
        fit((store, split.assign(part="test"), features), tmp_path)
    with pytest.raises(UserError, match="nobody is not prepared"):
        LabelledStudies(features, store, ["nobody"], LABELS)
    with pytest.raises(UserError, match="no exam labels septic_pe"):
        LabelledStudies(features, store, [], ("septic_pe",))
    with pytest.raises(UserError, match="list is empty"):
        predict_head(new_head(), features, store, [])
    head = StudyHead("gru", 1280, ("central_pe",), hidden=16)
    with pytest.raises(UserError, match="the head predicts"):
        fit(exams, tmp_path, head)
    broken = new_head()
    with torch.no_grad():
        broken.reduce.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="the loss is nan in epoch 1, batch 0, train part"):
        fit(exams, tmp_path, broken)
    with pytest.raises(UserError, match="no setting 'learning_rate'"):
        HeadSettings(learning_rate=1)


def test_an_unlabelled_study_is_named(tmp_path):
    store, split = exam_store(tmp_path / "store", n=4)
    features = written_features(tmp_path / "features", store)
    studies = store.studies
    studies["central_pe"] = studies["central_pe"].astype(float)
    studies.loc[1, "central_pe"] = np.nan
    write_table(store.root / "studies.parquet", studies)
    study = studies["StudyInstanceUID"][1]
    with pytest.raises(UserError, match=f"study {study} is not labelled"):
        fit((store, split, features), tmp_path)


def test_pe_is_neither_negative_nor_indeterminate():
    exams = pd.DataFrame(
        {"StudyInstanceUID": ["a", "b"], "negative_exam_for_pe": [0.9, 0.2], "indeterminate": 0.5}
    )
    assert pe_probability(exams).to_dict() == pytest.approx({"a": 0.05, "b": 0.4})
    with pytest.raises(UserError, match="indeterminate"):
        pe_probability(exams.drop(columns="indeterminate"))


def test_exam_metrics_by_hand():
    exams = pd.DataFrame(
        {"StudyInstanceUID": list("dcba"), "central_pe": [0.9, 0.2, 0.4, 0.1], "chronic_pe": 0.1}
    )
    truth = pd.DataFrame(
        {"StudyInstanceUID": list("abcd"), "central_pe": [0, 0, 1, 1], "chronic_pe": 0}
    )
    table = exam_metrics(truth, exams, n_boot=50)
    assert table.loc["central_pe", "value"] == 0.75  # c is below b: one pair of four
    assert table.loc["central_pe", "positives"] == 2
    assert np.isnan(table.loc["chronic_pe", "value"])
    assert table.loc["chronic_pe", "note"] == "no study has it"
    with pytest.raises(UserError, match="the first is d"):
        exam_metrics(truth[:3], exams)
