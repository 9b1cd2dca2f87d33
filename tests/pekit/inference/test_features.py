import copy

import numpy as np
import pytest
import torch
from exams import SIZE, exam_store, small_net, written_features
from toy import DEPTH

from pekit.common.errors import UserError
from pekit.common.files import write_table
from pekit.hop import HopNet
from pekit.inference.features import SliceFeatures, clear_features
from pekit.inference.predict import predict_studies, predict_volume, predictor
from pekit.inference.pytorch import TorchPredictor
from pekit.model.prevalence import Prevalence


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return exam_store(tmp_path_factory.mktemp("store"), n=4)[0]


@pytest.fixture(scope="module")
def net():
    return small_net()


def features_of(net, store, study, folder, **options):
    predict_studies(net, store, [study], SIZE, features=folder, **options)
    return SliceFeatures(folder, store).read(study)


def test_classifier_on_the_features_gives_the_probability(store, net, tmp_path):
    """The features are those of the last hop, pooled, one row per slice in the crop box."""
    study = store.studies["StudyInstanceUID"][1]
    features, probability = features_of(net, store, study, tmp_path, batch_size=4)
    assert features.shape == (DEPTH, 1280)
    assert features.dtype == np.float32
    classifier = net.encoders[-1].net.get_classifier()
    with torch.inference_mode():
        again = classifier(torch.from_numpy(features)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(again, probability, atol=1e-3)
    expected = predict_volume(net, store.read_volume(study), SIZE, 4)[:, -1]
    np.testing.assert_array_equal(probability, expected)


def test_features_come_from_the_one_pass_that_predicts(store, net, tmp_path):
    """The table is the same as without features, and the network reads each slice once."""
    read = []
    hook = net.register_forward_hook(lambda net, stacks, logits: read.append(len(stacks[0])))
    studies = store.studies["StudyInstanceUID"][:2].tolist()
    with_features = predict_studies(net, store, studies, SIZE, features=tmp_path)
    hook.remove()
    assert sum(read) == 2 * DEPTH
    assert with_features.equals(predict_studies(net, store, studies, SIZE))


def test_a_corrected_prediction_leaves_the_features_as_the_network_gives_them(store, tmp_path):
    net = copy.deepcopy(small_net())
    net.prevalence = [Prevalence(0.4, 0.1)] * 2
    study = store.studies["StudyInstanceUID"][1]
    natural = predictor(net, SIZE, "torch", prevalence="natural")
    _, probability = features_of(natural, store, study, tmp_path)
    expected = predict_volume(net, store.read_volume(study), SIZE)[:, -1]
    np.testing.assert_array_equal(probability, expected)


def test_a_stride_leaves_the_features_of_the_slices_that_were_read(store, net, tmp_path):
    study = store.studies["StudyInstanceUID"][1]
    every, _ = features_of(net, store, study, tmp_path / "every")
    third, _ = features_of(net, store, study, tmp_path / "third", stride=3)
    np.testing.assert_allclose(third, every[::3], atol=1e-2)
    assert SliceFeatures(tmp_path / "third", store).stride == 3


def test_hooks_are_removed_from_the_network(store, net, tmp_path):
    features_of(net, store, store.studies["StudyInstanceUID"][1], tmp_path)
    for module in net.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


def test_the_last_of_several_calls_counts(store, tmp_path):
    """As for hops with shared weights: one encoder, called once per hop."""

    class Twice(HopNet):
        hops = 2

        def hop_logits(self, images):
            first = self.encoders[0](images.flip(-1))[0]
            return torch.stack([first, self.encoders[0](images)[0]], dim=1)

    one = small_net().encoders[0]
    study = store.studies["StudyInstanceUID"][1]
    expected, _ = features_of(HopNet([one]), store, study, tmp_path / "once")
    features, _ = features_of(Twice([one]), store, study, tmp_path / "twice")
    np.testing.assert_array_equal(features, expected)


def test_networks_without_features_are_named(store, net, tmp_path):
    study = store.studies["StudyInstanceUID"][:1]
    other = copy.deepcopy(net)
    other.encoders[-1].net.classifier = torch.nn.Conv2d(1280, 2, 1)
    with pytest.raises(UserError, match="tf_efficientnet_lite0 does not end in a linear layer"):
        predict_studies(other, store, study, SIZE, features=tmp_path)
    by_openvino = TorchPredictor(net)
    by_openvino.net, by_openvino.backend = None, "openvino float32"
    with pytest.raises(UserError, match="openvino float32 gives no slice features"):
        predict_studies(by_openvino, store, study, SIZE, features=tmp_path)
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken.encoders[-1].net.bn2.weight.fill_(1e9)
    broken.encoders[-1].net.bn2.act = torch.nn.Identity()
    with pytest.raises(UserError, match="features that are not finite"):
        predict_studies(broken, store, study, SIZE, features=tmp_path)


@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16"])
def test_openvino_gives_no_features_and_auto_is_pytorch(net, backend):
    with pytest.raises(UserError, match=f"{backend} gives no slice features: set BACKEND to auto"):
        predictor(net, 576, backend, features=True)
    assert predictor(net, 576, features=True).backend.startswith("torch")


def test_features_of_a_prediction_that_was_cut_off_do_not_count(store, net, tmp_path):
    written_features(tmp_path, store)
    studies = [*store.studies["StudyInstanceUID"][:2], "nobody"]
    with pytest.raises(UserError, match="nobody is not prepared"):
        predict_studies(net, store, studies, SIZE, features=tmp_path)
    with pytest.raises(UserError, match="set FEATURES = True and add train to PARTS of 30_predict"):
        SliceFeatures(tmp_path, store)


def test_features_of_an_earlier_prediction_are_deleted(store, net, tmp_path):
    written_features(tmp_path, store)
    study = store.studies["StudyInstanceUID"][1]
    features_of(net, store, study, tmp_path)
    assert [path.stem for path in tmp_path.glob("*.npz")] == [study]
    clear_features(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_tells_networks_image_sizes_and_strides_apart(store, net, tmp_path):
    study = store.studies["StudyInstanceUID"][:1]
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.encoders[0].net.conv_stem.weight[0, 0, 0, 0] += 1e-3
    keys = []
    for net_, size, stride in [
        (net, 32, 1),
        (net, 32, 1),
        (other, 32, 1),
        (net, 64, 1),
        (net, 32, 2),
    ]:
        predict_studies(net_, store, study, size, stride=stride, features=tmp_path)
        keys.append(SliceFeatures(tmp_path, store).key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_parts_without_features_say_what_to_set(store, net, tmp_path):
    studies = store.studies["StudyInstanceUID"][:4].tolist()
    parts = dict(zip(studies, ["train", "train", "validation", "competition"], strict=True))
    predict_studies(net, store, studies[1:3], SIZE, features=tmp_path)
    features = SliceFeatures(tmp_path, store)
    with pytest.raises(UserError, match=r"1 of 2 studies of part train .* add train to PARTS"):
        features.members(parts, ["validation", "train"])
    with pytest.raises(UserError, match="0 of 0 studies of part test"):
        features.members(parts, ["test"])
    assert features.members(parts, ["validation"]) == {
        studies[1]: "train",
        studies[2]: "validation",
    }


def test_bad_studies_and_files_are_named(tmp_path):
    store, _ = exam_store(tmp_path / "store", n=4)
    features = written_features(tmp_path / "features", store)
    with pytest.raises(UserError, match="nobody is not prepared"):
        features.read("nobody")
    first, second, third = store.studies["StudyInstanceUID"][:3]
    (features.folder / f"{first}.npz").write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot be read"):
        features.read(first)
    (features.folder / f"{second}.npz").unlink()
    with pytest.raises(UserError, match=f"study {second} has no features"):
        features.read(second)
    studies = store.studies
    studies.loc[2, "sha256"] = "another volume"
    write_table(store.root / "studies.parquet", studies)
    with pytest.raises(UserError, match=f"study {third} was prepared again after"):
        SliceFeatures(features.folder, store).read(third)
    write_table(store.root / "studies.parquet", studies.drop(columns="sha256"))
    with pytest.raises(UserError, match="no column sha256"):
        written_features(tmp_path / "features", store)
