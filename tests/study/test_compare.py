"""Comparing runs, on dictionaries whose relation is known."""

import csv
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError, RunNotFoundError
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.compare.config import CompareConfig
from tendril.study.compare.findings import sparsity
from tendril.study.compare.study import CompareStudy
from tendril.study.core.study import StudyResult, run_study
from tendril.study.core.trained import same_start
from tendril.study.measures.matching import (
    Directions,
    antipodal_pairs,
    dense_latents,
    frequency_slope,
    match,
    nearest_cosine,
    stability,
)
from tendril.study.page.charts import Axis, Series, chart

ROOT = Path(__file__).parents[2]


def compare_runs(config: CompareConfig) -> StudyResult:
    return run_study(CompareStudy(), config)


def random_rows(latents: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(latents, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some(latents: int = 20, width: int = 12, seed: int = 0) -> Directions:
    rng = np.random.default_rng(seed + 100)
    sides = (random_rows(latents, width, 2 * seed + i) for i in (0, 1))
    return Directions(*sides, rng.uniform(0, 0.05, latents))


def save(home: Path, name: str, directions: Directions, **told: object) -> Path:
    """A run of a dictionary with those directions."""
    latents, width = directions.decoder_SD.shape
    sae = SAE(width, latents, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        sae.W_enc.copy_(3 * torch.from_numpy(directions.encoder_SD.T))
        sae.W_dec.copy_(2 * torch.from_numpy(directions.decoder_SD))
    frequency_S = torch.from_numpy(directions.frequency_S).float()
    config = {"site": "here", "objective": "relu_l1", "seed": 0, "store": "one"} | told
    save_dictionary(home / "runs" / name, sae, config, frequency_S)
    return home / "runs" / name


def permuted(directions: Directions, order: np.ndarray) -> Directions:
    return Directions(
        directions.encoder_SD[order], directions.decoder_SD[order], directions.frequency_S[order]
    )


def test_a_dictionary_in_another_order_is_found_again_whole() -> None:
    one = some()
    order = np.random.default_rng(5).permutation(len(one))
    found = match(one, permuted(one, order))
    assert (order[found.second_M] == found.first_M).all()
    assert found.shared_M.all()
    assert stability(one, permuted(one, order)) == pytest.approx(1)


def test_the_pairing_is_the_best_of_all_pairings() -> None:
    """Against every permutation of five."""
    one, other = some(5, 3, seed=1), some(5, 3, seed=2)
    found = match(one, other)
    cosine = one.encoder_SD @ other.encoder_SD.T + one.decoder_SD @ other.decoder_SD.T
    best = max(sum(cosine[i, p[i]] for i in range(5)) for p in itertools.permutations(range(5)))
    assert (found.encoder_M + found.decoder_M).sum() == pytest.approx(best)
    decoder = one.decoder_SD @ other.decoder_SD.T
    best = max(sum(decoder[i, p[i]] for i in range(5)) for p in itertools.permutations(range(5)))
    assert stability(one, other) == pytest.approx(best / 5)


def test_shared_wants_both_sides() -> None:
    one = some()
    decoder_only = Directions(random_rows(20, 12, 77), one.decoder_SD, one.frequency_S)
    assert not match(one, decoder_only).shared_M.any()
    assert stability(one, decoder_only) == pytest.approx(1)


def test_all_of_the_smaller_dictionary_are_paired() -> None:
    one = some(20)
    found = match(one, permuted(one, np.arange(7, 13)))
    assert found.first_M.tolist() == list(range(7, 13))
    assert found.shared_M.all()


def test_dense_latents_and_their_antipodes() -> None:
    one = some(20)
    encoder, decoder = one.encoder_SD.copy(), one.decoder_SD.copy()
    frequency = np.full(20, 0.01)
    frequency[[2, 5, 8, 11, 14]] = (0.2, 0.5, 0.3, 0.11, 0.4)
    encoder[5], decoder[5] = -encoder[2], -decoder[2]  # a pair
    encoder[11], decoder[11] = encoder[8], decoder[8]  # a copy is no pair
    encoder[14], decoder[14] = -encoder[8], decoder[8]  # nor is one opposed on one side
    encoder[3], decoder[3] = -encoder[2], -decoder[2]  # nor one that is not dense
    made = Directions(encoder, decoder, frequency)
    assert dense_latents(made).tolist() == [5, 14, 8, 2, 11]
    ((i, j, score),) = antipodal_pairs(made)
    assert {i, j} == {2, 5}
    assert score == pytest.approx(1)


def test_nearest_neighbour_is_another_latent() -> None:
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    made = Directions(rows, rows, np.zeros(3))
    np.testing.assert_allclose(nearest_cosine(made), [0.6, 0.6, -0.6])


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    frequency = np.random.default_rng(0).permutation((1.0 + np.arange(3000)) ** -0.74)
    slope, ranks = frequency_slope(frequency) or (0.0, (0, 0))
    assert slope == pytest.approx(-0.74)
    assert ranks == (100, 1500)
    few = frequency_slope(np.concatenate([frequency[:50], np.zeros(9)]))
    assert few is not None
    assert few[1] == (5, 25)
    assert frequency_slope(np.zeros(40)) is None


def test_runs_compared_make_figures_and_a_page(tmp_path: Path) -> None:
    one = some(40)
    half = permuted(one, np.arange(39, -1, -1))
    half.encoder_SD[20:], half.decoder_SD[20:] = random_rows(20, 12, 90), random_rows(20, 12, 91)
    save(tmp_path, "a-000000000001", one)
    save(tmp_path, "b-000000000002", permuted(one, np.arange(40)[::-1]), seed=1)
    save(tmp_path, "c-000000000003", half, seed=2, control="frozen-encoder")
    done = compare_runs(CompareConfig(run=("a", "b", "c"), home=str(tmp_path)))
    made = done.figures
    assert [run["seed"] for run in made["runs"]] == [0, 1, 2]
    first, second, _ = made["pairs"]
    assert (first["first"], first["second"]) == ("a-000000000001", "b-000000000002")
    assert (first["shared"], first["stability"]) == (1, 1)
    assert second["shared"] == pytest.approx(0.5, abs=0.06)
    together = made["together"]["found_in_others"]
    assert sum(together) == pytest.approx(1)
    assert together[0] == 0
    page = done.report.read_text()
    linked = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert linked == {"../index.html", "matches.csv"}, "the page needs nothing else"
    assert all(run["run"] in page for run in made["runs"])
    assert page.count('role="img"') == 3
    assert page.count("relu_l1, frozen-encoder") == 1
    assert "nan" not in page
    matched = (done.report.parent / "matches.csv").read_text()
    lines = list(csv.DictReader(matched.splitlines()))
    assert len(lines) == 3 * 40
    assert sum(int(line["shared"]) for line in lines[:40]) == 40
    assert compare_runs(CompareConfig(run=("a", "b", "c"), home=str(tmp_path))).reused


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    save(tmp_path, "one", some())
    save(tmp_path, "wide", some(20, 13))
    home = str(tmp_path)
    with pytest.raises(ConfigError, match="the names of 2 runs or more; got 1"):
        compare_runs(CompareConfig(run=("one",), home=home))
    with pytest.raises(ConfigError, match="two different runs"):
        compare_runs(CompareConfig(run=("one", "one"), home=home))
    with pytest.raises(ConfigError, match="one of width 12, wide of width 13"):
        compare_runs(CompareConfig(run=("one", "wide"), home=home))
    with pytest.raises(RunNotFoundError, match="it holds one, wide"):
        compare_runs(CompareConfig(run=("one", "two"), home=home))


def test_the_command_compares_four_seeds_of_768_in_seconds(tmp_path: Path) -> None:
    for seed in range(4):
        save(tmp_path, f"seed-{seed}", some(768, 96, seed), seed=seed)
    names = [f"seed-{seed}" for seed in range(4)]
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tendril",
            "study",
            "compare",
            "--run",
            *names,
        ],
        cwd=ROOT,
        env={**os.environ, "TENDRIL_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60
    *shown, last = done.stdout.splitlines()
    made = json.loads(last)
    assert Path(made["report"]).is_file()
    result = json.loads((Path(made["report"]).parent / "result.json").read_text())
    assert len(result["pairs"]) == 6
    assert any(line.startswith("seed-0") for line in shown)
    assert made["seconds"] < 30


def test_a_chart_draws_what_its_axes_can_show() -> None:
    series = Series("a <b>", np.array([1.0, 10.0, 100.0, 0.0]), np.array([1.0, 2.0, np.nan, 3.0]))
    drawn = chart([series], Axis("x & y", log=True), Axis("y"))
    (path,) = re.findall(r'class="stroke"[^>]* d="([^"]*)"', drawn)
    assert path.count("L") == 1, "a NaN and a zero on a logarithmic axis are left out"
    assert "a &lt;b&gt;" in drawn
    assert "x &amp; y" in drawn
    assert "<circle" in chart([Series("p", series.x, series.x, points=True)], Axis("x"), Axis("y"))
    assert "<svg" in chart([], Axis("x"), Axis("y"))


def test_runs_of_one_seed_are_warned_of_everywhere(tmp_path: Path) -> None:
    """After a few steps from the same initial weights most latents still match."""
    start, rng = some(60, 30, seed=3), np.random.default_rng(9)
    for number, told in enumerate(({"k": 8}, {"k": 32}, {"k": 8, "seed": 1})):
        made = some(60, 30, seed=4) if number == 2 else start
        near = (
            side + 0.02 * rng.normal(size=side.shape) for side in (made.encoder_SD, made.decoder_SD)
        )
        told = {"objective": "topk", **told}
        folder = save(tmp_path, f"r{number}", Directions(*near, made.frequency_S), **told)
        (folder / "result.json").write_text(json.dumps({"fvu": 0.1 * (number + 1)}))
    alike = compare_runs(CompareConfig(home=str(tmp_path), run=("r0", "r1")))
    assert alike.figures["shared"] > 0.9 and alike.figures["same_seed_pairs"] == 1
    sentence = "r0 and r1 have the same seed, so their initial weights are the same"
    said = alike.outcome()
    assert sentence in said.sentence and sentence in str(said.result["warning"])
    assert sentence in alike.report.read_text()
    row = next(line for line in alike.table.splitlines() if line.startswith("r0"))
    for text in ("0 and 0 (same)", "8 and 32", "60 and 60", "0.100 and 0.200"):
        assert text in row
    apart = compare_runs(CompareConfig(home=str(tmp_path), run=("r0", "r2")))
    assert apart.figures["warning"] is None and apart.figures["same_seed_pairs"] == 0
    assert "the same seed" not in apart.report.read_text() + apart.outcome().sentence
    assert "0 and 1 " in apart.table
    several = compare_runs(CompareConfig(home=str(tmp_path), run=("r0", "r1", "r2")))
    assert several.figures["same_seed_pairs"] == 1


def test_a_sparsity_is_that_of_the_objective() -> None:
    """config.json holds the defaults of all fields, also of those that the objective ignores."""
    every = {"k": 16, "l1": 0.5, "l0": 0.3, "target_l0": 0.0}
    assert sparsity(every | {"objective": "relu_l1"}) == "l1 0.5"
    assert sparsity(every | {"objective": "jumprelu"}) == "l0 0.3"
    assert sparsity(every | {"objective": "jumprelu", "target_l0": 12.0}) == "target_l0 12"
    assert sparsity(every | {"objective": "nmf"}) == "16" and sparsity({"objective": "x"}) == ""
    imported = {"objective": "openai", "imported": {}, "dictionary": {"sparsity": "topk", "k": 32}}
    assert sparsity(imported) == "32"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"seed": 0}, {"seed": 0, "latents": 40}, True),
        ({"seed": 0, "objective": "topk"}, {"seed": 0, "objective": "gated"}, True),
        ({"seed": 0}, {"seed": 1}, False),
        ({"seed": None}, {"seed": None}, False),
        ({"seed": 0, "objective": "pca"}, {"seed": 0, "objective": "pca"}, False),
        ({"seed": 0, "objective": "random"}, {"seed": 0, "objective": "random"}, True),
    ],
)
def test_which_runs_begin_alike(
    first: dict[str, object], second: dict[str, object], same: bool
) -> None:
    assert same_start(first, second) is same
