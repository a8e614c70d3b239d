"""`tendril data ls | info | rm` for runs and reports, and for all kinds together."""

import fcntl
import io
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tendril.data.__main__ import main
from tendril.data.cli import printable, run_command
from tendril.data.errors import ConfigError, StoreLockedError
from tendril.data.home import KINDS, REPORT, RUN
from tendril.data.listing.describe import describe, overview, run_label
from tendril.data.listing.entries import Entry, exact_entry, find_entry, is_one, list_entries
from tendril.data.listing.remove import remove_entry, runs_on
from tendril.data.listing.tables import CUT, fitted, listing

from ..helpers import sparse_store

FINISHED, BEGUN = "demo-0123456789ab", "begun-0123456789ab"
SWEEP, PAGE, OLD_PAGE = "sweep-a-0123456789ab", "curves-0123456789ab", "symmetry-ba9876543210"
CONFIG = {"objective": "topk", "latents": 256, "k": 8, "site": "mixed3b", "steps": 2000}
CONFIG |= {"dictionary": {"k": 8}, "label": "TopK 256, k 8, mixed3b"}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a store, three runs and two reports, the sweep being the newest."""
    store = sparse_store.harvest(tmp_path).name
    write(tmp_path / "runs" / FINISHED / "config.json", {**CONFIG, "store": store})
    write(tmp_path / "runs" / FINISHED / "result.json", {"fvu": 0.1234, "l0": 8.0, "steps": 2000})
    write(tmp_path / "runs" / BEGUN / "config.json", {**CONFIG, "store": store, "label": ""})
    header = json.dumps({"__metadata__": {"tendril": json.dumps({"step": 250})}}).encode()
    state = struct.pack("<Q", len(header)) + header
    (tmp_path / "runs" / BEGUN / "state.safetensors").write_bytes(state)
    write(tmp_path / "runs" / SWEEP / "sweep.json", {"base": {}, "objectives": []})
    write(tmp_path / "runs" / SWEEP / "table.json", {"site": "mixed3b", "runs": [{}, {}]})
    about = {"study": "curves", "title": "Curve detectors", "headline": "7 curve latents"}
    about |= {"command": f"tendril study curves {'--run demo ' * 20}"}
    write(tmp_path / "reports" / PAGE / "about.json", {**about, "identity": {}})
    result = {"curve_latents": 7, "units": [{"unit": 1}, {"unit": 2}]}
    write(tmp_path / "reports" / PAGE / "result.json", result)
    (tmp_path / "reports" / PAGE / "index.html").write_text("<html>")
    write(tmp_path / "reports" / OLD_PAGE / "result.json", {"families": 3})
    (tmp_path / "reports" / "index.html").write_text("<html>")
    age(tmp_path / "runs" / FINISHED, 60)
    age(tmp_path / "runs" / SWEEP, -60)
    return tmp_path


def age(folder: Path, seconds: float) -> None:
    """Make the files of a folder older."""
    for file in folder.iterdir():
        os.utime(file, (time.time() - seconds,) * 2)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "100")

    def run(*flags: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command."""
        monkeypatch.setattr(sys, "argv", ["data", *flags, "--home", str(home)])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def as_json(out: str) -> dict[str, Any]:
    (line,) = out.splitlines()
    value: dict[str, Any] = json.loads(line)
    return value


