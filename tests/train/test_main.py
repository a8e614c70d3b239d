"""The command, as a person meets it."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tendril.data.cli import run_command
from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.train.__main__ import main
from tendril.train.config import TrainConfig, fields_of, run_label
from tendril.train.loop import next_command, train
from tendril.train.recipes import RECIPES
from tendril.train.sweep.recipes import SWEEPS

from ..helpers import sparse
from ..helpers.helped import check_help

ROOT = Path(__file__).parents[2]


def command(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TENDRIL_HOME": str(home or ""), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tendril", "train", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    sparse.make_store(home, {"here": sparse.vectors(1600, sparse.directions())})
    return home


def test_a_recipe_with_fields_of_its_own_ends_in_json(home: Path) -> None:
    fields = ["--latents", "64", "--k", "3", "--steps", "20", "--batch-size", "64", "--lr", "0.002"]
    done = command("topk", *fields, "--device", "cpu", home=home)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    wanted = {"run", "fvu", "l0", "dead", "steps", "seconds", "reused", "store", "site"}
    assert wanted <= made.keys()
    assert made["steps"] == 20
    assert made["site"] == "here"
    name = Path(made["run"]).name
    sentence, following, line = done.stdout.splitlines()
    assert sentence.startswith("Trained TopK 64, k 3, on here of sparse-")
    assert f"FVU {made['fvu']:.3g}, 3.0 latents active, " in sentence
    assert sentence.endswith(f"% dead; {made['run']}")
    assert following == f"next: tendril data info {name}"
    assert len(line) < 500
    assert not made["reused"]
    assert load_dictionary(made["run"]).latents == 64
    assert "vectors/s" in done.stderr
    again = command("topk", *fields, home=home)
    assert json.loads(again.stdout.splitlines()[-1]) == made | {"reused": True}
    assert again.stdout.startswith("Already there: TopK 64, k 3, on here of sparse-")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["topk", "--store", "nowhere"], "there is no store 'nowhere'"),
        (["topk", "--latents", "4", "--k", "5"], "--k must be from 1 to 4, the number of latents"),
        (["relu_l1", "--site", "mixed9"], "must be one of here, the sites of"),
        (["relu_l1", "--site", "hre"], "(near it: here)."),
        (["topkk"], "got 'topkk' (near it: topk"),
        (["crosscoder", "--sites", "here", "here"], "--sites must name each site once"),
        (["topk", "--device", "tpu"], "--device must be auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_mistakes_are_a_sentence_and_status_2(
    home: Path,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    monkeypatch.setenv("TENDRIL_HOME", str(home))
    with pytest.raises(SystemExit) as left:
        run_command(main)
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""


def test_a_mistake_ends_the_process_with_status_2(home: Path) -> None:
    told = command("topk", "--store", "nowhere", home=home)
    assert told.returncode == 2
    assert "there is no store 'nowhere'" in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize("arguments", [["no_such_recipe"], ["topk", "--latens", "3"], []])
def test_words_that_are_not_known_are_status_2(arguments: list[str]) -> None:
    assert command(*arguments).returncode == 2


def helped(recipe: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([recipe, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", [*RECIPES, *SWEEPS, "export", "import"])
def test_help_of_a_recipe_shows_the_flags_that_its_objective_uses(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = helped(recipe, capsys)
    named = {name.replace("-", "_") for name in re.findall(r"^\W --([a-z0-9-]+)", shown, re.M)}
    if recipe in RECIPES:
        assert named == fields_of(RECIPES[recipe]().objective)
    if recipe in SWEEPS:
        grid = {"objectives", "sizes", "sparsities", "seeds", "spread"}
        assert named == {f.name for f in fields(TrainConfig)} - {"objective"} | grid


def test_help_lists_recipes_sweeps_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in (*RECIPES, *SWEEPS, "export", "import"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "topk --l1 3",
            "--l1 is a flag of relu_l1, tied and gated; the recipe topk has objective topk, which "
            "does not use it. Leave it out or choose another recipe.",
        ),
        (
            "pca --no-compile",
            "--compile is a flag of topk, batch_topk, matryoshka, relu_l1, tied, ",
        ),
        (
            "topk --sites=a",
            "--sites is a flag of batch_topk, matryoshka, relu_l1 and equivariant; ",
        ),
        ("orbits_demo --latents 3", "the recipe orbits_demo has objective equivariant, which does"),
        (
            "topk --groups .5",
            "--groups is a flag of matryoshka; the recipe topk has objective topk",
        ),
        (
            "topk --objective tied",
            "the objective of the recipe topk is topk; it cannot be changed.",
        ),
        ("topk --latens 3", "--latens is not a flag of topk (near it: --latents"),
        ("sweep --size 3", "--size is not a flag of sweep (near it: --sizes"),
        ("export a --hom b", "--hom is not a flag of export (near it: --home, --format)"),
        ("compare a b", "`tendril train compare` is now `tendril study compare"),
        ("orbit_crosscoder", "is now `tendril train equivariant_crosscoder`."),
        ("", "the first word must be one of topk, "),
    ],
)
def test_what_is_refused_is_one_sentence(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        main(words.split())


def test_a_dry_run_says_what_the_run_would_be(home: Path) -> None:
    flags = [
        "--latents",
        "32",
        "--k",
        "2",
        "--steps",
        "6",
        "--batch-size",
        "64",
        "--home",
        str(home),
    ]
    outcome = main(["topk", *flags, "--dry-run"])
    assert outcome is not None
    assert outcome.result["state"] == "new"
    run = Path(str(outcome.result["run"]))
    assert not run.exists()
    assert outcome.sentence == (
        f"TopK 32, k 2, here: {run} would be made; 2,112 parameters, 384 vectors, 6 steps"
    )
    made = main(outcome.next_command.split()[2:])
    assert made is not None
    assert Path(str(made.result["run"])) == run
    assert made.result["parameters"] == outcome.result["parameters"]
    again = main(["topk", *flags, "--dry-run"])
    assert again is not None
    assert again.result["state"] == "finished"
    assert " exists already; " in again.sentence


def test_overwriting_trains_again_from_the_start(home: Path) -> None:
    config = sparse.tiny(home, store="sparse", steps=8, seed=77)
    first = train(config)
    (first.run / "left over.txt").write_text("")
    before = {p.name: p.read_bytes() for p in first.run.glob("[dl]*.safetensors")}
    assert train(config).reused
    again = train(replace(config, overwrite=True))
    assert again.run == first.run and not again.reused
    assert not (first.run / "left over.txt").exists()
    assert before == {p.name: p.read_bytes() for p in first.run.glob("[dl]*.safetensors")}
    told = json.loads((first.run / "config.json").read_text())
    assert not {"overwrite", "dry_run", "home"} & told.keys()
    assert train(config).reused


VISION = {"group": None, "sites": {"a": 8}, "subject": {"name": "x"}, "grid": [7, 7]}


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({}, "tendril study features --run RUN"),
        ({"grid": []}, "tendril data info RUN"),
        ({"grid": [1, 1]}, "tendril data info RUN"),
        ({"sites": {"a": 8, "b": 8}}, "tendril study parts --run RUN"),
        ({"subject": {"tokenizer": "x"}, "grid": [9, 1]}, "tendril study features --run RUN"),
        ({"group": {"rotations": 4, "reflections": True}}, "tendril study symmetry --run RUN"),
    ],
)
def test_the_next_command_studies_the_run(change: dict[str, Any], command: str) -> None:
    assert next_command(VISION | change, "RUN") == command
    assert next_command(VISION | change, "RUN", "a b") == f"{command} --home 'a b'"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"objective": "topk", "latents": 768, "k": 16}, "TopK 768, k 16, mixed3b"),
        ({"objective": "relu_l1", "latents": 768, "l1": 0.5}, "ReLU L1 768, l1 0.5, mixed3b"),
        (
            {"objective": "jumprelu", "latents": 768, "l0": 1.0, "target_l0": 16.0},
            "JumpReLU 768, l0 1, target-l0 16, mixed3b",
        ),
        ({"objective": "pca", "latents": 192, "k": 4}, "PCA, k 4, mixed3b"),
        ({"objective": "standard", "latents": 24, "imported": {}}, "standard 24, mixed3b"),
        (
            {
                "objective": "equivariant",
                "latents": 32,
                "k": 16,
                "group": {"rotations": 24, "reflections": True},
                "control": "shuffled",
            },
            "equivariant TopK, 32 families, k 16, mixed3b (orbits of D24, shuffled)",
        ),
        (
            {
                "objective": "topk",
                "latents": 8,
                "k": 1,
                "group": {"rotations": 3, "reflections": False},
                "orbits": "each",
            },
            "TopK 8, k 1, mixed3b (elements of C3)",
        ),
    ],
)
def test_the_label_of_a_run(config: dict[str, Any], label: str) -> None:
    assert run_label({**vars(TrainConfig()), "site": "mixed3b", **config}) == label


def test_help_takes_less_than_half_a_second_and_no_torch() -> None:
    for words in ((), ("topk",), ("sweep",), ("export",)):
        shows = "--home" if words else "topk"
        check_help("train", *words, shows=shows, never=("torch", "zarr", "numba"))


def test_recipes_are_complete_configs() -> None:
    for name, make in RECIPES.items():
        assert isinstance(make(), TrainConfig)
        named = {
            "demo": "topk",
            "language_demo": "topk",
            "causal_demo": "topk",
            "crosscoder": "batch_topk",
            "crosscoder_l1": "relu_l1",
        }
        named |= {f"group_{name}": objective for name, objective in named.items()}
        named |= dict.fromkeys(
            ("equivariant_crosscoder", "orbits_demo", "control_demo"), "equivariant"
        )
        assert make().objective == named.get(name, name)
        make().check(96)
        assert make.__doc__
