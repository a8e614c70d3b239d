"""The command `tendril data` for stores: text, JSON, statistics as numpy's, user errors."""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from tendril.data.__main__ import main
from tendril.data.cli import run_command

from ..helpers import arithmetic, sparse_store
from ..helpers.helped import check_help

ROOT = Path(__file__).parents[2]
STORES = [("float16", 0), ("bfloat16", 0), ("float32", 0), ("int8", 0), ("float16", 3), ("int8", 2)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for dtype, elements in STORES:
        sparse_store.harvest(home, dtype, elements)
    sparse_store.incomplete(home)
    return home


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path):  # type: ignore[no-untyped-def]
    def run(*flags: str, home: Path | str = home) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command."""
        monkeypatch.setattr(sys, "argv", ["data", *flags, "--home", str(home)])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def as_json(out: str) -> dict[str, Any]:
    """The only line of stdout, as strict JSON."""
    (line,) = out.splitlines()

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    whole: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return whole


def test_help_is_there_under_a_second_and_without_torch() -> None:
    check_help("data", "verify", shows="--json", never=("torch", "zarr", "numba"))
    check_help("data", "ls", shows="--home", never=("torch", "zarr", "numba"))


def test_no_command_needs_torch(home: Path) -> None:
    code = "import sys; from tendril.data.store.verify import verify_store\n"
    code += "from tendril.data.store import inspect, tables\n"
    code += "from tendril.data.listing import describe, entries, remove, tables as listing\n"
    code += "for p in sys.argv[1:]: tables.verified(vars(verify_store(p))); inspect.summarise(p); "
    code += "listing.description(describe.describe(entries.find_entry(p)))\n"
    code += "assert not {'torch', 'numba'} & sys.modules.keys()"
    stores = [str(p) for p in (home / "store").glob("sparse*")][:2]
    subprocess.run([sys.executable, "-c", code, *stores], cwd=ROOT, check=True)


def test_ls_lists_all_stores_and_how_far_they_have_come(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("ls", "--json")
    stores = {s["name"]: s for s in as_json(out)["stores"]}
    assert status == 0
    assert stores.keys() == {p.name for p in (home / "store").iterdir()}
    begun = next(s for s in stores.values() if s["state"] == "incomplete")
    assert (begun["shards_done"], begun["shards"], begun["rows_done"]) == (2, 13, 48)
    whole = next(s for s in stores.values() if s["name"].startswith("sparse-float16-3"))
    assert (whole["state"], whole["rows"], whole["elements"]) == ("complete", 180, 3)
    assert whole["sites"] == {"sine": 12, "wave": 5}
    status, out, _ = run("ls")
    assert "2 of 13 shards (15%)" in out
    assert all(name in out for name in stores)


def test_ls_of_nothing_and_of_what_cannot_be_read(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("ls", home=tmp_path)
    assert (status, "`tendril harvest --help`" in out) == (0, True)
    (tmp_path / "store/old").mkdir(parents=True)
    (tmp_path / "store/old/zarr.json").write_text('{"attributes": {"tendril": {"format": 1}}}')
    status, out, _ = run("ls", home=tmp_path)
    assert status == 0
    assert "old cannot be read" in out
    assert "format 3; got format 1" in out


@pytest.mark.parametrize(("dtype", "elements"), STORES)
def test_info_says_what_is_on_the_disk(run, home: Path, dtype: str, elements: int) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("info", f"sparse-{dtype}-{elements}", "--json")
    about = as_json(out)
    path = Path(about["store"])
    assert status == 0
    assert about["bytes"] == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    item = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}[dtype]
    for site, width in arithmetic.WIDTHS.items():
        shown = about["sites"][site]
        scale = 4 if dtype == "int8" else 0
        assert shown["raw_bytes_per_row"] == width * max(elements, 1) * item + scale
        stored = sum(
            p.stat().st_size
            for kind in ("activations", "scales")
            for p in (path / kind / site).rglob("c/**/*")
            if p.is_file()
        )
        assert shown["bytes"] == stored
        assert shown["bytes_per_row"] == pytest.approx(stored / 180)
    assert about["spec"]["dtype"] == dtype
    assert (about["rows"], about["valid_rows"], about["rows_per_chunk"]) == (180, 174, 12)
    assert about["unreadable"] == [{"input": 3, "name": "number 3", "reason": "three is broken"}]


def test_info_as_text_and_of_an_incomplete_store(run) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("info", "sparse-int8-0")
    assert status == 0
    assert "3  number 3: three is broken" in out
    assert "subject.name    arithmetic" in out
    status, out, _ = run("info", "begun")
    assert status == 0
    assert "2 of 13 shards" in out
    assert "rows so far  48" in out


@pytest.mark.parametrize(("dtype", "elements"), STORES)
def test_statistics_are_numpys_on_the_stored_rows(  # type: ignore[no-untyped-def]
    run, home: Path, dtype: str, elements: int
) -> None:
    status, out, _ = run("stats", f"sparse-{dtype}-{elements}", "--json")
    about = as_json(out)
    group = zarr.open_group(about["store"], mode="r")
    valid = np.asarray(group["valid"][:])
    assert (status, about["valid_rows"]) == (0, valid.sum())
    for site, shown in about["sites"].items():
        rows = sparse_store.decoded(Path(about["store"]), site)[valid]
        flat = rows.reshape(len(rows), -1)
        mean, variance, zeros = rows.mean(0), rows.var(0), (rows == 0).mean(0)
        norms = np.linalg.norm(flat, axis=1)
        kept = group[f"statistics/{site}"]
        np.testing.assert_allclose(kept["mean"][:], mean, rtol=1e-12)
        np.testing.assert_allclose(kept["variance"][:], variance, rtol=1e-10, atol=1e-14)
        assert np.array_equal(kept["zeros"][:], zeros)
        for name, values in (("mean", mean), ("variance", variance), ("zeros", zeros)):
            expected = [values.min(), np.median(values), values.max()]
            got = [shown[name][key] for key in ("min", "median", "max")]
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)
        assert shown["mean"]["norm"] == pytest.approx(np.linalg.norm(mean), rel=1e-12)
        assert shown["variance"]["total"] == pytest.approx(variance.sum(), rel=1e-10)
        assert shown["zeros"]["fraction"] == pytest.approx((rows == 0).mean(), rel=1e-12)
        levels = [float(level) for level in shown["norm_quantiles"]]
        quantiles = list(shown["norm_quantiles"].values())
        np.testing.assert_allclose(quantiles, np.quantile(norms, levels), rtol=1e-6)
        assert shown["channels"] == flat.shape[1]
        dead = np.argwhere((rows == 0).all(0)).tolist()
        assert shown["dead"] == (dead if elements else [d[0] for d in dead])
        assert len(dead) == max(elements, 1)
        same = np.argwhere((rows == rows[0]).all(0) & ~(rows == 0).all(0)).tolist()
        assert shown["constant"] == (same if elements else [c[0] for c in same])


def test_stats_as_text_and_of_one_site(run) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("stats", "sparse-float16-0", "--site", "wave")
    assert status == 0
    assert "wave, 5 channels" in out
    assert "sine" not in out
    assert "dead channels (always zero): 1: 2" in out
    status, _, err = run("stats", "sparse-float16-0", "--site", "waves")
    assert (status, "--site must be one of sine, wave" in err) == (2, True)


MISTAKES = {
    "no store": (["info", "sparsefloat32"], "near names are sparse-float32-0"),
    "an ambiguous name": (["verify", "sparse-"], "must name one store; "),
    "a path that is none": (["stats", "/nowhere/at/all"], "there is no store '/nowhere/at/all'"),
    "an incomplete one": (["verify", "begun"], "2 of 13 shards are written"),
    "statistics of an incomplete one": (["stats", "begun"], "is not complete"),
    "rm by a beginning": (["rm", "begun"], "rm needs the full name"),
    "info of nothing": (["info", "zzz"], "there is no store, run or report 'zzz'"),
    "a kind without any": (["info", "begun", "--kind", "run"], "there is no run 'begun'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("json_too", [False, True])
def test_a_mistake_is_a_sentence_and_status_2(  # type: ignore[no-untyped-def]
    run, mistake: str, json_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    flags, sentence = MISTAKES[mistake]
    status, out, err = run(*flags, *(["--json"] if json_too else []))
    assert (status, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


class Terminal(io.StringIO):
    """A terminal on which someone types."""

    def isatty(self) -> bool:
        return True


def test_rm_asks_and_removes_complete_and_incomplete_stores(  # type: ignore[no-untyped-def]
    run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "store", tmp_path / "store")
    (whole,) = (tmp_path / "store").glob("sparse-float32-0*")
    (begun,) = (tmp_path / "store").glob("begun*")
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    status, _, err = run("rm", whole.name, home=tmp_path)
    assert (status, whole.exists(), "[y/N]" in err) == (2, True, True)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run("rm", whole.name, home=tmp_path)[0] == 0
    status, out, _ = run("rm", str(begun), "--yes", "--json", home=tmp_path)
    assert (status, as_json(out)["removed"]) == (0, str(begun))
    assert len(list((tmp_path / "store").iterdir())) == len(STORES) - 1


def test_rm_leaves_alone_what_is_written_or_is_no_store(run, home: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(home / "store", tmp_path / "store")
    (begun,) = (tmp_path / "store").glob("begun*")
    for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):  # a single process, and one of several
        handle = os.open(begun, os.O_RDONLY)
        fcntl.flock(handle, kind)
        status, _, err = run("rm", begun.name, "--yes", home=tmp_path)
        assert (status, "another process is writing" in err) == (2, True)
        assert (begun / "zarr.json").is_file()
        os.close(handle)
    other = tmp_path / "store/mine"
    other.mkdir()
    (other / "zarr.json").write_text('{"zarr_format": 3, "attributes": {}}')
    status, _, err = run("rm", "mine", "--yes", home=tmp_path)
    assert (status, "not a store of Tendril" in err, other.exists()) == (2, True, True)


def test_a_home_at_a_url(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    memory = fsspec.filesystem("memory")
    (path,) = (home / "store").glob("sparse-float32-0*")
    memory.put(str(path), f"/tools/store/{path.name}", recursive=True)
    url = f"memory://tools/store/{path.name}"
    for flags in (["info", url], ["info", path.name]):
        about = as_json(run(*flags, "--json", home="memory://tools")[1])
        assert about["bytes"] == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    (listed,) = as_json(run("ls", "--json", home="memory://tools")[1])["stores"]
    assert (listed["name"], listed["state"]) == (path.name, "complete")
    assert run("rm", url, "--yes")[0] == 0
    assert not memory.exists(f"/tools/store/{path.name}/zarr.json")


def test_a_closed_pipe_is_not_an_error(home: Path) -> None:
    """`tendril data ls | head -1`"""
    command = [sys.executable, "-m", "tendril", "data", "ls", "--home", str(home)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
