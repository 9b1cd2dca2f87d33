import json

import pytest
import torch

from pekit.checkpoint import load_head, save_head
from pekit.common.errors import UserError
from pekit.model.study_head import KINDS, StudyHead, masked_pool, slice_fraction

LABELS = ("negative_exam_for_pe", "central_pe", "indeterminate")
FEATURES, LONG, SHORT = 12, 9, 6


def head_of(kind, **sizes):
    torch.manual_seed(0)
    head = StudyHead(kind, FEATURES, LABELS, **{"hidden": 16, "layers": 2, **sizes})
    # A new head adds zero to the slice logits: give it weights.
    torch.nn.init.normal_(head.slice_out.weight)
    return head.eval()


@pytest.fixture(scope="module")
def studies():
    """Two studies; the second is shorter and padded with noise."""
    torch.manual_seed(1)
    mask = torch.ones(2, LONG, dtype=torch.bool)
    mask[1, SHORT:] = False
    return torch.randn(2, LONG, FEATURES), torch.rand(2, LONG), mask


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, studies):
    head = head_of(kind)
    features, probability, mask = studies
    slices, exam = head(*studies)
    assert slices.shape == (2, LONG)
    assert exam.shape == (2, len(LABELS))
    alone = head(features[1:, :SHORT], probability[1:, :SHORT], mask[1:, :SHORT])
    torch.testing.assert_close(slices[1:, :SHORT], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exam[1:], alone[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_changes_its_neighbours(kind, studies):
    """The logit of a slice depends on other slices and on their order."""
    head = head_of(kind)
    features, probability, mask = studies
    slices, exam = head(features, probability, mask)
    other = features.clone()
    other[0, 3] += torch.randn(FEATURES)
    changed = head(other, probability, mask)[0][0] - slices[0]
    assert changed[2].abs() > 1e-5
    assert changed[4].abs() > 1e-5
    order = torch.tensor([2, 0, 1, *range(3, LONG)])
    permuted = head(features[:, order], probability[:, order], mask)[1]
    assert (permuted[0] - exam[0]).abs().max() > 1e-4


def test_temporal_cnn_reaches_as_far_as_its_layers(studies):
    """Two layers of 3 slices, 1 and 2 apart: 3 slices to each side."""
    head = head_of("tcn", layers=2)
    features, probability, mask = studies
    before = head(features, probability, mask)[0][0]
    other = features.clone()
    other[0, 0] += torch.randn(FEATURES)
    changed = (head(other, probability, mask)[0][0] - before).abs() > 1e-6
    assert changed.tolist() == [True] * 4 + [False] * (LONG - 4)


def test_pool_by_hand():
    values = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, False]])
    assert masked_pool(values, mask).tolist() == [[2.0, -3.0, 3.0, -2.0]]
    order = torch.tensor([1, 0, 2])
    assert torch.equal(masked_pool(values[:, order], mask), masked_pool(values, mask))


def test_position_runs_from_lowest_to_highest_slice():
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    place = slice_fraction(mask)
    assert place[0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert place[1, :3].tolist() == [0.0, 0.5, 1.0]
    assert place[2, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_gives_the_probability_of_the_network(kind, studies):
    head = StudyHead(kind, FEATURES, LABELS, hidden=16).eval()
    slices, _ = head(*studies)
    torch.testing.assert_close(slices.sigmoid(), studies[1].clamp(1e-4, 1 - 1e-4))


def test_probability_of_zero_or_one_stays_finite(studies):
    features, _, mask = studies
    for value in (0.0, 1.0):
        slices, exam = head_of("gru")(features, torch.full((2, LONG), value), mask)
        assert torch.isfinite(slices).all()
        assert torch.isfinite(exam).all()


def test_a_saved_head_is_the_same(studies, tmp_path):
    head = head_of("transformer")
    save_head(tmp_path, head)
    loaded = load_head(tmp_path)
    assert loaded.labels == LABELS
    assert torch.equal(loaded(*studies)[1], head(*studies)[1])


def test_bad_heads_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no study head 'rnn'.*gru"):
        StudyHead("rnn", 4, LABELS)
    with pytest.raises(UserError, match="hidden = 20"):
        StudyHead("gru", 4, LABELS, hidden=20)
    with pytest.raises(UserError, match=r"head\.json does not exist"):
        load_head(tmp_path)
    save_head(tmp_path, StudyHead("gru", 4, LABELS, hidden=8))
    other = tmp_path / "other"
    save_head(other, StudyHead("gru", 5, LABELS, hidden=8))
    (other / "head.safetensors").replace(tmp_path / "head.safetensors")
    with pytest.raises(UserError, match="weights do not fit"):
        load_head(tmp_path)
    with pytest.raises(UserError, match=r"no head\.safetensors"):
        load_head(other)
    card = json.loads((other / "head.json").read_text())
    (other / "head.json").write_text(json.dumps({**card, "colour": "red"}))
    with pytest.raises(UserError, match=r"did not write head\.json.*colour"):
        load_head(other)
    (other / "head.json").write_text(json.dumps({**card, "version": 7}))
    with pytest.raises(UserError, match="version 7"):
        load_head(other)
