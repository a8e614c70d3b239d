import os
from pathlib import Path

import pytest

from tendril.data.home import home_folder, resolve, runs_folder

OLD, NEW, OTHER = "demo-0123456789ab", "demo-ba9876543210", "photos-0123456789ab"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, name in enumerate((NEW, OTHER, OLD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("{}")
        os.utime(tmp_path / name / "zarr.json", (1e9 - age, 1e9 - age))
    (tmp_path / "no-store").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", NEW),
        (OLD, OLD),
        ("demo", NEW),
        ("demo-01", OLD),
        ("ph", OTHER),
        ("d", None),
        ("", None),
        ("nothing", None),
        ("no-store", None),
    ],
)
def test_what_a_person_may_call_a_store(folder: Path, wanted: str, found: str | None) -> None:
    assert resolve(wanted, folder, "zarr.json") == (folder / found if found else None)


def test_a_path_is_a_name_too(folder: Path) -> None:
    assert resolve(str(folder / OLD), Path("elsewhere"), "zarr.json") == folder / OLD


def test_there_is_no_latest_of_none(tmp_path: Path) -> None:
    assert resolve("latest", tmp_path / "nowhere", "zarr.json") is None


def test_the_home_is_the_flag_or_the_variable_or_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    assert home_folder() == Path()
    monkeypatch.setenv("TENDRIL_HOME", "there")
    assert runs_folder() == Path("there/runs")
    assert home_folder("elsewhere") == Path("elsewhere")
