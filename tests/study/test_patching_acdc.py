"""ACDC orders against a literal form of Algorithm 4.1 and against all subsets of features."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.subjects.language import LanguageSubject, language_subject
from tendril.study.measures.acdc import kept_for_all, kept_for_each, order_of, thresholds
from tendril.study.measures.activation_patching import (
    Curve,
    Features,
    Pairs,
    Patching,
    curve,
    random_basis,
)
from tendril.study.measures.skipped_blocks import blocks_up_to
from tendril.study.patching.config import PatchingConfig
from tendril.study.patching.findings import ability
from tendril.study.patching.prompts import TEMPLATES, generated_pairs

from ..helpers import tiny_language

SITE, WIDTH = "blocks.0.hook_resid_pre", 12
NAMES = ("Ann", "Bo", "Cy", "Di", "Ed")
Subsets = dict[frozenset[int], np.ndarray]


def model_of(folder: Path, prompts: str) -> LanguageSubject:
    """A random model of large weights that knows the words of some prompts."""
    told = [t.format(a=n, b=n, speaker=n, other=n) for t in TEMPLATES[prompts] for n in NAMES]
    words = sorted({w for text in told for w in text.split()} | {"to"} | set(NAMES))
    tokenizer = tiny_language.tokenizer(words)
    model = tiny_language.network("llama", layers=2, vocabulary=len(tokenizer), width=WIDTH)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            weight.data.normal_(std=1.0 if "embed" in name else 0.6, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return language_subject(str(folder))


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> LanguageSubject:
    return model_of(tmp_path_factory.mktemp("model"), "dialogue")


@pytest.fixture(scope="module")
def pairs(subject: LanguageSubject) -> Pairs:
    return generated_pairs(subject, 6, 0, "name", NAMES)


def names_as_features(subject: LanguageSubject) -> Features:
    """The dictionary that is known to be right: one latent a name, in the order of NAMES."""
    numbers = subject.tokenizer.convert_tokens_to_ids(list(NAMES))
    rows_FD = subject.module.get_input_embeddings().weight.detach()[numbers]
    return Features(lambda x_ND: ((x_ND[:, None] - rows_FD).norm(dim=2) < 1e-3).float(), rows_FD)


def all_subsets(patching: Patching) -> Subsets:
    """The KL of each pair with each subset of the features patched."""
    count = patching.count
    chosen = [frozenset(some) for n in range(count + 1) for some in combinations(range(count), n)]
    masks = torch.zeros(len(chosen), count, dtype=torch.bool)
    for row, some in enumerate(chosen):
        masks[row, list(some)] = True
    edits = torch.cat([patching.edit(mask) for mask in masks])
    kl_CP = patching.kl(edits).view(len(chosen), -1).numpy()
    return dict(zip(chosen, kl_CP, strict=True))


def literal(subsets: Subsets, tau: float, size_F: torch.Tensor, pair: int | None) -> set[int]:
    """Algorithm 4.1 as it is written, for one pair or for the mean over all."""

    def kl(chosen: set[int]) -> float:
        kl_P = subsets[frozenset(chosen)]
        return float(kl_P.mean() if pair is None else kl_P[pair])

    kept = set(range(len(size_F)))
    for feature in size_F.argsort(stable=True).tolist():
        if kl(kept - {feature}) - kl(kept) < tau:
            kept -= {feature}
    return kept


def test_sets_are_those_of_the_algorithm_as_it_is_written(
    subject: LanguageSubject, pairs: Pairs
) -> None:
    basis = random_basis(WIDTH, 1, torch.device("cpu"))
    some = Features(lambda x_ND: basis.encode(x_ND)[:, :7], basis.directions_FD[:7])
    patching = Patching(subject, SITE, pairs, some, "after", 512)
    subsets, tau_Q = all_subsets(patching), thresholds(patching, 6)
    for_all_QF, for_each_QPF = kept_for_all(patching, tau_Q), kept_for_each(patching, tau_Q)
    sizes = set()
    for q, tau in enumerate(tau_Q.tolist()):
        kept = literal(subsets, tau, patching.size_PF.mean(0), None)
        sizes.add(len(kept))
        assert set(for_all_QF[q].nonzero().flatten().tolist()) == kept
        for pair in range(len(pairs)):
            found = set(for_each_QPF[q, pair].nonzero().flatten().tolist())
            assert found == literal(subsets, tau, patching.size_PF[pair], pair)
    assert len(sizes) > 2, "the thresholds make a difference"
    order_F = order_of(for_all_QF, patching.size_PF.mean(0))
    assert sorted(order_F.tolist()) == list(range(7))
    votes = for_all_QF.sum(0)[order_F].tolist()
    assert votes == sorted(votes, reverse=True)


def test_the_order_is_the_best_of_all_subsets_for_the_right_dictionary(
    subject: LanguageSubject, pairs: Pairs
) -> None:
    patching = Patching(subject, SITE, pairs, names_as_features(subject), "after", 512)
    subsets = all_subsets(patching)
    order_F = order_of(kept_for_all(patching, thresholds(patching, 20)), patching.size_PF.mean(0))
    own_PF = order_of(kept_for_each(patching, thresholds(patching, 20)), patching.size_PF)
    found, own = curve(patching, order_F, 5), curve(patching, own_PF, 5)
    best = [min(float(kl.mean()) for s, kl in subsets.items() if len(s) == n) for n in range(6)]
    own_best = np.mean(
        [[min(kl[p] for s, kl in subsets.items() if len(s) == n) for n in range(6)]
         for p in range(len(pairs))], axis=0)  # fmt: skip
    assert found.kl == pytest.approx(best, abs=1e-5), "the best set at every size"
    assert own.kl == pytest.approx(own_best, abs=0.01)
    for part in (0.5, 0.8):
        fewest = next(n for n, kl in enumerate(best) if kl <= best[0] - part * (best[0] - best[5]))
        assert found.needed(part, best[5]) == fewest > 0


def test_blocks_that_are_passed_over_change_nothing(
    subject: LanguageSubject, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis = random_basis(WIDTH, 1, torch.device("cpu"))
    found = []
    for _ in range(2):
        patching = Patching(subject, "blocks.0.hook_resid_post", pairs, basis, "after", 4)
        edits = torch.stack([patching.edit(torch.arange(WIDTH) < n) for n in (0, 5, WIDTH)])
        found.append(patching.kl(edits.flatten(0, 1)))
        monkeypatch.setattr(
            "tendril.study.measures.activation_patching.blocks_up_to", lambda *_: []
        )
    assert torch.equal(*found)
    assert found[0][: len(pairs)].max() > 0.01
    (first, *_) = blocks = blocks_up_to(subject.module, ("model.layers.0",), pairs.base_PT)
    assert len(blocks) == 1 and "forward" not in vars(first)
    assert blocks_up_to(subject.module, ("model.layers.0.mlp",), pairs.base_PT) == []
    assert blocks_up_to(subject.module, ("model.layers.0:in",), pairs.base_PT) == []


def test_intervals_over_pairs() -> None:
    same_NP = np.repeat(np.array([[1.0], [0.6], [0.3], [0.0]]), 6, axis=1)
    certain = Curve([1.0, 0.6, 0.3, 0.0], [0.0] * 4, same_NP)
    assert certain.interval(0.5, np.zeros(6)) == (2, 2)
    half_NP = np.ones((4, 8))
    half_NP[1:, :4] = 0.0  # one feature does all for half of the pairs, and none for the others
    uncertain = Curve(half_NP.mean(1).tolist(), [0.0] * 4, half_NP)
    assert uncertain.needed(0.5) == 1
    assert uncertain.interval(0.5, np.zeros(8)) == (1, None)


def test_a_random_model_has_not_been_shown_to_do_the_task(subject: LanguageSubject) -> None:
    able = ability(subject, generated_pairs(subject, 48, 0, "speaker", NAMES))
    assert able["prompts"] == 96
    assert able["low"] < able["right"] < able["high"]
    assert not able["can"]
    assert (able["low"] > 0.2) and (able["high"] < 0.8)
    with pytest.raises(ConfigError, match="--acdc must be 0 or more"):
        PatchingConfig(acdc=-1).check()


def test_portuguese_prompts_end_before_the_name(tmp_path: Path) -> None:
    made = generated_pairs(model_of(tmp_path, "conversa"), 40, 0, "name", NAMES, "conversa")
    assert len(set(made.texts)) == 40
    for base, counter in made.texts:
        assert base.split()[-1] == counter.split()[-1] == "a"
        assert sum(x != y for x, y in zip(base.split(), counter.split(), strict=True)) == 1
