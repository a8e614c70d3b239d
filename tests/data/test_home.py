import os
from pathlib import Path

import pytest

from tendril.data.errors import ConfigError, RunNotFoundError, StoreNotFoundError
from tendril.data.home import (
    KINDS,
    RUN,
    STORE,
    Kind,
    age_in_words,
    find,
    find_store,
    home_folder,
    runs_folder,
    store_location,
)

OLD, NEW, OTHER = "demo-0123456789ab", "demo-ba9876543210", "photos-0123456789ab"
LONGER = "photos-large-0123456789ab"


@pytest.fixture(params=KINDS, ids=lambda kind: kind.word)
def kind(request: pytest.FixtureRequest) -> Kind:
    assert isinstance(request.param, Kind)
    return request.param


@pytest.fixture
def home(tmp_path: Path, kind: Kind) -> Path:
    folder = tmp_path / kind.folder
    for age, name in enumerate((NEW, OTHER, OLD, LONGER)):
        (folder / name).mkdir(parents=True)
        (folder / name / kind.marker).write_text("{}")
        os.utime(folder / name / kind.marker, (1e9 - age, 1e9 - age))
    (folder / "unfinished").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", NEW),
        (OLD, OLD),
        ("demo-01", OLD),
        ("photos", OTHER),  # its whole name but for the digest; the other's is longer
        ("photos-l", LONGER),
    ],
)
def test_a_name_means_one(home: Path, kind: Kind, wanted: str, found: str) -> None:
    assert find(kind, wanted, str(home)) == home / kind.folder / found


@pytest.mark.parametrize("wanted", ["demo", "d", "ph"])
def test_an_ambiguous_name_is_an_error_that_lists_the_candidates(
    home: Path, kind: Kind, wanted: str
) -> None:
    there = [n for n in (NEW, OTHER, OLD, LONGER) if n.startswith(wanted)]
    with pytest.raises(kind.error, match="must name one") as raised:
        find(kind, wanted, str(home))
    said = str(raised.value)
    assert all(name in said for name in there)
    assert said.index(there[0]) < said.index(there[1])  # the newest first


@pytest.mark.parametrize("wanted", ["", "nothing", "unfinished"])
def test_a_name_that_is_not_there_is_an_error(home: Path, kind: Kind, wanted: str) -> None:
    with pytest.raises(kind.error, match=f"there is no {kind.word}"):
        find(kind, wanted, str(home))


def test_near_names_are_offered(home: Path, kind: Kind) -> None:
    with pytest.raises(kind.error, match=f"near names are .*{OTHER}"):
        find(kind, "fotos-0123456789ab", str(home))


def test_a_path_is_a_name_too(home: Path, kind: Kind) -> None:
    path = home / kind.folder / OLD
    assert find(kind, str(path), "elsewhere") == path


def test_there_is_no_latest_of_none(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="it holds none"):
        find(RUN, "latest", str(tmp_path))


def test_a_url_is_a_store_as_it_stands(tmp_path: Path) -> None:
    assert find_store("s3://bucket/store/a") == "s3://bucket/store/a"
    assert find_store("a", "s3://bucket") == "s3://bucket/store/a"
    with pytest.raises(StoreNotFoundError):
        find(STORE, "a", str(tmp_path))


def test_ages_are_told_in_their_largest_unit() -> None:
    told = [age_in_words(s) for s in (0.0, 1.0, 59.9, 60.0, 7199.0, 86_400.0 * 3)]
    assert told == ["0 seconds", "1 second", "59 seconds", "1 minute", "1 hour", "3 days"]


def test_the_home_is_the_flag_or_the_variable_or_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    assert home_folder() == Path()
    monkeypatch.setenv("TENDRIL_HOME", "there")
    assert runs_folder() == Path("there/runs")
    assert home_folder("elsewhere") == Path("elsewhere")


@pytest.mark.parametrize("home", ["://", "s3://", "tp://bucket/lab", "nothing://x", "https://x/y"])
def test_a_home_that_no_store_can_be_written_to_is_refused(home: str) -> None:
    with pytest.raises(ConfigError, match=r"--home must be a folder or an? "):
        store_location("name", home)


@pytest.mark.parametrize("kind", [RUN, KINDS[2]], ids=lambda kind: kind.word)
def test_runs_and_reports_lie_in_folders(kind: Kind, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--home must be a folder on this machine"):
        find(kind, "name", "s3://bucket/lab")
    assert not list(tmp_path.iterdir())
