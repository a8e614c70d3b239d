"""Splicing under attack: three ways of attacking, controls of equal error, masked gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError
from tendril.models.attacks import Attack
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.load import load_subject
from tendril.study.core.study import run_study
from tendril.study.measures.spliced_attacks import (
    NETWORK,
    STRAIGHT,
    THROUGH,
    TRANSFERRED,
    SiteMoments,
    attack_defences,
    straight_through,
)
from tendril.study.splice.config import SpliceConfig
from tendril.study.splice.study import SpliceStudy

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'splice_subject.py'}:make"
NAMES = ("red", "green", "blue")


def images(count: int) -> torch.Tensor:
    """Images of which one colour is 0.2 brighter than the others."""
    torch.manual_seed(0)
    rgb = 0.3 + 0.02 * torch.rand(count, 3, 8, 8)
    for number in range(count):
        rgb[number, number % 3] += 0.2
    return rgb


def test_a_defence_that_hides_its_gradient_is_called_masked() -> None:
    subject = load_subject(SUBJECT)
    rgb, classes = images(48), torch.arange(48) % 3
    defences = {
        "same": lambda x: x,
        "steps": lambda x: (x * 50).round() / 50,  # no gradient anywhere
    }
    attack = Attack("linf", 0.15, 10)
    with torch.no_grad():
        found = attack_defences(subject, "relu", defences, [(rgb, classes)], attack)
    assert found[NETWORK].figures()["clean"] == 1 and found[NETWORK].by_way[THROUGH].mean() == 0
    for way in (THROUGH, STRAIGHT, TRANSFERRED):
        assert found["same"].by_way[way].mean() == 0
    steps = found["steps"]
    assert steps.by_way[THROUGH].mean() > 0.3 > steps.by_way[STRAIGHT].mean()
    assert steps.masked and not found["same"].masked
    assert steps.worst_N.mean() == 0 and steps.clean_N.all()


def test_the_straight_through_derivative_is_the_identity() -> None:
    x = torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
    found = straight_through(torch.round)(x)
    torch.testing.assert_close(found, x.round())
    found.backward(torch.full((5, 4), 3.0, dtype=torch.float64))
    assert x.grad is not None and bool((x.grad == 3).all())


def test_controls_have_the_error_that_they_are_given() -> None:
    subject = load_subject(SUBJECT)
    rgb = torch.rand(40, 3, 8, 8)
    moments = SiteMoments.of(subject, "relu", rgb.split(16))
    x = rgb[:, :2].permute(0, 2, 3, 1).reshape(-1, 2)
    np.testing.assert_allclose(moments.covariance_DD, np.cov(x.T.double(), bias=True), atol=1e-6)
    total = (x - x.mean(0)).square().sum()
    for fvu, components in ((0.01, 2), (0.7, 1), (1.0, 0)):
        project, kept = moments.projection(fvu)
        assert kept == components
        assert float((project(x) - x).square().sum() / total) <= fvu + 1e-6
        noisy = moments.noise(fvu, 0)(x)
        assert float((noisy - x).square().sum() / total) == pytest.approx(fvu, rel=0.1)


def test_the_study_shows_runs_beside_the_network_and_controls(tmp_path: Path) -> None:
    for number, rgb in enumerate(images(24)):
        folder = tmp_path / "images" / f"{number % 3}_{NAMES[number % 3]}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (255 * rgb.permute(1, 2, 0)).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    sae = SAE(2, 2, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    identity = dict(load_subject(SUBJECT).identity)
    save_dictionary(tmp_path / "runs" / "all", sae, {"site": "relu", "subject": identity})
    config = SpliceConfig(
        run=("all",), subject=SUBJECT, inputs=str(tmp_path / "images"), labels="inputs",
        attack="pgd", epsilon=0.15, attack_steps=5, batch_size=10, device="cpu",
        home=str(tmp_path),
    )  # fmt: skip
    made = run_study(SpliceStudy(), config)
    attack = made.figures["attack"]
    assert attack["network"]["clean"] == 1 and attack["network"]["worst"] == 0
    assert attack["runs"]["all"]["run"]["through"] == 0
    assert attack["runs"]["all"]["PCA"]["components"] == 2
    assert made.figures["labels"] == "file"
    page = made.report.read_text()
    assert "Under attack" in page and "That is no clear gain." in page
    with pytest.raises(ConfigError, match=r"pixels in 0..1.*give 0\.03137"):
        run_study(SpliceStudy(), SpliceConfig(**{**vars(config), "epsilon": 8.0}))
    with pytest.raises(ConfigError, match="--attack-steps must be 1 or more"):
        SpliceConfig(run=("all",), attack_steps=0).check()
