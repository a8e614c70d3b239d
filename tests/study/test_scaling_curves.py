"""The direct test of scaling: curve latents against the number of latents, on known networks."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError, RunDamagedError, StoreNotFoundError
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.synthetic.planted_networks import features_of
from tendril.study.core.trained import series_name
from tendril.study.measures.curve_growth import (
    distinct_rows,
    growth,
    merged,
    owners,
    rows_of_curves,
    tiling,
)
from tendril.study.run import study
from tendril.study.scaling.config import ScalingConfig
from tendril.study.scaling.curve_family import (
    CurveTest,
    Family,
    _fvu,
    find_curve_inputs,
    planted_counts,
)
from tendril.study.scaling.runs import Dictionary
from tendril.study.scaling.series import Series, regime_sentence, series_of

from .test_curves import QUICK, WIDTH, draw_inputs, make_home
from .test_page import check

FIELDS: dict[str, Any] = {**QUICK, "curves": True, "rows": 5000}


def made_run(
    made_on: Store, home: Path, copies: int, seed: int = 0, width: int = WIDTH, **fields: Any
) -> str:
    """A run with `copies` latents for each of the eight curve units, and one for each other unit;
    those of the curve units are near copies of them."""
    eye_DD = torch.eye(width)
    rng = torch.Generator().manual_seed(seed)
    rows_SD = torch.cat([eye_DD[:8].repeat(copies, 1), eye_DD[8:]])
    rows_SD = rows_SD + 0.01 * torch.rand(rows_SD.shape, generator=rng) * rows_SD
    sae = SAE(width, len(rows_SD), Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(rows_SD)
        sae.W_dec[: 8 * copies] /= copies
        sae.W_enc.copy_(rows_SD.T)
    run = home / "runs" / f"made-{len(rows_SD)}-{seed}-{fields.get('site', '')}{width}"
    config = {
        "objective": "topk",
        "k": 4,
        "site": "units",
        "seed": seed,
        "held_out": 0.5,
        "store": made_on.name,
        "store_path": os.path.relpath(made_on.path, run),
        "subject": made_on.spec["subject"],
        **fields,
    }
    save_dictionary(run, sae, config)
    (run / "result.json").write_text(json.dumps({"fvu": 0.1 / copies}))
    return run.name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as of the study of curves: eight curve units of ten."""
    folder = tmp_path_factory.mktemp("home")
    draw_inputs(folder / "images" / "one")
    draw_inputs(folder / "images" / "two", (40.0, 20.0))
    return make_home(folder)


def the_store(home: Path) -> Store:
    return open_store(next((home / "store").glob("*-*")))


def test_curve_latents_are_counted_against_sizes(home: Path) -> None:
    store = the_store(home)
    runs = tuple(made_run(store, home, copies) for copies in (1, 2, 4, 8, 16))
    result = study("scaling", run=runs, home=str(home), **FIELDS)
    found = result.figures["curve_family"]
    assert [one["curves"] for one in found] == [8, 16, 32, 64, 128]
    assert all(one["distinct_directions"] == 8 for one in found)  # copies are no new directions
    assert all(one["distinct_orientations"] == 8 for one in found)
    assert [one["in_curve_units"] for one in found] == [8, 16, 32, 64, 128]
    assert all(one["any_strength"] >= one["curves"] for one in found)
    assert found[-1]["widest_gap"] == pytest.approx(45, abs=3)
    assert 0 < found[-1]["fvu_curves"] < 1e-3 and 0 < found[-1]["fvu_rest"] < 1e-3
    (series,) = result.figures["series"]
    assert series["curve_exponent_alive"] == pytest.approx(1, abs=0.1)
    assert (series["smallest"], series["largest"]) == (10, 130)
    assert "one seed" in series["regime"] and "5 sizes" in series["regime"]
    check(text := result.report.read_text())
    assert "Does the curve family absorb latents?" in text and "keeps its part" in text
    assert (result.report.parent / "curve_family.csv").is_file()
    # without --curves no curve is drawn, and the sentence says what is missing
    plain = study("scaling", run=runs[:2], home=str(home))
    assert plain.figures["curve_family"] == []
    assert "--curves does" in plain.figures["series"][0]["regime"]
    assert "2 sizes from 10 to 18" in plain.figures["series"][0]["regime"]


