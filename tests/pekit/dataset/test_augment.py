"""The single warp of HU against the paper's order: Albumentations on windowed channels."""

from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from pekit.dataset.augment import AugmentSettings, augment_stack, draw_augmentation, move_points
from pekit.dataset.schema import OUTSIDE_HU
from pekit.dataset.stacks import resize_slices
from pekit.dataset.windows import Windows

SIZE = 96
STILL = {"contrast": 0, "shift": 0, "scale": 0, "rotate_deg": 0, "cutout_holes": 0}


def smooth_stack(shape=(3, 120, 150)):
    """Tissue that varies over about 10 pixels, within the range of all three windows."""
    noise = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, None, 6) for plane in noise])
    return (smooth / smooth.std() * 400 - 200).astype(np.int16)


def parts(draw, size=SIZE):
    """Scale, angle (degrees) and shift of the centre (pixels) of a draw's matrix."""
    (a, b, _), _ = draw.matrix
    centre = np.full(2, (size - 1) / 2)
    shift = draw.matrix[:, :2] @ centre + draw.matrix[:, 2] - centre
    return np.hypot(a, b), np.rad2deg(np.arctan2(b, a)), shift


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("border", "mode"), [("air", cv2.BORDER_CONSTANT), ("reflect", cv2.BORDER_REFLECT_101)]
)
def test_equals_windowing_then_albumentations_on_nine_channels(seed, border, mode):
    draw = draw_augmentation(AugmentSettings(border=border), SIZE, seed)
    scale, angle, shift = parts(draw)
    shift = np.round(shift).astype(int)  # Albumentations shifts by whole pixels
    matrix = draw.matrix.copy()
    matrix[:, 2] += shift - parts(draw)[2]
    draw = replace(draw, matrix=matrix)
    windows, stack = Windows(), smooth_stack()

    images = windows(torch.from_numpy(resize_slices(stack, SIZE))[None])[0]
    change = draw.contrast - 1
    x, y = (int(s) for s in shift)
    paper = A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=(0, 0), contrast_limit=(change,) * 2, p=1),
            A.Affine(
                translate_px={"x": (x, x), "y": (y, y)},
                scale=(scale, scale),
                rotate=(angle, angle),
                border_mode=mode,
                p=1,
            ),
        ]
    )
    expected = paper(image=np.ascontiguousarray(images.permute(1, 2, 0).numpy()))["image"]
    for y0, y1, x0, x1 in draw.holes:
        expected[y0:y1, x0:x1] = 0

    ours = torch.from_numpy(augment_stack(stack, SIZE, draw))[None]
    ours = windows(ours, torch.tensor([draw.contrast], dtype=torch.float32))[0]
    error = np.abs(ours.permute(1, 2, 0).numpy() - expected)
    assert error.mean() < 0.005
    assert (error > 0.1).mean() < 0.008, "only at the border of the image or the end of a window"


def test_draws_fill_the_papers_ranges():
    draws = [draw_augmentation(AugmentSettings(), SIZE, seed) for seed in range(1000)]
    scale, angle, shift = (np.array(v) for v in zip(*map(parts, draws), strict=True))
    contrast = np.array([d.contrast for d in draws])
    for values, low, high in (
        (contrast, 0.8, 1.2),
        (scale, 0.8, 1.2),
        (angle, -45, 45),
        (shift[:, 0] / SIZE, -0.2, 0.2),
        (shift[:, 1] / SIZE, -0.2, 0.2),
    ):
        margin = 0.01 * (high - low)
        assert low <= values.min() + 1e-9 < low + margin
        assert high - margin < values.max() - 1e-9 <= high
        assert abs(values.mean() - (low + high) / 2) < 3 * margin
        assert values.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.1)


def test_cutouts_are_albumentations_cutout():
    """Two squares of 0.4 of the side around centres anywhere, clipped at the border."""
    draws = [draw_augmentation(AugmentSettings(), 576, seed).holes for seed in range(1000)]
    holes = np.stack(draws).reshape(-1, 2, 2)  # hole, axis, start and stop
    assert holes.shape[0] == 2000
    assert holes.min() == 0
    assert holes.max() == 576
    sides = holes[..., 1] - holes[..., 0]
    whole = 2 * (int(0.4 * 576) // 2)
    inside = (holes[..., 0] > 0) & (holes[..., 1] < 576)
    assert (sides[inside] == whole).all(), "one fixed size: smaller only where the border cuts it"
    assert inside.mean() == pytest.approx(0.6, abs=0.03), "a centre 0.2 from a border is as likely"
    # A uniform centre loses a quarter of half the side at each border, in the mean: 0.4 - 0.04.
    assert sides.mean() / 576 == pytest.approx(0.36, abs=0.005)


def test_a_draw_depends_only_on_its_seed():
    one, two, other = (draw_augmentation(AugmentSettings(), SIZE, seed) for seed in (7, 7, 2**62))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    np.testing.assert_array_equal(one.holes, two.holes)
    assert one.contrast == two.contrast != other.contrast


def test_zero_augmentation_is_the_resizing():
    stack = smooth_stack()
    still = augment_stack(stack, SIZE, draw_augmentation(AugmentSettings(**STILL), SIZE, 3))
    difference = still.astype(int) - resize_slices(stack, SIZE)
    # Within half a pixel of the border the warp reads from outside the image.
    assert np.abs(difference[:, 1:-1, 1:-1]).max() <= 1


def test_all_slices_of_a_stack_move_alike_and_points_with_them():
    rng = np.random.default_rng(0)
    settings = AugmentSettings(cutout_holes=0)
    for seed in range(20):
        y, x = rng.integers(24, 40, 2)
        stack = np.full((5, 64, 64), OUTSIDE_HU, np.int16)
        stack[:, y - 2 : y + 3, x - 2 : x + 3] = 1000
        draw = draw_augmentation(settings, 64, seed)
        moved = augment_stack(stack, 64, draw)
        assert (moved == moved[0]).all()
        ys, xs = np.nonzero(moved[0] > 0)
        point = move_points(np.array([[x + 0.5, y + 0.5], [np.nan, 0.5]]) / 64, 64, draw)
        np.testing.assert_allclose([xs.mean(), ys.mean()], point[0] * 64 - 0.5, atol=0.7)
        assert np.isnan(point[1]).all()


def test_cutouts_and_what_lies_outside_window_to_zero():
    stack = np.full((3, 120, 150), 60, np.int16)
    draw = draw_augmentation(AugmentSettings(), SIZE, 4)
    result = augment_stack(stack, SIZE, draw)
    for y0, y1, x0, x1 in draw.holes:
        assert (result[:, y0:y1, x0:x1] == OUTSIDE_HU).all()
    assert (augment_stack(stack, SIZE, replace(draw, border="reflect", holes=[])) == 60).all()
    empty = torch.from_numpy((result == OUTSIDE_HU)[0])
    assert 0.05 < empty.float().mean() < 0.8
    assert Windows()(torch.from_numpy(result)[None])[0][:, empty].abs().max() == 0
