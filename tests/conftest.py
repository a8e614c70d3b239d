"""What tests share: where the files lie that are never committed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick")

ROOT = Path(__file__).parents[1]


def _let_subprocesses_import_tests() -> None:
    """Put a folder that holds a link to tests/ on PYTHONPATH.

    The checkout itself stays off it: its data/ and models/ must not hide a user's packages.
    """
    folder = ROOT / ".pytest_cache" / "importable"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "tests").symlink_to(ROOT / "tests")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


_let_subprocesses_import_tests()

_STATE = TemporaryDirectory(prefix="tendril-state-")  # tests leave the user's own record alone
os.environ["XDG_STATE_HOME"] = _STATE.name


@contextmanager
def untyped() -> Iterator[None]:
    """Within the body types are not checked as the code runs, which takes half the time of
    hundreds of small training steps."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def few_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Types go unchecked in tests marked `many_steps`; other tests check the same code."""
    with untyped() if request.node.get_closest_marker("many_steps") else nullcontext():
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photographs; skips where it is absent."""
    folder = Path(os.environ.get("TENDRIL_SHARED", ROOT / ".." / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs real weights and photographs: no folder {folder} (TENDRIL_SHARED)")
    return folder
