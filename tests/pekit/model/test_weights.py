"""Weights from files and hubs: what is not weights is named."""

import pytest
import torch
from safetensors.torch import save_file

from pekit.common.errors import UserError
from pekit.model.encoder import Encoder
from pekit.model.weights import fetch_weights, read_weights

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 52411236\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (POINTER.encode(), "pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"PK\x03\x04 and then nothing", "cannot be read as weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_is_named(tmp_path, content, message, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    with pytest.raises(UserError, match=message):
        Encoder("test_resnet", init=str(path))


def test_an_error_without_text_is_told_by_its_name(tmp_path, monkeypatch):
    """A file that ends early raises EOFError(), which says nothing."""

    def load(*_, **__):
        raise EOFError

    (tmp_path / "weights.pth").write_bytes(b"PK")
    monkeypatch.setattr("pekit.model.weights.load_state_dict", load)
    with pytest.raises(UserError, match="cut short: EOFError"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_a_file_that_is_cut_short(tmp_path, save):
    path = tmp_path / f"weights{'.pth' if save is torch.save else '.safetensors'}"
    save({"a": torch.arange(1000.0)}, path)
    assert torch.equal(read_weights(path)["a"], torch.arange(1000.0))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(UserError, match="cut short"):
        read_weights(path)


def test_a_hub_that_does_not_answer():
    def fetch():
        raise ConnectionError("no route to host")

    with pytest.raises(UserError, match=r"tiny cannot be fetched.*no route.*INIT to a file"):
        fetch_weights("tiny", fetch)


def test_former_names_of_timm():
    """tf_efficientnet_b0_ns until timm 0.9, the naming that most published kits use."""
    encoder = Encoder("tf_efficientnet_b0_ns")
    assert encoder.name == "tf_efficientnet_b0.ns_jft_in1k"
