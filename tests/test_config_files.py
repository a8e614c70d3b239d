"""`--config` and `--save-config`: what a command saves gives the same command again."""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from tendril.__main__ import run_stage
from tendril.bench.config import BENCHES
from tendril.data.cli import config_files
from tendril.data.config_file import from_yaml, to_yaml
from tendril.data.errors import ConfigError
from tendril.harvest.config import HarvestConfig
from tendril.harvest.recipes import RECIPES as HARVESTS
from tendril.study.registry import STUDIES
from tendril.train.__main__ import own_fields
from tendril.train.config import TrainConfig
from tendril.train.loop import run_folder, train
from tendril.train.recipes import RECIPES as TRAININGS
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.recipes import SWEEPS
from tendril.train.vectors import source_of, store_of

from .helpers import sparse

TINY = ["--latents", "64", "--steps", "20", "--batch-size", "64", "--device", "cpu"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    return tmp_path


def other(value: Any, kind: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, *value)
    return f"{value} 1e5: no #" if kind is str else value


def changed(config: Any) -> Any:
    """A config with nearly all fields changed, those of nested configs included."""
    values, types = {}, typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values[field.name] = (
            changed(value) if dataclasses.is_dataclass(value) else other(value, types[field.name])
        )
    return dataclasses.replace(config, **values)


ALL = {
    **{f"harvest {name}": make() for name, make in HARVESTS.items()},
    **{f"train {name}": make() for name, make in TRAININGS.items()},
    **{f"train {name}": make() for name, make in SWEEPS.items()},
    **{f"study {name}": entry.config() for name, entry in STUDIES.items()},
    **{f"bench {name}": make() for name, make in BENCHES.items()},
}


@pytest.mark.parametrize("command", ALL)
def test_every_config_is_read_back_as_it_was_saved(command: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    for config in (ALL[command], changed(ALL[command])):
        path.write_text(to_yaml(config, command=["tendril", command]))
        once = {"dry_run": False, "overwrite": False, "rank": 0}
        held = {name: v for name, v in once.items() if hasattr(config, name)}
        expected = dataclasses.replace(config, **held)
        if isinstance(config, SweepConfig):
            base = dataclasses.replace(config.base, dry_run=False, overwrite=False)
            expected = dataclasses.replace(config, base=base)
        assert from_yaml(type(config)(), path) == expected
        lines = path.read_text().splitlines()
        assert lines[0] == f"# tendril {command} --config FILE.yaml"
        assert all(": " in line for line in lines[1:]), "a field a line"


class Seen(Exception):
    """Carries the config that a command was about to use."""


def carry(config: Any, *_: Any) -> Any:
    raise Seen(config)


def config_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The config that a command of these words uses."""
    import tendril.harvest.run
    import tendril.study.core.study
    import tendril.train.loop
    import tendril.train.sweep.sweep

    monkeypatch.setattr(tendril.harvest.run, "harvest", carry)
    monkeypatch.setattr(tendril.train.loop, "train", carry)
    monkeypatch.setattr(tendril.train.sweep.sweep, "sweep", carry)
    monkeypatch.setattr(tendril.study.core.study, "run_study", lambda study, config: carry(config))
    with pytest.raises(Seen) as seen:
        run_stage(words)
    return seen.value.args[0]


@pytest.mark.parametrize("command", [name for name in ALL if not name.startswith("bench")])
def test_a_saved_command_is_the_command_again(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, path = command.split(), str(tmp_path / "saved.yaml")
    given = config_of([*words, "--device", "cpu", "--save-config", path], monkeypatch)
    assert config_of([*words, "--config", path], monkeypatch) == given
    again = config_of([*words, f"--config={path}", "--device", "mps"], monkeypatch)
    assert again != given, "a flag beside the file takes precedence"


def test_benchmarks_take_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tendril.bench.read

    path = str(tmp_path / "saved.yaml")
    monkeypatch.setattr(tendril.bench.read, "measure", carry)
    with pytest.raises(Seen) as given:
        run_stage(["bench", "read", "--widths", "7", "8", "--save-config", path])
    with pytest.raises(Seen) as again:
        run_stage(["bench", "read", "--config", path])
    assert given.value.args[0] == again.value.args[0]
    assert again.value.args[0].widths == (7, 8)


@pytest.mark.parametrize("recipe", ["topk", "relu_l1", "pca"])
def test_a_saved_run_has_the_same_name(home: Path, recipe: str) -> None:
    path = home / "configs" / "mine.yaml"
    tiny = TINY if recipe != "pca" else ["--k", "4"]
    words = ["train", recipe, *tiny, "--home", str(home)]
    made = run_stage([*words, "--save-config", str(path)])
    assert made is not None
    again = run_stage(["train", recipe, "--config", str(path)])
    assert again is not None
    assert (again.result["run"], again.result["reused"]) == (made.result["run"], True)
    assert train(from_yaml(TrainConfig(), path)).reused, "the same from Python"
    dry = run_stage(["train", recipe, "--config", str(path), "--dry-run", "--seed", "1"])
    assert dry is not None and dry.result["run"] != made.result["run"]
    assert "--seed 1" in dry.next_command and "--config" not in dry.next_command


def test_names_of_runs_of_all_recipes(home: Path) -> None:
    for recipe, make in TRAININGS.items():
        config = dataclasses.replace(make(), store="latest", site="", home=str(home))
        if config.objective == "equivariant" or config.control != "none":
            continue  # these need a store of orbits
        source = source_of(config, store_of(config))
        path = home / f"{recipe}.yaml"
        path.write_text(to_yaml(config, own_fields(config.objective)))
        assert run_folder(from_yaml(make(), path), source) == run_folder(config, source)


def test_a_file_of_a_few_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "few.yaml"
    path.write_text("k: 8  # as in the paper\nlr: 3e-3\nobjective: topk\n")
    config = config_of(["train", "topk", "--config", str(path), "--k", "4"], monkeypatch)
    assert (config.k, config.lr) == (4, 0.003)
    path.write_text("per_input: all\nlimit: null\nsites: [a, b]\nreflections: false\n")
    config = config_of(["harvest", "images", "--config", str(path)], monkeypatch)
    assert (config.per_input, config.limit, config.sites) == ("all", None, ("a", "b"))
    path.write_text("")
    assert from_yaml(HarvestConfig(), path) == HarvestConfig()
    path.write_text("objectives: [topk]\nsparsities: ['k=2,3']\nlatents: 64\n")
    swept = config_of(["train", "sweep", "--config", str(path)], monkeypatch)
    assert (swept.base.latents, len(swept.runs())) == (64, 2)


WRONG = {
    "batchsize: 64": r"'batchsize' in .*bad.yaml must be a field .*\(near it: batch_size",
    "batch-size: 64": "near it: batch_size",
    "families: 3": "'families' in .* must be a field of this command; this recipe does not use it",
    "k: 8.5": "k in .*bad.yaml must be a whole number; got 8.5",
    "k: true": "must be a whole number; got True",
    "k:": "must be a whole number; got nothing",
    "lr: fast": "lr in .* must be a number; got 'fast'",
    "lr: nan": "must be a number; got 'nan'",
    "lr: .nan": "--lr must be a finite number; got nan",
    "name: 12": "must be a text; got 12. Put it in quotes",
    "compile: 1": "must be true or false; got 1",
    "orbits: some": "must be one of joined, each, identity; got 'some'",
    "objective: relu_l1": "must be topk, as the recipe is topk; got relu_l1",
    "[1, 2]": r"must hold lines of the form `field: value`; got \[1, 2\]",
    "just text": "must hold lines of the form",
    "k: 1\nk: 2": "must give each field once; 'k' stands there twice",
    "k: [": r"must be a YAML file; .*bad.yaml is not \(line 1: ",
    "k: !!python/name:os.system": "must be a YAML file.*could not determine a constructor",
    "k: 1\n---\nk: 2": "must be a YAML file",
    "name: 2024-13-45": "must be a YAML file",
    "[" * 5000: "must be a YAML file",
    "name: \x00": "must be a YAML file",
    "#" * 2**21: "at most 1,048,576 bytes",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_a_mistake_in_a_file_is_a_sentence(text: str, home: Path) -> None:
    path = home / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=WRONG[text]) as raised:
        run_stage(["train", "topk", *TINY, "--home", str(home), "--config", str(path)])
    assert "\n" not in str(raised.value)
    assert not (home / "runs").exists()


def test_lists_say_what_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    for text, said in {
        "sites: mixed3b": r"sites in .* must be a list, each of it a text; got 'mixed3b'. Write \[",
        "sites: [1]": "must be a list, each of it a text",
        "per_input: 1.5": "must be a whole number or all; got 1.5",
        "limit: some": "must be a whole number or null; got 'some'",
        "site: mixed3b": r"near it: sites",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            run_stage(["harvest", "images", "--config", str(path)])


def test_the_flags_themselves(tmp_path: Path) -> None:
    rest, files = config_files(["topk", "--config", "a", "--k", "3", "--save_config=b"])
    assert (rest, files.read, files.write) == (["topk", "--k", "3"], "a", "b")
    for words in (["--config"], ["--config", "--k"], ["--config="]):
        with pytest.raises(ConfigError, match="--config must name a YAML file; got nothing"):
            config_files(words)
    with pytest.raises(ConfigError, match="--config must be given once; got a and b"):
        config_files(["--config", "a", "--config", "b"])
    for path, what in ((tmp_path, "no regular file"), (tmp_path / "none.yaml", "no such file")):
        with pytest.raises(ConfigError, match=what):
            run_stage(["study", "features", "--config", str(path)])


@pytest.mark.parametrize("words", ["harvest images", "train topk", "study curves", "bench read"])
def test_help_names_the_flags(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_stage([*words.split(), "--help"])
    assert "--config FILE.yaml" in " ".join(capsys.readouterr().out.split())
