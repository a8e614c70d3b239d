"""Feature patching, with a dictionary that is known to be right: one latent a token."""

import dataclasses
import json
import shlex
from itertools import product
from pathlib import Path

import pytest
import torch

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.store.reader import open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.language import LanguageSubject, language_subject
from tendril.study.__main__ import main
from tendril.study.core.language_inputs import check_causal
from tendril.study.core.study import StudyResult, run_study
from tendril.study.measures.activation_patching import (
    Curve,
    Features,
    Pairs,
    Patching,
    curve,
    features_of,
    greedily,
    greedily_each,
    principal_components,
)
from tendril.study.patching.config import PatchingConfig
from tendril.study.patching.prompts import TEMPLATES, generated_pairs, paired
from tendril.study.patching.study import PatchingStudy

from ..helpers import tiny_language

SITE, WIDTH = "blocks.0.hook_resid_pre", 16
NAMES = ("Ann", "Bo", "Cy", "Di", "Ed")
CPU = torch.device("cpu")


def words() -> list[str]:
    """All that the templates make of the names."""
    told = [
        t.format(a=n, b=n, speaker=n, other=n) for t, n in product(TEMPLATES["dialogue"], NAMES)
    ]
    return sorted({word for text in told for word in text.split()} | {"to"} | set(NAMES))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of large weights that knows the words, a store of its embeddings, and the
    dictionary that has them as its directions."""
    home = tmp_path_factory.mktemp("home")
    tokenizer = tiny_language.tokenizer(words())
    model = tiny_language.network("llama", vocabulary=len(tokenizer), width=WIDTH)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():  # so that a name matters for what comes next
        if weight.ndim == 2:
            weight.data.normal_(std=1.0 if "embed" in name else 0.3, generator=generator)
    model.save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    drawn = torch.randint(len(words()), (2000,), generator=torch.Generator().manual_seed(0))
    (home / "text.txt").write_text(" ".join(words()[i] for i in drawn.tolist()))
    config = LanguageConfig(
        inputs=str(home / "text.txt"), subject=str(home / "model"), sites=("resid_pre.0",),
        context=20, dtype="float32", device="cpu", home=str(home),
    )  # fmt: skip
    store = open_store(harvest(config).store)
    token_VD = model.get_input_embeddings().weight.detach()
    sae = SAE(WIDTH, len(token_VD), Sparsity("topk", 1), pre_bias=False).requires_grad_(False)
    sae.W_dec.copy_(token_VD / token_VD.norm(dim=1, keepdim=True))
    sae.W_enc.copy_(sae.W_dec.T)
    told = {"site": SITE, "subject": store.spec["subject"], "store": store.name,
            "store_path": f"../../store/{store.name}"}  # fmt: skip
    save_dictionary(home / "runs" / "exact", sae, told)
    return home


@pytest.fixture(scope="module")
def subject(home: Path) -> LanguageSubject:
    return language_subject(str(home / "model"))


@pytest.fixture(scope="module")
def pairs(subject: LanguageSubject) -> Pairs:
    return generated_pairs(subject, 24, 0, "name", NAMES)


@pytest.fixture(scope="module")
def components(home: Path) -> Features:
    return principal_components(open_store(next((home / "store").iterdir())), SITE, 10_000, CPU)


def config(home: Path, **fields: object) -> PatchingConfig:
    given: dict[str, object] = {
        "run": ("exact",), "pairs": 16, "fitted": 6, "names": NAMES, "features": 20, "greedy": 4,
        "candidates": 8, "acdc": 4, "change": "name", "device": "cpu", "home": str(home),
    }  # fmt: skip
    return PatchingConfig(**(given | fields))  # type: ignore[arg-type]


def patching(config: PatchingConfig) -> StudyResult:
    return run_study(PatchingStudy(), config)


def test_pairs_differ_in_a_name_and_are_of_equal_length(pairs: Pairs) -> None:
    assert len(set(pairs.texts)) == 24
    for row, (base, counter) in enumerate(pairs.texts):
        base_words, counter_words = base.split(), counter.split()
        differ = [i for i, two in enumerate(zip(base_words, counter_words, strict=True))
                  if two[0] != two[1]]  # fmt: skip
        assert differ
        assert int(pairs.last_P[row]) == len(base_words), "behind <s>"
        where_T = pairs.patched("after")[row]
        assert where_T.nonzero().flatten().tolist() == list(
            range(differ[0] + 1, len(base_words) + 1)
        )
        assert pairs.patched("last")[row].nonzero().flatten().tolist() == [len(base_words)]


@pytest.mark.parametrize("change", ["speaker", "name", "same-name"])
def test_pairs_are_a_pure_function_of_the_seed(subject: LanguageSubject, change: str) -> None:
    made, again, other = (
        generated_pairs(subject, 20, seed, change, NAMES)  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    assert made.texts == again.texts != other.texts
    assert (made.answers_P2[:, 0] != made.answers_P2[:, 1]).all()


def test_the_same_two_names_in_all_pairs(subject: LanguageSubject) -> None:
    made = generated_pairs(subject, 24, 3, "same-name", NAMES)
    assert len(made.answers_P2.unique(dim=0)) == 1
    assert len(set(made.texts)) == 24, "who speaks, and the words, differ"
    with pytest.raises(ConfigError, match="--pairs must be at most 24"):
        generated_pairs(subject, 25, 3, "same-name", NAMES)


def test_all_components_change_one_prompt_into_the_other(
    subject: LanguageSubject, pairs: Pairs, components: Features
) -> None:
    patching = Patching(subject, SITE, pairs, components, "after", 7)
    everything = patching.edit(torch.ones(WIDTH, dtype=torch.bool))
    torch.testing.assert_close(everything, patching.whole_PTD, atol=1e-4, rtol=1e-4)
    assert patching.kl(everything).max() < 1e-5
    base, counter = (
        subject.module(tokens).logits[torch.arange(24), pairs.last_P].log_softmax(-1)
        for tokens in (pairs.base_PT, pairs.counter_PT)
    )
    by_hand = (counter.exp() * (counter - base)).sum(-1)
    torch.testing.assert_close(patching.kl(torch.zeros_like(everything)), by_hand)
    assert by_hand.mean() > 1e-3


def test_gains_add_up_to_what_the_whole_change_takes_off(
    subject: LanguageSubject,
    pairs: Pairs,
    components: Features,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "tendril.study.measures.activation_patching.STEPS", 128
    )  # the sum is exact in the limit
    patching = Patching(subject, SITE, pairs, components, "after", 9)
    nothing = torch.zeros_like(patching.whole_PTD)
    taken_P = patching.kl(nothing) - patching.kl(patching.whole_PTD)
    torch.testing.assert_close(patching.gain_PF.sum(1), taken_P, atol=2e-3, rtol=0.01)


def test_greedy_takes_the_best_feature_first(
    subject: LanguageSubject, pairs: Pairs, components: Features
) -> None:
    patching = Patching(subject, SITE, pairs, components, "after", 100)
    alone = []
    for j in range(WIDTH):
        chosen = torch.zeros(WIDTH, dtype=torch.bool)
        chosen[j] = True
        alone.append(patching.kl(patching.edit(chosen)))
    kl_FP = torch.stack(alone)
    shared, each = greedily(patching, WIDTH, WIDTH), greedily_each(patching, WIDTH, 5)
    assert int(shared[0]) == int(kl_FP.mean(1).argmin())
    assert sorted(shared.tolist()) == list(range(WIDTH))
    assert torch.equal(each[:, 0], kl_FP.argmin(0))
    assert all(len(set(row)) == 5 for row in each.tolist())


def test_the_right_dictionary_needs_fewer_features_than_components(
    home: Path, subject: LanguageSubject, pairs: Pairs, components: Features
) -> None:
    needed = {}
    for name, features in (
        ("exact", features_of(load_sae("exact", str(home)))),
        ("pca", components),
    ):
        patching = Patching(subject, SITE, pairs, features, "after", 100)
        told = curve(patching, greedily_each(patching, WIDTH, WIDTH), WIDTH)
        assert told.kl[-1] < 1e-4, "in the end all is changed"
        assert told.size[0] == 0
        needed[name] = told.needed(0.9)
    differ = max(int((pairs.base_PT[i] != pairs.counter_PT[i]).sum()) for i in range(24))
    assert needed["exact"] is not None
    assert needed["exact"] <= 2 * differ
    assert needed["pca"] is not None
    assert needed["pca"] > needed["exact"]


def test_the_study_and_its_page(home: Path) -> None:
    planned = patching(config(home, dry_run=True))
    assert planned.dry_run and not (home / "reports").exists(), "a dry run writes nothing"
    result = patching(config(home))
    made = result.figures
    assert result.report == planned.report
    assert made["kl_whole"] == pytest.approx(0, abs=1e-5)
    assert set(made["curves"]) == {"exact", "pca", "random"}
    needed = {name: ways["own_attribution"]["needed"] for name, ways in made["curves"].items()}
    assert needed["exact"]["80%"] < needed["pca"]["80%"]
    assert "exact" in result.table
    assert result.headline.startswith("Features needed for 50% of the KL (ACDC, one order for all")
    page = result.report.read_text()
    assert page.count("<figure") == 12, "two charts an order"
    curves = (result.report.parent / "curves.csv").read_text().splitlines()
    assert curves[0] == "features,order,changed,kl,size"
    assert curves[1].startswith("exact,attribution,0,")
    assert (result.report.parent / "needed.csv").is_file()
    assert patching(config(home)).reused
    command = json.loads((result.report.parent / "about.json").read_text())["command"]
    again = main(shlex.split(command)[2:]).result
    assert again["reused"] and again["report"] == str(result.report)
    last = patching(config(home, positions="last", acdc=0, greedy=0, features=2)).figures
    assert last["kl_whole"] > 1e-4, "a name before the last token is not changed"


def test_what_cannot_be_patched_is_told(home: Path, subject: LanguageSubject) -> None:
    with pytest.raises(ConfigError, match="--pairs must be more than the 6"):
        patching(config(home, pairs=6))
    with pytest.raises(ConfigError, match="give more --names"):
        patching(config(home, names=("Ann", "Bo")))
    with pytest.raises(ConfigError, match="must differ and have equally many tokens"):
        paired(subject, [("Ann and Bo", "Ann")], [(3, 4)])
    encoder = dataclasses.replace(subject, kind="encoder")
    with pytest.raises(SubjectError, match="is an encoder"):
        check_causal(encoder, "patching")


def test_features_needed() -> None:
    told = Curve([1.0, 0.6, 0.5, 0.7, 0.1], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert (told.needed(0.5), told.needed(0.8), told.needed(0.95)) == (2, 4, None)
