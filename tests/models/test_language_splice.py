"""Splicing in language models, at sites where the result can be computed by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tendril.models.sites.language_splice import TokenBatch, TokenSums, kept_mean, next_token_sums
from tendril.models.sites.splice import ablating, splicing
from tendril.models.subjects.language import LanguageSubject, language_subject

from ..helpers import tiny_language

LAST = 2  # of three blocks
ENDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
SITES = [f"blocks.1.hook_{end}" for end in ENDS]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageSubject:
    kind = str(request.param)
    return language_subject(str(tiny_language.save(tmp_path_factory.mktemp("m") / kind, kind)))


@pytest.fixture
def batch() -> TokenBatch:
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(3, 53, (4, 9), generator=generator)
    kept_BT = torch.ones(4, 9, dtype=torch.bool)
    return TokenBatch(tokens_BT, kept_BT, torch.zeros(4, 9, dtype=torch.int64))


def figures(sums: dict[str, TokenSums], name: str) -> dict[str, int | float]:
    return sums[name].means()


@pytest.mark.parametrize("site", SITES)
def test_what_is_put_back_changes_no_bit(
    subject: LanguageSubject, batch: TokenBatch, site: str
) -> None:
    names = subject.sites[site]
    with splicing(subject.module, names) as splice:
        parts = splice.read(batch.tokens_BT)
        assert torch.equal(splice.run(batch.tokens_BT, parts), splice.run(batch.tokens_BT, {}))
    sums = next_token_sums(subject.module, names, {"same": lambda x: x}, [batch], 1)
    assert torch.equal(sums["same"].sums_FG, sums["clean"].sums_FG)
    assert sums["same"].missed == 0
    assert figures(sums, "clean")["kl"] == 0


def left_of_a_zero_middle(subject: LanguageSubject, zero_BTD: Tensor) -> Tensor:
    """Logits if the residual stream between attention and MLP of the last block is zero: only the
    output of the MLP remains."""
    module = subject.module
    if hasattr(module, "transformer"):
        block = module.transformer.h[LAST]  # type: ignore[union-attr, index]
        return module.lm_head(module.transformer.ln_f(block.mlp(block.ln_2(zero_BTD))))  # type: ignore[union-attr, operator]
    block = module.model.layers[LAST]  # type: ignore[union-attr, index]
    mlp_BTD = block.mlp(block.post_attention_layernorm(zero_BTD))
    return module.lm_head(module.model.norm(mlp_BTD))  # type: ignore[union-attr, operator]


def test_zero_in_the_middle_of_a_block_is_zero_for_all_that_reads_it(
    subject: LanguageSubject, batch: TokenBatch
) -> None:
    names = subject.sites[f"blocks.{LAST}.hook_resid_mid"]
    with splicing(subject.module, names) as splice:
        parts = splice.read(batch.tokens_BT)
        zeros = {name: torch.zeros_like(part) for name, part in parts.items()}
        answered = splice.run(batch.tokens_BT, zeros)
    expected = left_of_a_zero_middle(subject, torch.zeros(4, 9, 16))
    torch.testing.assert_close(answered, expected)


def test_figures_are_those_of_the_network_by_hand(
    subject: LanguageSubject, batch: TokenBatch
) -> None:
    names = subject.sites[f"blocks.{LAST}.hook_resid_post"]
    sums = next_token_sums(subject.module, names, {"zero": ablating()}, [batch], 1)
    clean = subject.module(batch.tokens_BT).logits[:, :-1].flatten(0, 1)
    nothing = subject.module(batch.tokens_BT, output_hidden_states=True).hidden_states[0] * 0
    norm = subject.module.get_submodule(subject.final_norm)
    zero = subject.module.get_submodule(subject.unembed)(norm(nothing))[:, :-1].flatten(0, 1)
    right = batch.tokens_BT[:, 1:].flatten()
    for name, logits in (("clean", clean), ("zero", zero)):
        means = figures(sums, name)
        assert means["count"] == 4 * 8
        loss = functional.cross_entropy(logits, right)
        assert means["cross_entropy"] == pytest.approx(float(loss), rel=1e-5)
        assert means["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)
        kl = functional.kl_div(
            logits.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True
        )
        assert means["kl"] == pytest.approx(float(kl), abs=1e-6)
        same = logits.argmax(1) == clean.argmax(1)
        assert means["agreement"] == pytest.approx(float(same.float().mean()))
        assert means["top1"] == pytest.approx(float((logits.argmax(1) == right).float().mean()))


def test_positions_that_are_not_kept_stay_as_they_are(
    subject: LanguageSubject, batch: TokenBatch
) -> None:
    names = subject.sites["blocks.1.hook_resid_post"]
    kept_BT = batch.kept_BT.clone()
    kept_BT[:, 0] = False
    kept_BT[2] = False
    some = TokenBatch(batch.tokens_BT, kept_BT, torch.arange(4)[:, None].expand(4, 9) - 1)
    sums = next_token_sums(subject.module, names, {"zero": ablating()}, [some], 3)
    count_G, _, kl_G, _, _ = sums["zero"].sums_FG
    assert count_G.tolist() == [8, 8, 8], "group -1 does not count"
    assert kl_G[1] == 0, "nothing is replaced in the third context"
    assert kl_G[0] > 1e-6
    with splicing(subject.module, names) as splice:
        x_BTD = next(iter(splice.read(batch.tokens_BT).values()))
    expected = x_BTD[kept_BT].double().square().sum()
    assert sums["zero"].missed == pytest.approx(float(expected), rel=1e-6)
    mean_D = kept_mean(subject.module, names, [some, some])
    torch.testing.assert_close(mean_D, x_BTD[kept_BT].mean(dim=0))


def test_a_patch_has_gradients(subject: LanguageSubject, batch: TokenBatch) -> None:
    for site in SITES:
        with splicing(subject.module, subject.sites[site]) as splice:
            parts = splice.read(batch.tokens_BT)
            edit = torch.zeros_like(next(iter(parts.values())), requires_grad=True)
            put = {name: part + edit for name, part in parts.items()}
            splice.run(batch.tokens_BT, put)[0, -1].log_softmax(-1)[5].backward()
        assert edit.grad is not None
        assert edit.grad[0].abs().sum() > 0
        assert edit.grad[1:].abs().sum() == 0


def test_hooks_are_gone(subject: LanguageSubject, batch: TokenBatch) -> None:
    def hooks() -> list[tuple[object, ...]]:  # transformers installs hooks of its own
        return [(*m._forward_hooks, *m._forward_pre_hooks) for m in subject.module.modules()]

    clean, before = subject.module(batch.tokens_BT).logits, hooks()
    for site in SITES:
        next_token_sums(subject.module, subject.sites[site], {"zero": ablating()}, [batch], 1)
    assert torch.equal(subject.module(batch.tokens_BT).logits, clean)
    assert hooks() == before


def test_a_group_without_predictions_has_no_mean(batch: TokenBatch) -> None:
    sums = TokenSums(torch.tensor([[2, 0], [1, 0], [0, 0], [2, 0], [1, 0]], dtype=torch.float64))
    assert sums.means()["cross_entropy"] == 0.5
    assert sums.means(torch.tensor([False, True]))["count"] == 0
    assert (sums + sums).means()["top1"] == 0.5