def test_runs_that_do_not_belong_in_one_test(home: Path, tmp_path: Path) -> None:
    store = the_store(home)
    one = made_run(store, home, 1)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"site": "other"}, ConfigError, "one site; got units"),
        ({"subject": {"name": "another"}, "seed": 5}, ConfigError, "one subject; made-10-0-"),
        ({"subject": {"tokenizer": "x"}, "seed": 6}, ConfigError, "drawn curves to a vision"),
        (
            {"group": {"rotations": 4, "reflections": True}, "seed": 7},
            ConfigError,
            "single vectors of one site; made-10-7",
        ),
        (
            {"store": "gone-1", "store_path": "nowhere", "seed": 8},
            StoreNotFoundError,
            "the store gone-1 of the run made-10-8",
        ),
        ({"width": 12, "seed": 9}, RunDamagedError, "takes vectors of width 12"),
    ]
    for fields, error, message in refused:
        other = made_run(store, home, 1, **{"seed": 4, **fields})
        with pytest.raises(error, match=message):
            study("scaling", run=(one, other), home=str(home), **FIELDS)
    # vectors of a store of orbits taken one by one are single vectors
    group = {"rotations": 4, "reflections": True}
    each = made_run(store, home, 1, seed=10, group=group, orbits="each")
    config = ScalingConfig(run=(one, each), home=str(home), curves=True)
    _, found = find_curve_inputs(config, [home / "runs" / name for name in config.run])
    assert found.name == store.name
    with pytest.raises(ConfigError, match="--curves needs the runs"):
        study("scaling", model=True, curves=True, home=str(tmp_path))
    with pytest.raises(ConfigError, match="--orientation-step must divide"):
        study("scaling", run=(one,), curves=True, orientation_step=7.0, home=str(home))


def test_the_loss_of_some_rows() -> None:
    x = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [2.0, 4.0]])
    error = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    chosen = np.array([True, False, True, False])
    # the mean of all rows is (2, 1)
    assert _fvu(x, error, chosen) == pytest.approx((2 + 4) / (5 + 5))
    assert np.isnan(_fvu(x, error, np.zeros(4, bool)))


def test_orientations_and_directions_merge() -> None:
    assert merged([]) == 0 and merged([3.0]) == 1
    assert merged([359.0, 1.0]) == 1  # across zero
    assert merged([0.0, 4.0, 8.0, 12.0]) == 2
    assert merged(np.arange(0, 360, 15.0).tolist()) == 24
    rows = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 2.0], [-1.0, 0.0]])
    assert distinct_rows(rows) == 3
    found = tiling(np.arange(0, 360, 45.0).tolist(), np.eye(8))
    assert (found.count, found.distinct, found.directions) == (8, 8, 8)
    assert found.widest == found.median == 45 and 90 < found.chance < 180
    assert tiling([], np.zeros((0, 3))).widest == 360


def test_growth_is_the_exponent_of_counts() -> None:
    slope = growth([100, 200, 400, 800], [10, 20, 40, 80])
    assert slope and slope.slope == pytest.approx(1) and slope.error == pytest.approx(0, abs=1e-6)
    flat = growth([100, 200, 400, 800], [24, 24, 24, 24])
    assert flat and flat.slope == pytest.approx(0)
    assert growth([100, 200], [0, 3]) is None and growth([], []) is None


def test_rows_on_which_a_curve_unit_is_strong() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (400, 3)) * np.array([1.0, 5.0, 50.0])
    x[0], x[1], x[2] = (0.9, 0.5, 1.0), (0.2, 0.1, 0.5), (0.9, 5.0, 1.0)
    chosen = rows_of_curves(x, [0])
    assert chosen[0] and not chosen[1] and not chosen[2]
    assert 0.05 < chosen.mean() < 0.4
    assert not rows_of_curves(x, []).any()


def test_latents_of_planted_features_are_counted() -> None:
    planted = features_of("planted")
    directions = planted.directions()
    curves = [i for i, f in enumerate(planted.features) if f.kind == "curve"]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((7, directions.shape[1]))
    rows = np.concatenate([3 * directions[curves], directions[curves[:5]], noise])
    owner = owners(rows, directions)
    assert owner[:24].tolist() == curves and (owner[-7:] == -1).all()
    found = {one.kind: one for one in planted_counts(rows, planted, "mixed3b_5x5")}
    assert (found["curve"].latents, found["curve"].found, found["curve"].features) == (29, 24, 24)
    assert found["line"].latents == 0 and found["none"].latents == 7


