import numpy as np
import pytest
import torch
from scipy import ndimage
from toy import toy_store

from pekit.config import AugmentSettings
from pekit.dataset import Augmentation, StackDataset, training_samples
from pekit.store import OUTSIDE_HU
from pekit.windows import Windows

SIDE = 96


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


def sharp_and_smooth_slices(side):
    """Three slices in HU: discs and bars of bone, lung and air, over slow waves."""
    y, x = np.mgrid[:side, :side] / side
    slices = []
    for phase in (0.0, 0.1, 0.2):
        hu = 300 * np.sin(2 * np.pi * (x + phase)) + 200 * np.cos(2 * np.pi * y)
        hu[(x - 0.3) ** 2 + (y - 0.4 - phase) ** 2 < 0.02] = -900
        hu[(np.abs(x - 0.7) < 0.05) & (y > 0.3)] = 900
        # Air at the rim, like outside a hull: what is filled in joins without a step.
        slices.append(np.pad(hu[2:-2, 2:-2], 2, constant_values=OUTSIDE_HU))
    return np.stack(slices).astype(np.int16)


@pytest.fixture(scope="module")
def store_of_known_slices(tmp_path_factory):
    store, split = toy_store(tmp_path_factory.mktemp("windows"), n=2)
    study = split["StudyInstanceUID"].iloc[0]
    volume = sharp_and_smooth_slices(SIDE)
    store.write_volume(study, np.concatenate([volume, *[volume[-1:]] * 7]))
    return store, study


@pytest.mark.parametrize("seed", range(4))
def test_windowing_on_the_device_equals_the_papers_order(store_of_known_slices, seed):
    """Window to 9 channels, contrast, shift, scale and rotation, cut-outs: by Albumentations.

    The orders differ in one thing: whether pixels are clipped before or after they are
    interpolated. Both results lie between the least and the largest of the pixels that meet there,
    and where these are alike they are the same.
    """
    import albumentations as A

    store, study = store_of_known_slices
    settings = AugmentSettings()
    samples = training_samples(store, [study])
    sample = StackDataset(store, samples, SIDE, settings)[(1, seed)]  # slices 0, 1, 2
    ours = Windows()(torch.tensor(sample["stack_hu"])[None], torch.tensor(sample["contrast"])[None])
    ours = ours[0].numpy()

    windowed = Windows()(torch.from_numpy(sharp_and_smooth_slices(SIDE))[None])[0].numpy()
    change = sample["contrast"] - 1
    contrast = A.RandomBrightnessContrast((0, 0), (change, change), p=1)
    augment = Augmentation(settings)

    def in_the_papers_order(images):
        changed = contrast(image=np.ascontiguousarray(images.transpose(1, 2, 0)))["image"]
        return augment(changed, np.empty((0, 2)), seed)[0].transpose(2, 0, 1)

    square = np.ones((1, 3, 3))
    low = in_the_papers_order(ndimage.grey_erosion(windowed, footprint=square))
    high = in_the_papers_order(ndimage.grey_dilation(windowed, footprint=square))
    theirs = in_the_papers_order(windowed)
    rounding = 1.2 * 0.5 / 400  # half a HU in the narrowest window, at the strongest contrast
    assert (ours >= low - rounding).all()
    assert (ours <= high + rounding).all()
    alike = high - low < 0.02
    assert alike.mean() > 0.5
    assert np.abs(ours - theirs)[alike].mean() < 0.001
    assert np.abs(ours - theirs).mean() < 0.01
    assert theirs.std() > 0.1
