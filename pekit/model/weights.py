"""Weights from a file or a hub: read without executing code, with what is wrong named."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from timm.models import load_state_dict
from torch import Tensor

from pekit.common.errors import UserError, first_line

Result = TypeVar("Result")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file of PyTorch (.pth, .pt) or safetensors, by timm.

    Raises:
        UserError: what is in the file instead of weights.
    """
    path = Path(path)
    if text := _what_else(path):
        raise UserError(f"{path} {text}")
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # pickle, zip, safetensors and torch have no common error class
        raise UserError(
            f"{path} ({path.stat().st_size / 1e6:.1f} MB) cannot be read as weights, it may be cut "
            f"short: {first_line(error)}"
        ) from None


def fetch_weights(name: str, fetch: Callable[[], Result]) -> Result:
    """Call `fetch`, which gets the weights of `name` from a hub.

    Raises:
        UserError: there are none, or the hub does not answer.
    """
    try:
        return fetch()
    except UserError:
        raise
    except Exception as error:  # the hub's client, sockets and SSL: no common class
        raise UserError(
            f"the pretrained weights of {name} cannot be fetched ({first_line(error)}): without "
            "network, set INIT to a file of its weights (.safetensors, .pth) or to the folder of a "
            "trained model"
        ) from None


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        return "is empty: fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the weights: run `git lfs pull` in its folder"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights: fetch it by the page's download link"
    return ""
