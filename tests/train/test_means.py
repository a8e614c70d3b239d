"""Large means and outlier channels: FVU of every objective is that of the same data without them,
or a warning names the cause."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.store.dtypes import decode_rows, encode_rows, quantise
from tendril.data.store.moments import moments_of
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.gated import Gated
from tendril.models.dictionaries.sae import SAE, Dictionary
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.dictionaries.tied import Tied
from tendril.train.config import OBJECTIVES, TrainConfig, fields_of
from tendril.train.loop import TrainResult, read_result, train
from tendril.train.outliers import Channels, channels_of
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep
from tendril.train.vectors import source_of, store_of

from ..helpers import orbits, sparse

WIDTH, GROUP = 32, Dihedral(4)
SHORT: dict[str, Any] = {"steps": 200, "batch_size": 256, "lr": 3e-3, "checkpoint_every": 500}
FIELDS: dict[str, dict[str, Any]] = {
    "relu_l1": {"l1": 0.3},
    "tied": {"l1": 0.3},
    "gated": {"l1": 1.0},
    "jumprelu": {"l0": 0.01},
    "equivariant": {"families": 8, "k": 2},
}
FAR = [("two", 30.0), ("two", 300.0), ("two", 3000.0), ("all", 30.0), ("dead", 300.0)]


def base() -> np.ndarray:
    """Rows with mean zero: the same data without a large mean."""
    rows = sparse.vectors(6400, sparse.directions(64, WIDTH))
    centred: np.ndarray = rows - rows.mean(axis=0)
    return centred


def base_orbits() -> np.ndarray:
    rows = orbits.orbits(GROUP, orbits.families(GROUP, 8, 6), 3200, 2)
    centred: np.ndarray = rows - rows.mean(axis=(0, 1))
    return centred


def moved(rows: np.ndarray, where: str, times: float) -> np.ndarray:
    """Rows whose mean is `times` the deviation: in two channels, in all, or in a channel that is
    constant."""
    rows = rows.astype(np.float64)
    deviation = rows.std(axis=tuple(range(rows.ndim - 1)))
    mean = np.zeros_like(deviation)
    if where == "dead":
        rows[..., 3] = 0
        mean[3] = times * deviation.mean()
    else:
        chosen = slice(1, 5, 3) if where == "two" else slice(None)
        mean[chosen] = times * deviation[chosen]
        mean[::2] *= -1
    shifted: np.ndarray = (rows + mean).astype(np.float32)
    return shifted


def store_for(home: Path, objective: str, rows: np.ndarray, dtype: str = "float32") -> None:
    if objective == "equivariant":
        orbits.make_store(home, GROUP, {"site": rows})
    else:
        sparse.make_store(home, {"site": rows}, dtype=dtype)


def config(home: Path, objective: str = "topk", **fields: Any) -> TrainConfig:
    own = FIELDS.get(objective, {})
    return sparse.tiny(home, objective=objective, **({"k": 8} | SHORT | own | fields))


OF_ANY_SIGN = [name for name in OBJECTIVES if name != "nmf"]
"""Objectives that take rows of any sign, as those without their mean are; NMF does not."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """FVU of each objective on the data without large means."""
    found: dict[tuple[str, str], float] = {}
    for kind in ("plain", "dead"):
        for objective in OF_ANY_SIGN:
            home = tmp_path_factory.mktemp(f"{objective}-{kind}")
            rows = base_orbits() if objective == "equivariant" else base()
            if kind == "dead":
                rows[..., 3] = 0
            store_for(home, objective, rows)
            found[objective, kind] = train(config(home, objective)).fvu
    return found


@pytest.mark.parametrize(("where", "times"), FAR)
@pytest.mark.parametrize("objective", OF_ANY_SIGN)
@pytest.mark.many_steps
def test_fvu_is_that_of_the_same_data_without_large_means(
    tmp_path: Path,
    expected: dict[tuple[str, str], float],
    objective: str,
    where: str,
    times: float,
) -> None:
    rows = base_orbits() if objective == "equivariant" else base()
    store_for(tmp_path, objective, moved(rows, where, times))
    result = train(config(tmp_path, objective))
    kind = "dead" if where == "dead" else "plain"
    assert result.fvu == pytest.approx(expected[objective, kind], rel=0.1)


JOINT = {
    "batch_topk": {"objective": "batch_topk"},
    "relu_l1": {"objective": "relu_l1"},
    "one": {"objective": "batch_topk", "sources": "one"},
    "random": {"objective": "relu_l1", "sources": "random"},
}


@pytest.mark.parametrize("fields", JOINT.values(), ids=JOINT)
@pytest.mark.many_steps
def test_a_crosscoder_centres_each_site_by_itself(tmp_path: Path, fields: dict[str, Any]) -> None:
    rows, found = base(), []
    left, right = rows[:, :20], rows[:, 20:]
    for name, sites in (
        ("near", {"a": left, "b": right}),
        ("far", {"a": left, "b": moved(right, "two", 300)}),
    ):
        sparse.make_store(tmp_path / name, sites)
        found.append(train(config(tmp_path / name, sites=("a", "b"), **fields)))
    assert found[1].fvu == pytest.approx(found[0].fvu, rel=0.1)
    trained = read_config(found[1].run)
    assert trained["centred"]
    assert trained["scales"] == pytest.approx(read_config(found[0].run)["scales"], rel=1e-4)


def dictionaries(generator: torch.Generator) -> list[Dictionary]:
    """One of each kind, with random parameters."""
    made: list[Dictionary] = [
        *(SAE(6, 20, Sparsity("topk", 3), pre_bias=bias) for bias in (True, False)),
        *(SAE(6, 20, Sparsity("jumprelu"), pre_bias=bias) for bias in (True, False)),
        *(SAE(6, 20, Sparsity("relu"), pre_bias=bias) for bias in (True, False)),
        Gated(6, 20),
        Tied(6, 20),
        EquivariantCrosscoder(Dihedral(3), 6, 5, 2),
    ]
    for dictionary in made:
        for name, parameter in dictionary.named_parameters():
            if not (name == "b_dec" and isinstance(dictionary, Tied)):
                torch.nn.init.normal_(parameter, generator=generator)
    return [dictionary.double() for dictionary in made]


@pytest.mark.parametrize("number", range(9))
def test_scale_and_centre_are_folded_into_every_parameter_with_units(number: int) -> None:
    """Thresholds too: SAELens (764, 771) left them in the units of scaled vectors."""
    generator = torch.Generator().manual_seed(0)
    dictionary = dictionaries(generator)[number]
    x = torch.randn(50, *dictionary.row_shape, generator=generator).double() * 3 + 40
    centre_D = x.flatten(0, -2).mean(dim=0)
    raw = folded(dictionary, 0.25, centre_D)
    z = dictionary.encode(0.25 * (x - centre_D))
    assert 0.05 < float((z > 0).double().mean()) < 0.95
    torch.testing.assert_close(raw(x), dictionary.decode(z) / 0.25 + centre_D)
    assert torch.equal(raw.encode(x) > 0, z > 0)


@pytest.mark.many_steps
def test_runs_of_a_sweep_are_centred_as_single_runs_are(tmp_path: Path) -> None:
    for name in ("alone", "swept"):
        sparse.make_store(tmp_path / name, {"site": moved(base(), "two", 300)})
    fields: dict[str, Any] = {"steps": 20, "latents": 32}
    alone = train(config(tmp_path / "alone", "topk", **fields))
    swept = config(tmp_path / "swept", "topk", **fields)
    done = sweep(SweepConfig(base=swept, sparsities=("k=8,4",)))
    assert done.runs == 2
    found = read_result(tmp_path / "swept" / "runs" / alone.run.name)
    assert found.fvu == pytest.approx(alone.fvu, rel=1e-5)


@pytest.mark.parametrize("rule", ["drop", "cap"])
@pytest.mark.many_steps
def test_the_centre_is_that_of_the_rows_that_are_used(tmp_path: Path, rule: str) -> None:
    """Norm outliers that all point one way move the mean of all rows by a deviation."""
    rows = moved(base(), "two", 30)
    clean = train_on(tmp_path / "clean", rows)
    rows[::590] = rows[::590] * 40 + 900
    result = train_on(tmp_path / "spoilt", rows, norm_outliers=rule)
    assert rule == "cap" or result.fvu == pytest.approx(clean.fvu, rel=0.1)
    used = source_of(c := config(tmp_path / "spoilt", "topk", norm_outliers=rule), store_of(c))
    batches = used.store.batches("site", 6400, part="all", epochs=1, norm_outliers=rule)
    x_ND = torch.cat(list(batches)).double()
    centre_D, scale = used.centre(), used.scale()
    assert centre_D is not None
    torch.testing.assert_close(centre_D.double(), x_ND.mean(dim=0), rtol=1e-5, atol=1e-3)
    size = float(((x_ND - centre_D) * scale).square().sum(dim=1).mean())
    assert size == pytest.approx(WIDTH, rel=1e-4)


def train_on(home: Path, rows: np.ndarray, objective: str = "topk", **fields: Any) -> TrainResult:
    sparse.make_store(home, {"site": rows}, dtype=fields.pop("dtype", "float32"))
    return train(config(home, objective, **fields))


def test_runs_without_large_means_keep_names_and_scales(tmp_path: Path) -> None:
    sparse.make_store(tmp_path, {"site": base() + 0.5})
    chosen = config(tmp_path, "relu_l1")
    source = source_of(chosen, store_of(chosen))
    assert source.centre() is None
    assert "centred" not in read_config(train(chosen).run)
    size = float(np.square(base() + 0.5).sum(axis=1).mean())
    assert source.scale() == pytest.approx((WIDTH / size) ** 0.5)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        ([0.0] * 8, [1.0] * 8, False),
        ([1.0] * 8, [1.0] * 8, False),
        ([3.0] + [0.5] * 63, [1.0] * 64, False),
        ([2.0] * 8, [1.0] * 8, True),
        ([6.0] + [0.0] * 63, [1.0] * 64, True),
        ([6.0] + [0.0] * 999, [1.0] * 1000, False),  # too little to change the scale
        ([0.5] + [0.0] * 63, [0.0] + [1.0] * 63, False),  # a constant channel
        ([5.0] + [0.0] * 63, [0.0] + [1.0] * 63, True),
    ],
)
def test_when_a_mean_is_large(mean: list[float], deviation: list[float], expected: bool) -> None:
    assert Channels(np.array(mean), np.square(deviation)).off_centre is expected


def test_channels_of_orbits_are_those_of_all_elements() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (50, 4, 5))
    found = channels_of(moments_of(rows.reshape(50, 20)), 5)
    np.testing.assert_allclose(found.mean_C, rows.mean(axis=(0, 1)))
    np.testing.assert_allclose(found.variance_C, rows.var(axis=(0, 1)))


LOSSY = [
    ("float32", 3000.0, False),
    ("float16", 300.0, False),
    ("float16", 3000.0, True),
    ("bfloat16", 30.0, False),
    ("bfloat16", 300.0, True),
    ("int8", 3.0, False),
    ("int8", 30.0, False),
    ("int8", 300.0, True),
    ("int8", 3000.0, True),
]


@pytest.mark.parametrize(("dtype", "times", "warned"), LOSSY)
@pytest.mark.many_steps
def test_a_dtype_too_coarse_for_the_mean_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expected: dict[tuple[str, str], float],
    dtype: str,
    times: float,
    warned: bool,
) -> None:
    result = train_on(tmp_path, moved(base(), "two", times), dtype=dtype)
    said = capsys.readouterr().err
    assert (f"stored as {dtype}, which loses" in said) == warned
    assert warned or result.fvu == pytest.approx(expected["topk", "plain"], rel=0.1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("where", ["two", "all"])
def test_what_a_dtype_loses_is_bounded_from_below(dtype: str, where: str) -> None:
    for times in (3.0, 100.0, 1000.0):
        rows = moved(base(), where, times)
        stored, scale = (
            quantise(rows, "") if dtype == "int8" else (encode_rows(rows, dtype, ""), None)
        )
        off = np.square(decode_rows(stored, dtype, scale).astype(np.float64) - rows)
        lost = float(off.mean(axis=0).sum() / rows.astype(np.float64).var(axis=0).sum())
        bound = channels_of(moments_of(rows), WIDTH)
        whole = float(off.mean(axis=0).max() / rows.astype(np.float64).var(axis=0).min())
        assert bound.lost(dtype) <= 1.3 * max(lost, whole)
        assert lost < 0.01 or bound.lost(dtype) > 0.01


@pytest.mark.parametrize("times", [4.5, 10.0, 30.0, 300.0, 3000.0])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("width", [32, 256])
def test_outlier_channels_change_little_or_are_named(times: float, count: int, width: int) -> None:
    variance_C = np.ones(width)
    variance_C[5 : 5 + count] = times**2
    outlying, fraction = Channels(np.zeros(width), variance_C).outlying()
    assert sorted(outlying) == list(range(5, 5 + count))
    assert fraction == pytest.approx(count * times**2 / variance_C.sum())


@pytest.mark.parametrize("objective", OF_ANY_SIGN)
@pytest.mark.parametrize("times", [10.0, 300.0])
@pytest.mark.many_steps
def test_outlier_channels_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str, times: float
) -> None:
    rows = base_orbits() if objective == "equivariant" else base()
    rows[..., 2] *= times
    rows[..., 4] *= times if rows.shape[-1] > 8 else 1
    store_for(tmp_path, objective, rows)
    train(config(tmp_path, objective, steps=2))
    count = 2 if rows.shape[-1] > 8 else 1
    said = capsys.readouterr().err
    assert f"warning: {count} of {rows.shape[-1]} channels of site" in said
    assert "so the FVU says little about the others" in said


@pytest.mark.parametrize(
    "objective", [name for name in OBJECTIVES if "bias" not in fields_of(name)]
)
def test_a_bias_is_refused_where_it_would_be_ignored(tmp_path: Path, objective: str) -> None:
    with pytest.raises(ConfigError, match=r"--bias must be one of the flags of the objective"):
        config(tmp_path, objective, bias="mean").check(WIDTH)
