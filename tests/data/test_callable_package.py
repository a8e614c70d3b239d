"""A package that can be called like a function."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tendril.data.callable_package import make_callable


def test_a_call_runs_the_function_and_imports_it_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeting").mkdir()
    (tmp_path / "greeting/__init__.py").write_text('"""Greets."""')
    (tmp_path / "greeting/run.py").write_text(
        "def greet(name, *, mark='.'):\n    return name + mark\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import greeting  # type: ignore[import-not-found]

    make_callable("greeting", ".run", "greet")
    assert "greeting.run" not in sys.modules
    assert greeting("world", mark="!") == "world!"
    assert isinstance(greeting, ModuleType)
    assert (greeting.__doc__, greeting.run.greet("x")) == ("Greets.", "x.")
    for name in ("greeting", "greeting.run"):
        monkeypatch.delitem(sys.modules, name)


def test_harvest_is_a_package_and_a_function_and_imports_no_torch() -> None:
    code = "import sys, tendril.harvest\nfrom tendril import harvest\n"
    code += "assert callable(harvest) and harvest is tendril.harvest\n"
    code += "assert not {'torch', 'zarr', 'numba'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
