import copy

import numpy as np
import pytest
import torch
from exams import SIZE, exam_store, filled_cache, small_net
from toy import DEPTH

from pekit.common.errors import UserError
from pekit.common.files import write_table
from pekit.hop import HopNet
from pekit.inference.features import FeatureCache, volume_features
from pekit.inference.predict import predict_volume


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return exam_store(tmp_path_factory.mktemp("store"), n=4)[0]


@pytest.fixture(scope="module")
def net():
    return small_net()


def test_classifier_on_the_features_gives_the_probability(store, net):
    """The features are those of the last hop, pooled, one row per slice."""
    hu = store.read_volume(store.studies["StudyInstanceUID"][1])
    features, probability = volume_features(net, hu, SIZE, batch_size=4)
    assert features.shape == (DEPTH, 1280)
    classifier = net.encoders[-1].net.get_classifier()
    with torch.inference_mode():
        again = classifier(torch.from_numpy(features).float()).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(again, probability, atol=1e-3)
    np.testing.assert_array_equal(probability, predict_volume(net, hu, SIZE, 4)[:, -1])


def test_hooks_are_removed_from_the_network(store, net):
    volume_features(net, store.read_volume(store.studies["StudyInstanceUID"][1]), SIZE)
    for module in net.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


def test_the_last_of_several_calls_counts(store):
    """As for hops with shared weights: one encoder, called once per hop."""

    class Twice(HopNet):
        def hop_logits(self, images):
            first = self.encoders[0](images.flip(-1))[0]
            return torch.stack([first, self.encoders[0](images)[0]], dim=1)

    one = small_net().encoders[0]
    hu = store.read_volume(store.studies["StudyInstanceUID"][1])
    expected, _ = volume_features(HopNet([one]), hu, SIZE)
    features, _ = volume_features(Twice([one]), hu, SIZE)
    np.testing.assert_array_equal(features, expected)


def test_an_encoder_without_a_classifier_is_named(store):
    net = copy.deepcopy(small_net())
    net.encoders[-1].net.classifier = torch.nn.Conv2d(1280, 2, 1)
    with pytest.raises(UserError, match="tf_efficientnet_lite0 does not end in a linear layer"):
        volume_features(net, np.zeros((3, 8, 8), np.int16), SIZE)


def test_only_missing_features_are_computed(store, tmp_path):
    cache = filled_cache(tmp_path, store)
    study = store.studies["StudyInstanceUID"][0]
    assert len(list(cache.folder.glob("*.npz"))) == 4
    assert cache.fill(cache.volumes) == 0
    (cache.folder / f"{study}.npz").unlink()
    with pytest.raises(UserError, match=f"study {study} has no features"):
        cache.read(study)
    assert cache.fill(cache.volumes) == 1
    features, probability = cache.read(study)
    assert features.dtype == np.float32
    assert probability.shape == (DEPTH,)


def test_a_study_prepared_again_gets_new_features(tmp_path):
    store, _ = exam_store(tmp_path / "store", n=4)
    filled_cache(tmp_path / "features", store)
    studies = store.studies
    studies.loc[2, "sha256"] = "another volume"
    write_table(store.root / "studies.parquet", studies)
    again = FeatureCache(tmp_path / "features", small_net(), store, SIZE)
    assert again.fill(again.volumes) == 1


def test_another_network_has_its_own_features(store, net, tmp_path):
    cache = FeatureCache(tmp_path, net, store, SIZE)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.encoders[0].net.conv_stem.weight[0, 0, 0, 0] += 1e-3
    assert FeatureCache(tmp_path, small_net(), store, SIZE).key == cache.key
    changed = FeatureCache(tmp_path, other, store, SIZE)
    assert changed.key != cache.key
    assert FeatureCache(tmp_path, net, store, 2 * SIZE).key != cache.key
    assert len(list(tmp_path.iterdir())) == 1, "those of other networks are removed"


def test_bad_studies_and_files_are_named(store, tmp_path):
    cache = filled_cache(tmp_path / "features", store)
    with pytest.raises(UserError, match="nobody is not prepared"):
        cache.fill(["nobody"])
    path = next(cache.folder.glob("*.npz"))
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot be read"):
        cache.read(path.stem)
    old, _ = exam_store(tmp_path / "old", n=4)
    write_table(old.root / "studies.parquet", old.studies.drop(columns="sha256"))
    with pytest.raises(UserError, match="no column sha256"):
        FeatureCache(tmp_path / "features", small_net(), old, SIZE)
    broken = copy.deepcopy(small_net())
    with torch.no_grad():
        broken.encoders[-1].net.bn2.weight.fill_(1e9)
    broken.encoders[-1].net.bn2.act = torch.nn.Identity()
    with pytest.raises(UserError, match="features that are not finite"):
        volume_features(broken, store.read_volume(path.stem), SIZE)
