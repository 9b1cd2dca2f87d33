"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

import batch  # noqa: F401  first: it makes the start of nbformat fast

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real chest CTs; tests that need it are skipped where it does not exist."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data here: real chest CT images are not available")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def own_environment():
    """What a command that ran in this process set for its kernels counts in no other test."""
    before = {k: v for k, v in os.environ.items() if k not in ("PEKIT_BATCH", "PEKIT_TYPED_IN")}
    os.environ.pop("PEKIT_BATCH", None)
    os.environ.pop("PEKIT_TYPED_IN", None)
    yield
    os.environ.clear()
    os.environ.update(before)