def test_ls_lists_all_kinds_newest_first(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    age(home / "runs" / BEGUN, 7200)
    status, out, _ = run("ls", "--json")
    listed = as_json(out)
    assert status == 0
    assert [len(listed[kind]) for kind in ("stores", "runs", "reports")] == [1, 3, 2]
    assert [entry["name"] for entry in listed["runs"]] == [SWEEP, FINISHED, BEGUN]
    runs = {entry["name"]: entry for entry in listed["runs"]}
    assert runs[FINISHED]["label"] == "TopK 256, k 8, mixed3b"
    assert (runs[FINISHED]["state"], runs[FINISHED]["fvu"]) == ("finished", 0.1234)
    assert (runs[BEGUN]["state"], runs[BEGUN]["steps_done"]) == ("unfinished", 250)
    assert runs[BEGUN]["label"] == "TopK 256, k 8, mixed3b"
    assert runs[SWEEP]["label"] == "sweep of 2 runs, mixed3b"
    reports = {entry["name"]: entry for entry in listed["reports"]}
    assert reports[PAGE]["label"] == "curves: Curve detectors"
    assert reports[OLD_PAGE]["label"] == "symmetry"
    assert reports[PAGE]["bytes"] == sum(
        p.stat().st_size for p in (home / "reports" / PAGE).iterdir()
    )
    assert listed["stores"][0]["label"] == "arithmetic, sine + wave, 180 rows"


def test_the_table_names_everything_and_fits(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    age(home / "runs" / BEGUN, 7200)
    long = "reports/features-of-a-language-model-blocks.2.hook_resid_post-0123456789ab/result.json"
    write(home / long, {"latents": 3})
    status, out, _ = run("ls")
    assert status == 0
    names = [entry.name for entry in list_entries(str(home))]
    assert len(names) == 7
    assert all(name in out for name in names)
    assert all(len(line) <= 100 for line in out.splitlines())
    (begun,) = (line for line in out.splitlines() if BEGUN in line)
    assert "step 250 of 2,000" in begun
    assert "2 h" in begun
    assert "0.1234" in out
    assert "7 entries" in out
    assert run("ls", "reports", "runs")[1].count("entries") == 1
    assert "arithmetic" not in run("ls", "reports", "runs")[1]
    assert run("ls", "models")[0] == 2


def test_a_kind_without_any_says_how_to_make_one(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    for path in (home / "reports").glob("*/*.json"):
        path.unlink()
    assert "`tendril study --help`" in run("ls", "reports")[1]


def test_columns_are_aligned_and_cuts_are_marked() -> None:
    rows = [["runs", "what it is", "size"], ["a", "x" * 90, "1 B"], ["n" * 70, "y", "1,000 B"]]
    lines = fitted(rows, 60).splitlines()
    assert [len(line) for line in lines] == [60, 60, 70, 60]
    assert lines[1].startswith("a")
    assert CUT in lines[1]
    assert lines[2] == "n" * 70  # never cut
    assert [line.rindex("B") for line in (lines[1], lines[3])] == [59, 59]
    assert fitted([["runs", "what"], ["name", "label"]]) == "runs  what\nname  label"


def test_control_characters_are_escaped(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    hostile = "evil\x1b[31m\nname-0123456789ab"
    write(home / "runs" / hostile / "config.json", {**CONFIG, "label": "red \x1b[31m"})
    (home / "runs" / os.fsdecode(b"latin\xe9-0123456789ab")).mkdir()
    write(home / "runs" / os.fsdecode(b"latin\xe9-0123456789ab") / "config.json", CONFIG)
    for flags in (["ls"], ["info", hostile], ["info", "evil"], ["rm", hostile], ["rm", "evil"]):
        _, out, err = run(*flags)
        assert "\x1b" not in out + err
        assert r"evil\x1b[31m" in out + err
    assert r"evil\x1b[31m\nname-0123456789ab" in run("ls")[1]
    assert printable("a\tb\nc é") == "a\\tb\nc é"


def test_what_is_no_run_or_report_is_not_listed(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    write(home / "runs" / "other" / "config.json", {"model": "of another program"})
    write(home / "reports" / "other" / "result.json", {"score": 1})
    (home / "runs" / "notes").mkdir()
    assert "other" not in run("ls", "runs", "reports")[1].replace(str(home), "")
    assert not is_one(RUN, home / "runs" / "other")
    assert not is_one(REPORT, home / "reports" / "other")
    status, _, err = run("rm", "other", "--yes")
    assert (status, "there is no store, run or report 'other'" in err) == (2, True)
    status, _, err = run("rm", str(home / "runs" / "other"), "--yes")
    assert (status, (home / "runs" / "other" / "config.json").is_file()) == (2, True)


def test_damaged_files_are_listed_with_the_reason(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    (home / "runs" / FINISHED / "result.json").write_text('{"fvu": ')
    (home / "runs" / BEGUN / "config.json").write_text("[]")
    (home / "runs" / BEGUN / "state.safetensors").write_bytes(b"cut")
    (home / "reports" / PAGE / "about.json").write_text("null")
    status, out, _ = run("ls")
    assert status == 0
    assert out.count("cannot be read") == 3
    status, _, err = run("info", FINISHED)
    assert (status, "is not JSON" in err, "Traceback" in err) == (2, True, False)
    assert run("rm", FINISHED, "--yes")[0] == 0


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        (FINISHED, ["TopK 256, k 8, mixed3b", "finished", "0.1234", "result.json"]),
        ("demo", ["run ", "TopK 256"]),
        (BEGUN, ["step 250 of 2,000"]),
        (
            PAGE,
            [
                "Curve detectors",
                "7 curve latents",
                "index.html",
                "curve_latents  7",
                "--run demo " * 20,
                "2 entries",
            ],
        ),
        ("sparse", ["spec", "sine"]),
        ("latest", [SWEEP]),
    ],
)
def test_info_describes_any_kind(run, name: str, shows: list[str]) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("info", name)
    assert status == 0
    assert all(text in out for text in shows), out
    about = as_json(run("info", name, "--json")[1])
    assert about["kind"] in ("store", "run", "report")


def test_info_of_a_run_as_json_has_its_files(home: Path) -> None:
    about = describe(find_entry(FINISHED, str(home)))
    assert about["config"]["latents"] == 256
    assert about["result"]["l0"] == 8.0
    assert about["files"].keys() == {"config.json", "result.json"}


def test_a_name_of_several_kinds_is_ambiguous(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    write(home / "reports" / "demo-ba9876543210" / "result.json", {"study": "splice"})
    status, _, err = run("info", "demo")
    assert status == 2
    for text in (f"{FINISHED} (run)", "demo-ba9876543210 (report)", "--kind"):
        assert text in err
    assert run("info", "demo", "--kind", "run")[0] == 0
    assert run("info", "demo-ba", "--json")[0] == 0


def test_labels_of_runs_without_one() -> None:
    assert run_label({"label": "a label", "objective": "topk"}) == "a label"
    assert run_label({"objective": "pca", "latents": 9, "site": "here"}) == "pca 9, here"
    assert run_label({}) == "dictionary "


# --- removing


class Terminal(io.StringIO):
    """A terminal on which someone types."""

    def isatty(self) -> bool:
        return True


def test_rm_takes_a_full_name_or_a_path_only(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    for beginning in ("demo", "demo-01", "begun-0123456789a", "latest", "d"):
        status, _, err = run("rm", beginning, "--yes")
        assert (status, "rm needs the full name" in err) == (2, True)
    assert f"{FINISHED} (run)" in run("rm", "demo", "--yes")[2]
    assert (home / "runs" / FINISHED).is_dir()
    status, out, _ = run("rm", FINISHED, "--yes", "--json")
    removed = as_json(out)
    assert (status, removed["kind"], removed["removed"]) == (
        0,
        "run",
        str(home / "runs" / FINISHED),
    )
    assert run("rm", str(home / "reports" / PAGE), "--yes")[0] == 0
    assert run("rm", BEGUN, "--yes")[0] == 0
    assert run("rm", SWEEP, "--yes")[0] == 0
    assert [p.name for p in (home / "runs").iterdir()] == []
    assert sorted(p.name for p in (home / "reports").iterdir()) == ["index.html", OLD_PAGE]


@pytest.mark.parametrize("folder", ["store", "runs", "reports"])
def test_rm_that_was_killed_is_finished_by_the_next_one(run, home: Path, folder: str) -> None:  # type: ignore[no-untyped-def]
    name = "gone-0123456789ab"
    left = home / folder / f".{name}.removing"
    (left / "inside").mkdir(parents=True)
    (left / "inside" / "file").write_text("x")
    assert run("rm", name, "--yes")[0] == 2, "there is nothing of that name any more"
    assert not left.exists()


def test_rm_asks_first(run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = home / "runs" / FINISHED
    status, _, err = run("rm", FINISHED)  # stdin is not a terminal
    assert (status, "Add --yes" in err, path.is_dir()) == (2, True, True)
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    status, _, err = run("rm", FINISHED)
    assert (status, f"Remove the run {path}? [y/N]" in err, path.is_dir()) == (2, True, True)
    (store,) = (home / "store").iterdir()
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    status, _, err = run("rm", store.name)
    assert (status, "2 runs were trained on it" in err, store.exists()) == (0, True, False)


def test_runs_on_a_store_are_counted(home: Path) -> None:
    (home / "runs" / BEGUN / "config.json").write_text("{")
    store = find_entry("latest", str(home), KINDS[:1])
    assert runs_on(store, str(home)) == 1


@pytest.mark.parametrize("name", [FINISHED, BEGUN, PAGE])
def test_rm_refuses_a_folder_that_is_being_written(home: Path, name: str) -> None:
    entry = exact_entry(name, str(home))
    handle = os.open(entry.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(StoreLockedError, match="another process is writing"):
        remove_entry(entry)
    os.close(handle)
    assert entry.path.is_dir()
    remove_entry(entry)
    assert not entry.path.exists()
    assert not list(entry.path.parent.glob(".*"))


@pytest.mark.parametrize("kind", ["store", "runs"])
def test_rm_never_leaves_the_folder(
    home: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """Links in a folder are removed; what they point to stays."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("mine")
    (outside / "deeper").mkdir()
    (outside / "deeper" / "zarr.json").write_text("mine")
    folder = next(p for p in (home / kind).iterdir() if p.name != SWEEP)
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "file").symlink_to(outside / "precious")
    (folder / "nowhere").symlink_to(outside / "gone")
    remove_entry(exact_entry(folder.name, str(home)))
    assert not folder.exists()
    assert (outside / "precious").read_text() == "mine"
    assert (outside / "deeper" / "zarr.json").read_text() == "mine"


def test_rm_refuses_a_link(run, home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:  # type: ignore[no-untyped-def]
    outside = tmp_path_factory.mktemp("outside") / FINISHED
    (home / "runs" / FINISHED).rename(outside)
    (home / "runs" / FINISHED).symlink_to(outside)
    status, _, err = run("rm", FINISHED, "--yes")
    assert (status, "is a symbolic link" in err, outside.is_dir()) == (2, True, True)
    assert "finished" in run("ls", "runs")[1]


def test_a_removal_that_was_stopped_is_finished_by_the_next(home: Path) -> None:
    left = home / "runs" / f".{FINISHED}.removing"
    write(left / "config.json", CONFIG)
    assert FINISHED in [e.name for e in list_entries(str(home))]
    assert left.name not in [e.name for e in list_entries(str(home))]
    remove_entry(exact_entry(FINISHED, str(home)))
    assert not left.exists()


def test_a_full_name_that_two_kinds_have_needs_a_path(home: Path) -> None:
    write(home / "reports" / FINISHED / "result.json", {"study": "splice"})
    with pytest.raises(ConfigError, match="Give its path"):
        exact_entry(FINISHED, str(home))
    assert exact_entry(FINISHED, str(home), (REPORT,)).kind is REPORT
    assert exact_entry(str(home / "runs" / FINISHED), str(home)).kind is RUN


def test_an_entry_that_vanishes_is_unreadable(home: Path) -> None:
    shown = overview(Entry(RUN, "gone", str(home / "runs" / "gone")))
    assert shown["state"] == "unreadable"
    assert "gone cannot be read" in listing([shown], (RUN,), str(home))
