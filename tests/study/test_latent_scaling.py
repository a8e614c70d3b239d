"""Latent scaling: by brute force, and on pairs of networks whose features are known."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import StudyResult, run_study
from tendril.study.crosscoder_parts.config import PartsConfig
from tendril.study.crosscoder_parts.study import PartsStudy
from tendril.study.measures.latent_scaling import latent_scaling
from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.recipes import crosscoder, crosscoder_l1

from ..helpers.planted_pair import BASE, KINDS, TUNED, planted, stores


def random_crosscoder(widths: tuple[int, int], latents: int = 9) -> SAE:
    draw = torch.Generator().manual_seed(0)
    sae = SAE(sum(widths), latents, Sparsity("relu"), pre_bias=False)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    return sae.requires_grad_(False)


def test_factors_are_those_of_least_squares() -> None:
    sae, scales = random_crosscoder((5, 5)), (2.0, 0.5)
    x_ND = torch.randn(400, 10, generator=torch.Generator().manual_seed(1))
    found = latent_scaling(sae, (5, 5), scales, x_ND.split(50))
    z_NS = sae.encode(x_ND)
    scale_D = torch.tensor([2.0] * 5 + [0.5] * 5)
    W_SD, y_ND, made_ND = sae.W_dec * scale_D, x_ND * scale_D, (z_NS @ sae.W_dec) * scale_D
    for latent in range(9):
        parts = (slice(0, 5), slice(5, 10))
        norms = [float(W_SD[latent, part].norm()) for part in parts]
        owner = int(np.argmax(norms))
        own_N5 = z_NS[:, latent, None] * W_SD[latent, parts[owner]]
        for m, part in enumerate(parts):
            mine_N5 = z_NS[:, latent, None] * W_SD[latent, part]
            error_N5 = (y_ND - made_ND - sae.b_dec * scale_D)[:, part] + mine_N5
            for y, target in enumerate((error_N5, made_ND[:, part])):
                column = own_N5.reshape(-1, 1)
                beta = torch.linalg.lstsq(column, target.reshape(-1, 1)).solution.item()
                assert found.beta_HYMS[0, y, m, latent] == pytest.approx(beta, rel=1e-3, abs=1e-4)
        assert found.owner_S[latent] == owner
    first = latent_scaling(
        sae, (5, 5), scales, [part for i, part in enumerate(x_ND.split(50)) if i % 4 < 2]
    )
    np.testing.assert_allclose(first.beta_HYMS[0], found.beta_HYMS[1], rtol=1e-4, atol=1e-5)


def test_rare_latents_and_those_that_the_owner_lacks() -> None:
    sae = random_crosscoder((3, 3), 2)
    sae.W_enc.data[:, 0], sae.b_enc.data[0] = 0, -1  # never active
    x_ND = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    found = latent_scaling(sae, (3, 3), (1.0, 1.0), x_ND.split(10))
    assert found.known_S.tolist() == [False, True]
    assert np.isnan(found.nu()[:, 0]).all()
    assert not found.specific()[0]
    found.beta_HYMS[:, :, found.owner_S[1], 1] = -1
    assert np.isinf(found.nu()[:, 1]).all()
    assert not found.specific()[1]


def trained(home: Path, **fields: object) -> str:
    recipe = crosscoder() if fields.get("objective") != "relu_l1" else crosscoder_l1()
    config = dataclasses.replace(
        recipe,
        store="base",
        paired_store="tuned",
        latents=120,
        batch_size=256,
        lr=3e-3,
        device="cpu",
        threads=1,
        home=str(home),
        **{"steps": 700} | fields,  # type: ignore[arg-type]
    )
    assert isinstance(config, TrainConfig)
    return train(config).run.name


def judged(home: Path, done: StudyResult, run: str, several: bool) -> dict[str, dict[str, float]]:
    """Precision and recall of the features of one network alone, by norm and by latent scaling, and
    the number of latents of other features that pass.

    A latent stands for the feature whose coefficients its activations correlate with most.
    """
    rows, coefficients_NF, kinds = planted(widths=tuple(load_widths(home, run)))
    x_ND = torch.from_numpy(np.concatenate(list(rows.values()), axis=1))
    z_NS = load_sae(home / "runs" / run).encode(x_ND).numpy()
    alive = z_NS.std(axis=0) > 0
    table = done.report.parent / (f"latents-{run}.csv" if several else "latents.csv")
    with table.open() as file:
        latents = list(csv.DictReader(file))
    correlation_SF = np.zeros((z_NS.shape[1], len(kinds)))
    both = np.corrcoef(z_NS[:, alive].T, coefficients_NF.T)
    correlation_SF[alive] = both[: alive.sum(), alive.sum() :]
    feature_S, sure_S = correlation_SF.argmax(axis=1), correlation_SF.max(axis=1) > 0.5
    found = {}
    for way in ("norm", "scaling"):
        said = np.array(
            [row["own"] if way == "norm" or row["specific"] == "1" else "" for row in latents]
        )
        for network in (BASE, TUNED):
            chosen = (said == network) & sure_S
            right = chosen & (kinds[feature_S] == network)
            found[f"{way} {network}"] = {
                "precision": float(right.sum() / max(chosen.sum(), 1)),
                "recall": len(set(feature_S[right])) / KINDS[network],
                "false": float((chosen & ~right).sum()),
            }
    return found


def load_widths(home: Path, run: str) -> list[int]:
    return list(read_config(home / "runs" / run)["sites"].values())


@pytest.mark.many_steps
def test_planted_features_of_one_network_are_told_from_shared_ones(tmp_path: Path) -> None:
    rows, _, _ = planted()
    stores(tmp_path, rows)
    l1 = trained(tmp_path, objective="relu_l1", l1=3.0)
    top = trained(tmp_path, k=3)
    done = run_study(PartsStudy(), PartsConfig(home=str(tmp_path), run=(top, l1)))
    by = {name: judged(tmp_path, done, name, True) for name in (top, l1)}
    for network in (BASE, TUNED):
        for way in ("norm", "scaling"):
            assert by[top][f"{way} {network}"]["precision"] == 1
            assert by[top][f"{way} {network}"]["recall"] > 0.8
        assert by[l1][f"scaling {network}"]["precision"] == 1
        assert by[l1][f"scaling {network}"]["recall"] > 0.5
    # the penalty shrinks what the base network has of weak features to nothing
    assert by[l1][f"norm {TUNED}"]["false"] >= 8
    assert by[l1][f"norm {TUNED}"]["precision"] < 0.6
    ours, theirs = done.figures, done.figures["others"][l1]
    assert sum(ours["shrunk"].values()) == 0 and theirs["shrunk"][TUNED] >= 8
    for figures in (ours, theirs):
        assert figures["shared_specific"] <= 0.1 * figures["shared_active"]
        assert figures["halves_agree"] > 0.95
        assert figures["median_nu_eps_of_shared"] > 0.7 < figures["median_nu_r_of_shared"]
    best = run_study(
        PartsStudy(), PartsConfig(home=str(tmp_path), run=(top,), best_directions=True)
    )
    assert best.figures["specific"] == ours["specific"] and best.figures["best_directions"]
    assert done.table.count("\n") == 4 and "confirms" in done.headline
    text = done.report.read_text()
    assert "nu_eps" in text and f"latents-{l1}.csv" in text


@pytest.mark.many_steps
def test_networks_of_other_widths(tmp_path: Path) -> None:
    stores(tmp_path, planted(widths=(48, 36))[0])
    run = trained(tmp_path, k=3, steps=600)
    done = run_study(PartsStudy(), PartsConfig(home=str(tmp_path), run=(run,)))
    by = judged(tmp_path, done, run, False)
    assert done.figures["best_directions"] and "where widths differ" in done.report.read_text()
    for network in (BASE, TUNED):
        assert by[f"scaling {network}"]["precision"] > 0.9
        assert by[f"scaling {network}"]["recall"] > 0.7
    assert done.figures["shared_specific"] <= 0.1 * done.figures["shared_active"]
