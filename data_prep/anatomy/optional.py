"""Import optional packages on use, and load their weights without running code in them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np

from data_prep.errors import SetupError


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        SetupError: the package, or one that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise SetupError(
            f"the method {extra} needs a package that is not installed ({error}): "
            f"pip install 'pekit[{extra}]'"
        ) from None


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables inside the block; afterwards all are as before."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def weights_only() -> Iterator[None]:
    """Inside the block torch.load runs no code from a weights file.

    nnU-Net asks for the opposite; an environment variable overrules it. Its checkpoints hold numpy
    numbers beside the weights, which are allowed.
    """
    import torch

    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "bool")}
    # Names of numpy 1 and 2: either may have written the file.
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    numbers = [*names, np.dtype, *kinds]
    with (
        environment(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"),
        torch.serialization.safe_globals(numbers),
    ):
        yield
