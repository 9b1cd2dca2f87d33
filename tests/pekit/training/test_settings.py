import pytest

from pekit.common.errors import UserError
from pekit.dataset.augment import AugmentSettings
from pekit.training.settings import ClusterSettings, TrainSettings


def test_defaults_are_the_papers():
    s = TrainSettings()
    assert (s.image_size, s.optimizer, s.lr, s.warmup_steps, s.epochs) == (
        576,
        "lars",
        0.003,
        1000,
        10,
    )
    a = s.augment
    assert (a.contrast, a.shift, a.scale, a.rotate_deg) == (0.2, 0.2, 0.2, 45.0)
    assert (a.cutout_holes, a.cutout_size) == (2, 0.4)


def test_unknown_name_offers_near_ones():
    with pytest.raises(UserError, match=r"no setting 'batchsize'; did you mean batch_size"):
        TrainSettings(batchsize=3)


def test_groups_of_settings_offer_near_names_too():
    with pytest.raises(UserError, match=r"no setting 'device'; did you mean devices"):
        ClusterSettings(device=2)
    with pytest.raises(UserError, match="devices = 0"):
        ClusterSettings(devices=0)


def test_several_machines_are_refused_before_anything_runs():
    with pytest.raises(UserError, match=r"nodes = 2: .* one machine: set nodes = 1"):
        TrainSettings(cluster={"devices": 8, "nodes": 2})


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("lr", -1.0), ("optimizer", "adam"), ("epochs", "three"), ("image_size", 8)],
)
def test_bad_value_names_the_field(name, value):
    with pytest.raises(UserError, match=f"{name} = {value!r}"):
        TrainSettings(**{name: value})


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        AugmentSettings().contrast = 0.5
