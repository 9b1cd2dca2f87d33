"""Fixtures that several test files share."""

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
def alone(monkeypatch):
    """What a command that ran in this process set for its kernels counts in no other test."""
    for name in ("PEKIT_BATCH", "PEKIT_TYPED_IN"):
        monkeypatch.delenv(name, raising=False)
