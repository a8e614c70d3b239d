"""Group crosscoders, equivariant and not, on stores of orbits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.models.dictionaries.crosscoder import reading_first, sourced, weights
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, blocks_of
from tendril.models.dictionaries.sae import SAE
from tendril.study.compare.findings import read_run
from tendril.train.config import TrainConfig
from tendril.train.dry_run import dry_run
from tendril.train.exchange import export_run
from tendril.train.groups import CONTROLS, FROZEN
from tendril.train.loop import run_folder, train
from tendril.train.orbits import Damage
from tendril.train.vectors import source_of, store_of

from ..helpers import orbits, sparse
from ..helpers.stopping import check_stop_changes_nothing

GROUP, WIDTH, FAMILIES, ON = Dihedral(4), 6, 8, 2
CPU = torch.device("cpu")


def truth() -> np.ndarray:
    return orbits.families(GROUP, FAMILIES, 2 * WIDTH)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of D4, in other units."""
    home = tmp_path_factory.mktemp("home")
    rows = orbits.orbits(GROUP, truth(), 6400, ON)
    sites = {"early": rows[..., :WIDTH].copy(), "later": rows[..., WIDTH:] * 50}
    orbits.make_store(home, GROUP, sites)
    return home


def tiny(home: Path, **fields: Any) -> TrainConfig:
    small: dict[str, Any] = {
        "families": FAMILIES,
        "k": ON,
        "bias": "mean",
        "objective": "equivariant",
    }
    if fields.get("objective") == "relu_l1":
        del small["bias"]  # it has no such flag
    return sparse.tiny(home, **(small | fields))


@pytest.mark.parametrize(
    "group", [Dihedral(4), pytest.param(Dihedral(8), marks=pytest.mark.slow)], ids=lambda g: g.name
)
@pytest.mark.many_steps
def test_planted_families_are_found_up_to_a_pose(tmp_path: Path, group: Dihedral) -> None:
    """Invariant ones, ones fixed by a reflection or the half turn, and chiral ones."""
    truth_FGD = orbits.families(group, 8, 12)
    orbits.make_store(tmp_path, group, {"site": orbits.orbits(group, truth_FGD, 4800, 3)})
    config = tiny(tmp_path, k=3, families=12, lr=1e-2, steps=400, batch_size=256)
    result = train(replace(config, log_every=400, checkpoint_every=400, dead_after=5000))
    found_FGD = blocks_of(load_dictionary(result.run), group).numpy()
    best_F = orbits.likeness(group, truth_FGD, found_FGD)
    assert best_F.mean() > 0.95, best_F
    assert result.fvu < 0.1
    assert result.fvu_train == pytest.approx(result.fvu, abs=0.03)


@pytest.mark.parametrize("sites", [("early",), ("early", "later")])
def test_an_equivariant_crosscoder_takes_raw_orbits(home: Path, sites: tuple[str, ...]) -> None:
    result = train(tiny(home, sites=sites, steps=150, lr=1e-2))
    told = json.loads((result.run / "config.json").read_text())
    assert told["group"] == {"rotations": 4, "reflections": True}
    assert told["dictionary"]["kind"] == "equivariant"
    found = load_dictionary(result.run)
    assert isinstance(found, EquivariantCrosscoder)
    store = store_of(tiny(home))
    rows = [torch.from_numpy(store.read(site, slice(0, 6400))) for site in sites]
    x_NGD = torch.cat(rows, dim=2)
    assert found.encode(x_NGD).shape == (6400, FAMILIES, len(GROUP))
    scale_D = torch.cat([(site.square().mean() ** -0.5).expand(WIDTH) for site in rows])
    missed = ((found(x_NGD) - x_NGD) * scale_D).square().sum()
    fvu = missed / ((x_NGD - x_NGD.mean(dim=0)) * scale_D).square().sum()
    assert float(fvu) < 0.4
    if len(sites) == 1:
        assert float(fvu) == pytest.approx(result.fvu, abs=0.05)
    assert result.parameters == 2 * FAMILIES * 8 * WIDTH * len(sites) + FAMILIES + WIDTH * len(
        sites
    )
    assert ON * 0.8 < result.l0 <= ON
    told = dry_run(tiny(home, sites=sites, steps=150, lr=1e-2)).result
    assert (told["state"], told["parameters"]) == ("finished", result.parameters)


