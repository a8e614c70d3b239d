"""Inputs outside a network's training: scores against independent computations, and the study."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.load import load_subject
from tendril.study.core.study import run_study
from tendril.study.measures.outside_scores import (
    FLOOR,
    ClassMeans,
    Gaussians,
    Profiles,
    auroc,
    auroc_error,
    energy_score,
    false_positives,
    neighbour_score,
    operating_curve,
    softmax_score,
)
from tendril.study.ood.config import OodConfig
from tendril.study.ood.study import OodStudy

ROOT = Path(__file__).parents[2]
SUBJECT = f"{ROOT / 'tests' / 'helpers' / 'splice_subject.py'}:make"
COLOURS = ("red", "green", "blue")


def test_areas_and_rates_are_those_of_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 12, 300).astype(float), rng.integers(3, 15, 200).astype(float)
    truth = np.r_[np.zeros(300), np.ones(200)]
    scores = np.r_[inside, outside]
    assert auroc(inside, outside) == pytest.approx(roc_auc_score(truth, scores))
    wrong, right = operating_curve(inside, outside)
    theirs = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(wrong, theirs[0])
    np.testing.assert_allclose(right, theirs[1])
    accepted = np.quantile(inside, 0.95, method="inverted_cdf")
    assert false_positives(inside, outside) == pytest.approx((outside <= accepted).mean())
    assert false_positives(inside, inside) >= 0.95
    apart = np.arange(100.0)  # 95 of them are at most 94
    assert false_positives(apart, np.array([93.5, 94.0, 94.5, 200.0])) == 0.5
    draws = [auroc(rng.normal(size=60), rng.normal(1, 1, 40)) for _ in range(2000)]
    assert auroc_error(float(np.mean(draws)), 60, 40) == pytest.approx(np.std(draws), rel=0.15)


def test_baselines_are_their_formulas() -> None:
    torch.manual_seed(0)
    logits, x, fitted = torch.randn(50, 4), torch.randn(50, 6), torch.randn(80, 6)
    np.testing.assert_allclose(softmax_score(logits), 1 - logits.softmax(1).amax(1), atol=1e-6)
    np.testing.assert_allclose(energy_score(logits), -logits.exp().sum(1).log(), rtol=1e-5)
    answers = torch.arange(80) % 3
    gaussians = Gaussians.fitted(fitted, answers)
    means = np.stack([fitted[answers == c].double().numpy().mean(0) for c in range(3)])
    off = fitted.double().numpy() - means[answers.numpy()]
    inverse = np.linalg.inv(off.T @ off / (80 - 3))
    away = x.double().numpy()[:, None] - means
    expected = np.einsum("ncd,de,nce->nc", away, inverse, away).min(1)
    np.testing.assert_allclose(gaussians.score(x), expected, rtol=1e-4)
    near = NearestNeighbors(n_neighbors=7).fit(fitted / fitted.norm(dim=1, keepdim=True))
    distance, _ = near.kneighbors(x / x.norm(dim=1, keepdim=True))
    np.testing.assert_allclose(neighbour_score(x, fitted, 7), distance[:, -1], rtol=1e-5)
    assert neighbour_score(x, fitted, 500).equal(neighbour_score(x, fitted, 80))


def test_a_profile_scores_by_the_divergence_on_its_core() -> None:
    rng = np.random.default_rng(1)
    codes = torch.tensor(rng.exponential(size=(90, 20)) * (rng.random((90, 20)) < 0.5))
    classes = torch.arange(90) % 3
    means = ClassMeans(4, 20)
    means.add(classes[:40], codes[:40])
    means.add(classes[40:], codes[40:])
    profiles = Profiles.fitted(means, 0.25)
    score = profiles.score(codes, classes)
    for i in (0, 31, 77):
        mean = codes[classes == classes[i]].mean(0).numpy()
        core = np.argsort(-mean)[:5]
        p, q = (one[core] / one[core].sum() + FLOOR / 5 for one in (codes[i].numpy(), mean))
        assert float(score[i]) == pytest.approx(entropy(p, q), abs=1e-9)
    assert torch.isinf(profiles.score(codes[:1], torch.tensor([3]))).all()  # no image of class 3
    assert torch.isfinite(profiles.score(torch.zeros(1, 20), torch.tensor([0]))).all()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety images of three classes in folders, a grey set outside, and two runs."""
    home = tmp_path_factory.mktemp("ood")
    rng = np.random.default_rng(0)
    for number in range(90):
        colour = number % 3
        pixels = rng.integers(0, 60, (8, 8, 3))
        pixels[..., colour] += 120
        folder = home / "images" / COLOURS[colour]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    (home / "grey").mkdir()
    for number in range(30):
        pixels = np.repeat(rng.integers(60, 200, (8, 8, 1)), 3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(home / "grey" / f"{number:02}.png")
    made = harvest(
        HarvestConfig(
            inputs=str(home / "images"), subject=SUBJECT, sites=("relu",), device="cpu",
            home=str(home),
        )
    )  # fmt: skip
    for name in ("one", "two"):
        sae = SAE(2, 4, Sparsity("relu"), pre_bias=False)
        with torch.no_grad():
            sae.W_enc.copy_(torch.eye(2).repeat(1, 2))
            sae.W_dec.copy_(torch.eye(2).repeat(2, 1))
        config = {
            "site": "relu", "subject": dict(load_subject(SUBJECT).identity), "held_out": 0.4,
            "store": Path(made.store).name, "store_path": str(made.store),
        }  # fmt: skip
        save_dictionary(home / "runs" / name, sae, config)
        (home / "runs" / name / "result.json").write_text(json.dumps({"l0": 2.0}))
    return home


def config(home: Path, **fields: object) -> OodConfig:
    given: dict[str, object] = {
        "run": ("one", "two"), "outside": (str(home / "grey"), "noise"),
        "subject": SUBJECT, "core": 1.0, "device": "cpu", "home": str(home), "batch_size": 16,
        "limit": 30,
    }  # fmt: skip
    return OodConfig(**(given | fields))  # type: ignore[arg-type]


def test_images_unlike_those_of_training_are_told(home: Path) -> None:
    made = run_study(OodStudy(), config(home, left_out=("blue",)))
    figures = made.figures
    by = {(r["detector"], r["outside"]): r for r in figures["records"]}
    assert {name for _, name in by} == {"grey", "noise", "left-out classes"}
    assert by["profiles of latents", "grey"]["auroc"] > 0.95  # both latents at once
    assert by["profiles of latents", "grey"]["dictionaries"] == 2
    assert figures["classes"] == 2  # blue is not fitted
    assert figures["inside"] + figures["fitted"] < 90
    page = made.report.read_text()
    assert "Mistaken images" in page and "left-out classes" in page
    assert "noise" in (made.report.parent / "ood.csv").read_text()
    again = run_study(OodStudy(), config(home, left_out=("blue",)))
    assert again.reused


def test_what_cannot_be_asked_is_said_in_a_sentence(home: Path) -> None:
    with pytest.raises(ConfigError, match="--core must be above 0"):
        config(home, core=0.0).check()
    with pytest.raises(ConfigError, match="--outside must name images"):
        config(home, outside=()).check()
    with pytest.raises(ConfigError, match="classes of the images, by name or number; got 'mauve'"):
        run_study(OodStudy(), config(home, left_out=("mauve",)))
    with pytest.raises(ConfigError, match="whose classes are known"):
        run_study(OodStudy(), config(home, left_out=("red",), inside=str(home / "grey")))
    with pytest.raises(ConfigError, match="noise:SEED"):
        run_study(OodStudy(), config(home, outside=("noise:x",)))
    with pytest.raises(InputsNotFoundError, match="--outside must be a folder"):
        run_study(OodStudy(), config(home, outside=(str(home / "none"),)))
