"""What tests share: where the files lie that are never committed."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photographs; skips where it is absent."""
    folder = Path(os.environ.get("TENDRIL_SHARED", ROOT / ".." / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs real weights and photographs: no folder {folder} (TENDRIL_SHARED)")
    return folder