@pytest.mark.many_steps
def test_a_stop_changes_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shuffled order of elements, dead families and their AuxK included."""
    config = tiny(home, families=20, dead_after=300, control="shuffled", eval_every=20)
    check_stop_changes_nothing(config, home, tmp_path, monkeypatch)


@pytest.mark.slow  # five dictionaries
@pytest.mark.many_steps
def test_controls_leave_more_unexplained(home: Path) -> None:
    fvu = {
        control: train(tiny(home, control=control, steps=400, lr=5e-3, site="early")).fvu
        for control in CONTROLS
        if control not in (*FROZEN, "shuffled-units")
    }
    fvu["all poses"] = train(tiny(home, poses="all", steps=400, lr=5e-3, site="early")).fvu
    best = fvu.pop("none")
    assert all(other > best + 0.03 for other in fvu.values()), (best, fvu)


def test_a_control_spoils_what_it_says() -> None:
    x_NGD = torch.arange(5 * 8 * 2.0).view(5, 8, 2)

    def spoilt(control: Any, seed: int = 0) -> torch.Tensor:
        return Damage(control, GROUP, seed)(x_NGD)

    assert spoilt("none") is x_NGD
    assert spoilt("wrong-side") is x_NGD, "it is the dictionary that is wrong"
    half = spoilt("reflected-half-from-another-anchor")
    assert torch.equal(half[:, :4], x_NGD[:, :4])
    assert torch.equal(half[1:, 4:], x_NGD[:-1, 4:])
    assert torch.equal(half[0, 4:], x_NGD[-1, 4:])
    for control in ("relabelled", "shuffled"):
        moved = spoilt(control)
        orders = (moved[..., 0].long() // 2) % 8
        assert torch.equal(orders.sort(dim=1).values, torch.arange(8).expand(5, 8))
        assert (orders == orders[0]).all() == (control == "relabelled")
        assert not torch.equal(spoilt(control, 1), moved)
        assert torch.equal(Damage(control, GROUP, 0)(x_NGD[:3]), moved[:3])


UNTIED: list[dict[str, Any]] = [
    {"objective": "topk"},
    {"objective": "batch_topk"},
    {"objective": "batch_topk", "ranking": "norm_of_sums"},
    {"objective": "relu_l1", "l1": 0.5, "sources": "random"},
    {"objective": "relu_l1", "l1": 0.5, "sources": "one", "decoder_norm": 0.5},
]


@pytest.mark.parametrize("fields", UNTIED)
def test_an_untied_group_crosscoder_has_a_block_an_element(
    home: Path, fields: dict[str, Any]
) -> None:
    config = tiny(home, latents=64, lr=5e-3, steps=150, sites=("early", "later"), **fields)
    if fields["objective"] == "topk":
        config = replace(config, sites=(), site="early")
    result = train(config)
    sae = load_dictionary(result.run)
    assert isinstance(sae, SAE)
    width = WIDTH * max(len(config.sites), 1)
    assert blocks_of(sae, GROUP).shape == (64, 8, width)
    assert result.fvu < 0.8
    assert result.fvu_train is not None
    if config.sources == "one":
        assert (sae.W_enc[width:] == 0).all(), "the identity at all sites, and nothing else"
        assert (sae.W_enc[:width] != 0).any()


def test_figures_of_random_sources_are_those_of_one_element(home: Path) -> None:
    """Thresholds are learned on one element; on the mean over all of them few latents pass."""
    config = tiny(home, objective="batch_topk", latents=64, k=4, site="early", sources="random")
    config = replace(config, steps=150, lr=1e-2, checkpoint_every=150)
    result = train(config)
    source = source_of(config, store_of(config))
    x_ND = torch.cat(list(source.once(config, torch.device("cpu"))))
    sae = load_dictionary(result.run)
    assert isinstance(sae, SAE)
    alone = reading_first(sae.requires_grad_(False), (WIDTH,) * len(GROUP)).requires_grad_(False)
    assert (alone.W_enc[WIDTH:] == 0).all()
    torch.testing.assert_close(alone.W_enc[:WIDTH], len(GROUP) * sae.W_enc[:WIDTH])
    only_first_ND = torch.cat([x_ND[:, :WIDTH], torch.full_like(x_ND[:, WIDTH:], 7.0)], dim=1)
    torch.testing.assert_close(alone.encode(x_ND), alone.encode(only_first_ND))
    spread = (x_ND - x_ND.mean(dim=0)).square().sum()
    assert result.fvu == pytest.approx(float((x_ND - alone(x_ND)).square().sum() / spread))
    assert result.l0 == pytest.approx(float((alone.encode(x_ND) > 0).sum(dim=1).float().mean()))
    assert result.l0 > 1.2 * float((sae.encode(x_ND) > 0).sum(dim=1).float().mean())


@pytest.mark.slow
def test_an_encoder_of_random_elements_works_on_each_alone(home: Path) -> None:
    """Where one that always saw all of them does not."""
    config = tiny(home, objective="batch_topk", latents=64, k=4, site="early")
    config = replace(config, steps=300, lr=1e-2, checkpoint_every=300)
    x_ND = torch.from_numpy(store_of(config).read("early", slice(0, 800))).flatten(1)
    one_ND = sourced(x_ND, (WIDTH,) * len(GROUP), "random")
    spread = (x_ND - x_ND.mean(dim=0)).square().sum()

    def fvu(sources: Any) -> float:
        sae = load_dictionary(train(replace(config, sources=sources)).run)
        return float((x_ND - sae(one_ND)).square().sum() / spread)

    assert fvu("random") < 0.75
    assert fvu("all") > fvu("random") + 0.1


def test_the_two_rankings() -> None:
    W_dec = torch.tensor([[3.0, 0, 4, 0], [1, 1, 1, 1]])
    summed_S = torch.tensor([3 + 4, 2 * 2**0.5])
    torch.testing.assert_close(weights(W_dec, (2, 2), "sum_of_norms"), summed_S)
    assert weights(W_dec, (2, 2), "norm_of_sums").tolist() == [5, 2]


def test_the_identity_of_a_run(home: Path) -> None:
    config = tiny(home, site="early")
    source = source_of(config, store_of(config))
    folder = run_folder(config, source)
    assert run_folder(replace(config, latents=99, l1=7.0), source) == folder
    others = {"families": 9, "poses": "all", "control": "shuffled", "k": 1, "rounds": 2}
    for field, value in others.items():
        assert run_folder(replace(config, **{field: value}), source) != folder


def test_what_cannot_be_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--k must be from 1 to 8, the number of families; got 9"):
        train(tiny(home, k=9))
    with pytest.raises(ConfigError, match="--rounds must divide --k; got 2 and 3"):
        train(tiny(home, k=3, rounds=2))
    with pytest.raises(ConfigError, match=r"--control must be one of .*near it: shuffled"):
        mistyped = tiny(home)
        object.__setattr__(mistyped, "control", "shufled")  # past the tests' check of types
        train(mistyped)
    with pytest.raises(ConfigError, match="wrong-side needs the objective equivariant"):
        train(tiny(home, objective="batch_topk", control="wrong-side"))
    with pytest.raises(ConfigError, match="--sources one needs one of the objectives batch_topk"):
        train(tiny(home, sources="one"))
    with pytest.raises(
        ConfigError, match="--resample-every must be 0 for the objective equivariant"
    ):
        train(tiny(home, resample_every=5))
    with pytest.raises(ConfigError, match="or a control, needs whole orbits"):
        train(tiny(home, orbits="each"))
    with pytest.raises(ConfigError, match="--batch-size that is a multiple of 8"):
        train(tiny(home, objective="topk", orbits="each", batch_size=100))
    with pytest.raises(ConfigError, match="--families must be above 0"):
        train(tiny(home, families=0))
    sparse.make_store(tmp_path, {"early": sparse.vectors(320, sparse.directions())})
    with pytest.raises(
        ConfigError, match="an equivariant group crosscoder needs a store of orbits"
    ):
        train(tiny(tmp_path))
    with pytest.raises(ConfigError, match="--control relabelled needs a store of orbits"):
        train(tiny(tmp_path, objective="topk", control="relabelled"))
    turns = Dihedral(3, reflections=False)
    rows = orbits.orbits(turns, orbits.families(Dihedral(3), 2, 4)[:, :3], 320, 1)
    orbits.make_store(tmp_path / "c3", turns, {"early": rows})
    with pytest.raises(ConfigError, match=r"needs a group with reflections; .* has C3"):
        train(tiny(tmp_path / "c3", k=1, control="reflected-half-from-another-anchor"))


def test_what_is_for_saes_alone_says_so(home: Path, tmp_path: Path) -> None:
    tied = train(tiny(home, steps=5)).run
    with pytest.raises(ConfigError, match="is an equivariant group crosscoder"):
        read_run(tied)
    untied = train(tiny(home, steps=5, objective="relu_l1")).run
    for run in (tied, untied):
        with pytest.raises(ConfigError, match="of the elements of D4"):
            export_run(str(run), tmp_path / "out")


def test_single_elements_of_orbits_are_vectors_of_their_own(home: Path) -> None:
    """Each of them, or the identity alone, for dictionaries that know no group."""
    store = store_of(tiny(home))
    rows_RGD = store.read("early", slice(0, 6400))
    for orbits_as, count in (("each", 16), ("identity", 128)):
        config = tiny(home, site="early", objective="topk", orbits=orbits_as)
        source = source_of(config, store)
        x_ND = next(source.once(config, CPU, part="train"))
        assert x_ND.shape == (128, WIDTH) and source.width == WIDTH and source.joint == ()
        at = [int((rows_RGD[:, 0] == row.numpy()).all(axis=1).argmax()) for row in x_ND[::8]]
        if orbits_as == "each":
            np.testing.assert_array_equal(x_ND.view(count, 8, WIDTH), rows_RGD[at])
        else:
            np.testing.assert_array_equal(x_ND[::8], rows_RGD[at, 0])
        assert float((x_ND * source.scale()).square().sum(dim=1).mean()) == pytest.approx(
            WIDTH, rel=0.25
        )
    result = train(tiny(home, site="early", objective="topk", latents=32, orbits="each"))
    sae = load_dictionary(result.run)
    assert isinstance(sae, SAE) and sae.width == WIDTH and result.fvu < 0.9


def test_vectors_of_orbits_are_elements_side_by_side(home: Path) -> None:
    config = tiny(home, sites=("later", "early"))
    source = source_of(config, store_of(config))
    x_ND = next(source.once(config, CPU, part="train"))
    assert x_ND.shape == (config.batch_size, 8 * 2 * WIDTH) == (128, source.width)
    assert source.joint == (2 * WIDTH,) * 8
    sizes_GD = x_ND.abs().mean(dim=0).view(8, 2 * WIDTH)
    assert (sizes_GD[:, :WIDTH] > 10 * sizes_GD[:, WIDTH:]).all(), "sites within elements"
    scale_D = source.scale()
    assert isinstance(scale_D, torch.Tensor)
    assert (x_ND * scale_D).square().sum(dim=1).mean() == pytest.approx(source.width, rel=0.1)
