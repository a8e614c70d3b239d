"""Matching the latents of successive layers: a planted permutation, chains, and the study."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import run_study
from tendril.study.match.config import MatchConfig
from tendril.study.match.findings import chains_of, direct_agreement, link_of
from tendril.study.match.study import MatchStudy
from tendril.study.measures.layer_matching import (
    assign,
    assign_rows,
    correlations,
    fold,
    pair_correlations,
)

from ..helpers import language_home
from .test_page import check

SITES = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(3))


def jumprelu(width: int, latents: int, seed: int) -> SAE:
    draws = torch.Generator().manual_seed(seed)
    sae = SAE(width, latents, Sparsity("jumprelu"), pre_bias=True)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        assert sae.threshold is not None
        sae.threshold.abs_().add_(0.1)
    return sae


def test_folding_changes_no_reconstruction() -> None:
    sae = jumprelu(5, 7, 0)
    assert sae.threshold is not None
    found = fold(sae)
    x_ND = np.random.default_rng(0).normal(size=(50, 5))
    pre_NS = x_ND @ found.encoder_SE[:, :5].T + found.encoder_SE[:, 5]
    z_NS = pre_NS * (pre_NS > 1)
    expected = sae(torch.from_numpy(x_ND).float()).detach().numpy()
    rebuilt = z_NS @ found.decoder_SD + sae.b_dec.detach().numpy()
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-3, atol=1e-4)


def test_a_planted_permutation_is_found_though_a_layer_is_larger() -> None:
    """The same latents in another order, of activations three times as large, and noise."""
    sae, order = jumprelu(6, 40, 1), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    grown = jumprelu(6, 40, 1)
    assert sae.threshold is not None and grown.threshold is not None
    with torch.no_grad():  # latent order[i] of the second is latent i of the first
        back = torch.argsort(order)
        grown.W_enc.copy_(sae.W_enc[:, back])
        grown.W_dec.copy_(sae.W_dec[back])
        grown.b_enc.copy_(sae.b_enc[back])
        grown.threshold.copy_(sae.threshold[back])
        grown.W_enc.mul_(3)  # z and the threshold grow by 3, and the decoder shrinks by it
        grown.threshold.mul_(3)
        grown.W_dec.div_(3)
        grown.b_enc.copy_(3 * (grown.b_enc))
        grown.W_enc.add_(0.01 * torch.randn(grown.W_enc.shape))
    found = assign_rows(fold(sae).rows, fold(grown).rows)
    assert found.partner(40).tolist() == order.tolist()
    plain = np.ones(40)
    far = assign_rows(fold(sae, plain).rows, fold(grown, plain).rows)
    distance = [np.sum((one.rows - two.rows[order]) ** 2) for one, two in (
        (fold(sae), fold(grown)), (fold(sae, plain), fold(grown, plain)))]  # fmt: skip
    assert distance[0] < 0.01 * distance[1] and far.gap == 0


def test_of_two_sizes_all_of_the_smaller_have_a_partner() -> None:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(9, 4))
    found = assign_rows(rows, rows[[3, 1, 7]])
    assert dict(zip(found.first_M.tolist(), found.second_M.tolist(), strict=True)) == {
        1: 1, 3: 0, 7: 2,
    }  # fmt: skip
    assert found.partner(9)[0] == -1


def test_candidates_give_nearly_the_best_assignment_and_say_how_near() -> None:
    draws = np.random.default_rng(0)
    first = draws.normal(size=(200, 3))
    second = first[draws.permutation(200)] + 0.3 * draws.normal(size=(200, 3))
    exact = assign_rows(first, second)
    near = assign_rows(first, second, largest=50, candidates=8)
    assert exact.gap == 0 and sorted(near.second_M.tolist()) == list(range(200))
    assert exact.total - 1e-2 <= near.bound and near.total <= exact.total * (1 + 1e-6)
    assert near.gap < 0.02 and near.total > exact.total * (1 - near.gap) - 1e-6
    few = assign_rows(first, second, largest=50, candidates=1)
    assert few.total <= near.total and few.gap >= near.gap


def test_correlations_are_those_of_numpy() -> None:
    draws = np.random.default_rng(0)
    a, b = (draws.normal(size=(30, n)) * (draws.random((30, n)) < 0.4) for n in (4, 3))
    b[:, 2] = 0
    found = correlations(sparse.csr_array(a), sparse.csr_array(b))
    expected = np.corrcoef(a.T, b[:, :2].T)[:4, 4:]
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-5)
    assert (found[:, 2] == 0).all()
    assert assign(found[:2, :2]).gap == pytest.approx(0)
    partner_S = np.array([1, 2, 0, -1])
    pairs = pair_correlations(sparse.csr_array(a), sparse.csr_array(b), partner_S)
    np.testing.assert_allclose(pairs[[0, 2]], [expected[0, 1], expected[2, 0]])
    assert np.isnan(pairs[[1, 3]]).all(), "a constant latent, and no partner"


def reordered(sae: SAE, order: np.ndarray, noise: float = 0.0) -> SAE:
    """Latent order[i] of the result is latent i of `sae`, with noise on its weights."""
    other, back = sae.plain(), torch.from_numpy(np.argsort(order))
    with torch.no_grad():
        for name in ("W_dec", "b_enc", "threshold"):
            getattr(other, name).copy_(getattr(sae, name)[back])
        other.W_enc.copy_(sae.W_enc[:, back])
        for weights in (other.W_enc, other.W_dec):
            weights.add_(noise * torch.randn(weights.shape, generator=torch.Generator()))
    return other


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_planted_chain_over_three_layers_is_found(by: Any) -> None:
    draws = np.random.default_rng(0)
    first = jumprelu(8, 30, 3)
    orders = [draws.permutation(30), draws.permutation(30)]
    saes = [first, reordered(first, orders[0], 0.02)]
    saes.append(reordered(saes[1], orders[1], 0.02))
    x_ND = torch.from_numpy(draws.normal(size=(400, 8))).float()
    codes = [sparse.csr_array(sae.encode(x_ND).detach().numpy()) for sae in saes]
    config = MatchConfig(run=("a", "b", "c"), by=by)
    links = [
        link_of(config, ("one", "two"), (saes[i], saes[i + 1]), (codes[i], codes[i + 1]))
        for i in (0, 1)
    ]
    for link, order in zip(links, orders, strict=True):
        record = link.record()
        known_S = np.isfinite(link.correlation_S)  # some are never active
        assert (link.partner_S == order)[known_S if by == "activations" else slice(None)].all()
        assert link.by == by and known_S.sum() > 20
        assert record["correlation"] > 0.95 and record["same_as_by_activations"] == 1
        assert abs(record["correlation_random"]) < 0.3
        shuffled = record["correlation_shuffled"]
        assert shuffled == "" if by == "weights" else 0 < shuffled < 0.3
    chains = chains_of(links)
    assert len(chains.latents_CL) > 20 and (np.diff(chains.weakest_C) <= 0).all()
    for a, b, c in chains.latents_CL:
        assert (b, c) == (orders[0][a], orders[1][b])
    assert direct_agreement(config, links, saes, codes) == 1


def layers(home: Path) -> tuple[Store, list[np.ndarray]]:
    """Dictionaries of three layers that give nearly every vector back, in another order each."""
    store = language_home.make_store(home, sites=("resid_post.0", "resid_post.1", "resid_post.2"))
    width = language_home.D
    plain = SAE(width, 2 * width, Sparsity("jumprelu"), pre_bias=False)
    assert plain.threshold is not None
    with torch.no_grad():
        both = torch.cat([torch.eye(width), -torch.eye(width)])
        plain.W_enc.copy_(both.T)
        plain.W_dec.copy_(both)
        plain.threshold.fill_(1e-3)
    orders = [np.random.default_rng(i).permutation(2 * width) for i in range(3)]
    for number, (site, order) in enumerate(zip(SITES, orders, strict=True)):
        told = {
            "site": site, "store": store.name, "held_out": 0.4,
            "subject": store.spec["subject"], "store_path": f"../../store/{store.name}",
        }  # fmt: skip
        save_dictionary(home / "runs" / f"layer-{number}", reordered(plain, order), told)
    return store, orders


def test_the_study_draws_chains_and_skips_layers(tmp_path: Path) -> None:
    _, orders = layers(tmp_path)
    runs = ("layer-0", "layer-1", "layer-2")
    config = MatchConfig(run=runs, home=str(tmp_path), device="cpu", rows=200, batch_size=3)
    made = run_study(MatchStudy(), config)
    figures = made.figures
    assert [link["by"] for link in figures["links"]] == ["weights", "weights"]
    pairs = (made.report.parent / "pairs.csv").read_text().splitlines()[1:]
    partner = {int(row.split(",")[2]): int(row.split(",")[3]) for row in pairs[:32]}
    assert partner == dict(zip(orders[0].tolist(), orders[1].tolist(), strict=True))
    for skip in figures["skipped"]:
        assert abs(skip["own code"]) < 0.01 and skip["clean"] > 1
        assert skip["matched"] == pytest.approx(skip["the layer before"], abs=0.01)
    assert any(s["random partners"] != pytest.approx(s["matched"]) for s in figures["skipped"])
    check(page := made.report.read_text())
    assert "Skipped layers" in page and '<svg class="chains"' in page and "“" in page, re.findall(
        "chains.*?</svg>", page, re.S
    )[0][:600]
    assert run_study(MatchStudy(), config).reused
    turned = run_study(MatchStudy(), MatchConfig(run=runs[:2], by="activations", contexts=0,
                                                 home=str(tmp_path), device="cpu"))  # fmt: skip
    (link,) = turned.figures["links"]
    assert link["by"] == "activations" and link["same_as_by_activations"] == 1
    assert not turned.figures["skipped"]
    with pytest.raises(ConfigError, match="runs of different sites"):
        run_study(MatchStudy(), MatchConfig(run=("layer-0", "layer-0"), home=str(tmp_path)))
    other = language_home.make_store(tmp_path, sites=("resid_post.0",), name="one-site")
    with pytest.raises(ConfigError, match=r"lacks blocks\.1\.hook_resid_post"):
        run_study(MatchStudy(), MatchConfig(run=runs, store=other.name, home=str(tmp_path)))