def series_with(counts: list[int], random: list[int], alive: list[int]) -> Series:
    """A series of runs of 100, 200, 400 ... latents, one for each count."""
    some = tiling([], np.zeros((0, 2)))
    sizes = [100 * 2**i for i in range(len(counts))]
    families = [
        Family(f"run-{s}", s, 0, a, c, some, 1, 0, c, c, r, r, r, 0.1, 0.1, ())
        for s, a, c, r in zip(sizes, alive, counts, random, strict=True)
    ]
    frequency = np.ones(4)
    runs = [
        Dictionary(f"run-{s}", "topk", "site", "net", s, 0, 0.1, frequency, None, None, None, None,
                   None, "store", "site, topk, k 4")
        for s in sizes
    ]  # fmt: skip
    (made,) = series_of(runs, CurveTest("net", "site", "store", 3, 9, 10, 5, families))
    return made


@pytest.mark.parametrize(
    ("counts", "random", "alive", "words"),
    [
        ([10, 20, 41, 80, 161], [1, 2, 4, 8, 16], [100, 200, 400, 800, 1600], "keeps its part"),
        ([10, 24, 25, 24, 25], [1, 2, 4, 8, 16], [100, 200, 400, 800, 1600], "not grow measurably"),
        ([10, 24, 25, 24, 25], [9, 20, 40, 80, 99], [100, 200, 400, 800, 1600], "does not grow"),
        ([10, 16, 23, 33, 46], [1, 2, 4, 6, 8], [100, 200, 400, 800, 1600], "a falling part"),
        ([10, 20, 41, 80, 161], [10, 21, 39, 82, 160], [100, 200, 400, 800, 1600], "says nothing"),
        ([10, 30, 12, 36, 14], [1] * 5, [100, 200, 400, 800, 1600], "for growth and for none"),
        ([10, 20], [0, 0], [100, 200], "2 sizes from 100 to 200, where 4 over a factor of 8"),
        ([0, 0, 0, 0], [0, 0, 0, 0], [100, 200, 400, 800], "no run has a curve latent"),
    ],
)
def test_the_sentence_of_the_regime_says_how_sure_it_is(
    counts: list[int], random: list[int], alive: list[int], words: str
) -> None:
    series = series_with(counts, random, alive)
    text = regime_sentence(series)
    assert words in text
    assert ("ot known" in text) == (words[-7:] in ("nothing", "or none", "or of 8", " latent"))
    if "ot known" not in text:
        assert "many to many" in text and "one seed" in text
        # the first size is no part of the fit
        assert f"from 200 to {series.sizes[-1]:,} latents" in text


def test_decoder_rows_speak_where_the_criteria_cannot() -> None:
    made = series_with([10, 20, 41, 80, 161], [10, 21, 39, 82, 160], [100, 200, 400, 800, 1600])
    assert "By decoder rows" not in regime_sentence(made)
    families = [replace(one, random_inside=0) for one in made.families]
    text = regime_sentence(replace(made, families=families))
    assert "By decoder rows: the curve family keeps its part" in text and "0 by chance" in text


def test_runs_of_one_size_have_no_exponent() -> None:
    series = series_with([10], [1], [90])
    assert series.curves is None and series.tail is None
    assert "1 size from 100 to 100" in regime_sentence(series)
    two = replace(series.families[0], alive=95, run="b", curves=20)
    runs = [series.runs[0], replace(series.runs[0], run="b", seed=1)]
    test = CurveTest("net", "site", "store", 3, 9, 10, 5, [*series.families, two])
    assert series_of(runs, test)[0].curves is None


def test_controls_have_no_regime() -> None:
    series = replace(series_with([10] * 5, [1] * 5, [100] * 5), control=True)
    assert regime_sentence(series).startswith("A control")


def test_runs_are_one_series_if_they_differ_in_size_and_seed_only() -> None:
    one = {"objective": "topk", "k": 4, "site": "mixed3a", "latents": 9, "seed": 1, "l1": 3.0}
    assert series_name(one) == series_name({**one, "latents": 99, "seed": 2, "l1": 1.0})
    assert series_name(one) == "mixed3a, topk, k 4"
    long = {**one, "steps": 400, "batch_size": 2048}
    assert series_name(long) == "mixed3a, topk, k 4, 0.82 M vectors"
    others = ({"k": 8}, {"objective": "relu_l1"}, {"site": "x"}, {"control": "frozen-decoder"})
    assert len({series_name({**one, **other}) for other in (*others, {})}) == 5
