import pytest
import torch

from pekit.dataset.schema import OUTSIDE_HU
from pekit.dataset.windows import Windows


def test_hand_computed_values():
    # HU of the slices: lower end and centre of the PE window, upper end of the soft-tissue window.
    stack = torch.tensor([-250, 100, 240]).view(1, 3, 1, 1).to(torch.int16)
    images = Windows()(stack).flatten()
    lung = [(hu + 1350) / 1500 for hu in (-250, 100, 240)]
    expected = [0, 0, lung[0], 0.5, (100 + 160) / 400, lung[1], (240 + 250) / 700, 1, 1]
    assert images.tolist() == pytest.approx(expected)


def test_outside_the_hull_is_zero_in_all_windows():
    stack = torch.full((1, 3, 4, 4), OUTSIDE_HU)
    assert Windows()(stack).abs().max() == 0


def test_contrast_multiplies_after_windowing():
    stack = torch.randint(-1350, 600, (2, 3, 8, 8))
    plain = Windows()(stack)
    changed = Windows()(stack, torch.tensor([0.8, 1.2]))
    torch.testing.assert_close(changed[0], plain[0] * 0.8)
    torch.testing.assert_close(changed[1], (plain[1] * 1.2).clamp(max=1))
