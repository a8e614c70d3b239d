"""Ensembles equal what they are made of: the mean of members, and what boosting leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_dictionary, load_sae, read_config
from tendril.models.dictionaries.ensemble import bagged, boosted
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.__main__ import main
from tendril.train.config import TrainConfig
from tendril.train.ensemble.config import EnsembleConfig
from tendril.train.ensemble.loop import train_ensemble
from tendril.train.exchange import export_run

from ..helpers import sparse

SPARSITIES = (Sparsity("topk", 3), Sparsity("relu"), Sparsity("jumprelu"))


def members(sparsity: Sparsity, *, pre_bias: bool) -> list[SAE]:
    made = []
    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        sae = SAE(6, 10, sparsity, pre_bias=pre_bias)
        initialised(sae, draws, bias_D=torch.randn(6, generator=draws))
        with torch.no_grad():
            sae.b_enc.copy_(0.1 * torch.randn(10, generator=draws))
            if sae.threshold is not None:
                sae.threshold.fill_(0.2)
        made.append(sae.requires_grad_(False))
    return made


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("sparsity", SPARSITIES, ids=lambda s: s.name)
def test_an_ensemble_is_its_definition(sparsity: Sparsity, pre_bias: bool) -> None:
    some = members(sparsity, pre_bias=pre_bias)
    x_ND = torch.randn(50, 6, generator=torch.Generator().manual_seed(9))
    mean = bagged(some)
    torch.testing.assert_close(mean(x_ND), torch.stack([one(x_ND) for one in some]).mean(0))
    torch.testing.assert_close(
        mean.encode(x_ND), torch.cat([one.encode(x_ND) / 3 for one in some], 1)
    )
    left_ND, codes = x_ND, []
    for one in some:
        codes.append(one.encode(left_ND))
        left_ND = left_ND - one.decode(codes[-1])
    total = boosted(some)
    torch.testing.assert_close(total(x_ND), x_ND - left_ND, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(total.encode(x_ND), torch.cat(codes, 1), atol=1e-5, rtol=1e-4)
    few = torch.tensor([2, 17, 25])
    torch.testing.assert_close(total.pre(x_ND, few), total.pre(x_ND)[:, few])
    for made in (mean, total):
        torch.testing.assert_close(made.plain()(x_ND), made(x_ND))
        scaled = folded(made, 4.0)  # of activations that were multiplied by 4
        torch.testing.assert_close(scaled(x_ND / 4), made(x_ND) / 4, atol=1e-5, rtol=1e-4)


def test_members_of_other_shapes_are_refused() -> None:
    one, two, _ = members(Sparsity("topk", 3), pre_bias=False)
    with pytest.raises(ConfigError, match="one width, size and sparsity; got 10 latents of width"):
        bagged([one, SAE(7, 10, Sparsity("topk", 3), pre_bias=False)])
    with pytest.raises(ConfigError, match="Train them with one config"):
        boosted([two, SAE(6, 10, Sparsity("topk", 2), pre_bias=False)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ensembles")
    sparse.make_store(home, {"here": sparse.vectors(4000, sparse.directions())})
    return home


def config(home: Path, **fields: Any) -> EnsembleConfig:
    base = TrainConfig(
        store=str(next((home / "store").iterdir())), site="here", latents=24, k=2, steps=60,
        batch_size=128, device="cpu", threads=1, home=str(home), lr=3e-3,
    )  # fmt: skip
    return EnsembleConfig(**{"members": 3, "base": base, **fields})


@pytest.mark.parametrize("how", ["bagging", "boosting"])
def test_members_are_trained_and_become_one_run(how: Any, home: Path, tmp_path: Path) -> None:
    made = train_ensemble(config(home, how=how))
    assert len(set(made.members)) == 3 and not made.result.reused
    saes = [load_sae(home / "runs" / name) for name in made.members]
    whole = load_dictionary(made.result.run)
    assert isinstance(whole, SAE) and whole.latents == 72
    store = open_store(next((home / "store").iterdir()))
    x_ND = torch.from_numpy(store.read("here", slice(0, 500)))
    parts = [one(x_ND) for one in saes]
    if how == "bagging":
        torch.testing.assert_close(whole(x_ND), torch.stack(parts).mean(0))
    else:
        assert made.members[2].startswith("topk-here-left-by-2-")
        first = saes[0](x_ND)
        second = saes[1](x_ND - first)
        expected = first + second + saes[2](x_ND - first - second)
        torch.testing.assert_close(whole(x_ND), expected, atol=1e-4, rtol=1e-4)
        missed = [float((x_ND - y).square().sum()) for y in (first, first + second, whole(x_ND))]
        assert missed[0] > missed[1] > missed[2], "each member explains some of what is left"
    trained = read_config(made.result.run)
    assert trained["k"] == 6 and trained["latents"] == 72 and made.result.l0 <= 6
    assert trained["ensemble"] == {"how": how, "members": list(made.members), "size": 24}
    assert trained["label"].startswith(f"{how} of 3 TopK 24")
    again = train_ensemble(config(home, how=how))
    assert again.result.reused and again.members == made.members
    assert again.outcome().sentence.startswith(f"Already there: {how} of 3 TopK 24, here of ")
    with pytest.raises(ConfigError, match="is an ensemble, whose members choose by themselves"):
        export_run(made.result.run, tmp_path / "out")


def test_an_ensemble_of_relu_is_exported_and_bad_settings_are_a_sentence(
    home: Path, tmp_path: Path
) -> None:
    words = ["ensemble", "--objective", "relu_l1", "--members", "2", "--latents", "12", "--steps"]
    words += ["5", "--batch-size", "64", "--device", "cpu", "--home", str(home), "--name", "two"]
    made = main([*words, "--store", str(next((home / "store").iterdir()))])
    assert made is not None and made.result["members"] == 2
    export_run(str(made.result["run"]), tmp_path / "out")
    assert (tmp_path / "out" / "sae_weights.safetensors").is_file()
    for fields, said in (
        ({"members": 1}, "--members must be at least 2; got 1"),
        ({"objective": "pca"}, "trained SAEs of one site; got 'pca'"),
        ({"objective": "gated"}, "got 'gated'"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(home, **fields).check()
    base = replace(config(home).base, norm_outliers="drop")
    with pytest.raises(ConfigError, match="must be keep with --how boosting"):
        config(home, how="boosting", base=base).check()
