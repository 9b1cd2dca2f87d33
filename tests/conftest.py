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
