"""Editing latents: against hand computations, with and without a key-value cache, in vision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tendril
from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.sites.hooks import recording
from tendril.models.sites.splice import splicing
from tendril.models.subjects.language import LanguageSubject, language_subject

from ..helpers import tiny_language
from ..helpers.edits import D, S, hand, make_sae, no_hooks_left

SITE, MODULE = "resid_post.1", "model.layers.1"
GREEDY = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 2}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> LanguageSubject:
    """A llama with random weights, made sharper, so that greedy text does not repeat one token."""
    folder = tmp_path_factory.mktemp("model")
    found = language_subject(str(tiny_language.save(folder / "llama", "llama")))
    with torch.no_grad():
        for parameter in found.module.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return found


@pytest.fixture(scope="module")
def sae() -> SAE:
    return make_sae(D, Sparsity("topk", 6))


def tokens(batch: int = 3, length: int = 9) -> Tensor:
    return torch.randint(3, 53, (batch, length), generator=torch.Generator().manual_seed(4))


def generated(model: nn.Module, prompt_BT: Tensor, **options: Any) -> Tensor:
    """Greedy text of exactly twelve tokens more, with the scores of each."""
    network: Any = model
    made = network.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        **GREEDY,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    found: Tensor = torch.cat([made.sequences.flatten().float(), torch.cat(made.scores).flatten()])
    return found


def hidden(model: nn.Module, prompt_BT: Tensor) -> Tensor:
    """The output of the edited block."""
    with recording(model, {MODULE: (MODULE,)}) as forward:
        return forward(prompt_BT)[MODULE]


@pytest.mark.parametrize("cache", [True, False])
def test_strength_zero_is_the_plain_model_bit_for_bit(
    subject: LanguageSubject, sae: SAE, cache: bool
) -> None:
    plain = generated(subject.module, tokens(), use_cache=cache)
    for off in (
        {"add": {3: 0.0}, "scale": {5: 1.0}},
        {"add": {3: 0.0, 4: torch.zeros(3)}, "scale": {5: 1}},
        {},
    ):
        with tendril.edit(subject, SITE, sae, **off) as model:
            assert torch.equal(generated(model, tokens(), use_cache=cache), plain)
    with tendril.edit(subject, SITE, sae, add={3: 4.0}) as model:
        assert not torch.equal(generated(model, tokens(), use_cache=cache), plain)
    assert torch.equal(generated(subject.module, tokens(), use_cache=cache), plain)


def test_vectors_whose_latents_keep_their_values_are_untouched(
    subject: LanguageSubject, sae: SAE
) -> None:
    """Of a batch, the inputs with a strength of zero; and where an ablated latent is inactive."""
    x_BTD = hidden(subject.module, tokens())
    with tendril.edit(subject, SITE, sae, add={3: torch.tensor([0.0, 5.0, 0.0])}) as model:
        steered_BTD = hidden(model, tokens())
    assert torch.equal(steered_BTD[[0, 2]], x_BTD[[0, 2]])
    torch.testing.assert_close(steered_BTD[1], x_BTD[1] + 5 * sae.W_dec[3])
    latent = int((sae.encode(x_BTD) > 0).sum((0, 1)).argmax())
    on_BT = sae.encode(x_BTD)[..., latent] > 0
    assert on_BT.any() and not on_BT.all()
    with tendril.edit(subject, SITE, sae, ablate=[latent]) as model:
        ablated_BTD = hidden(model, tokens())
    assert torch.equal(ablated_BTD[~on_BT], x_BTD[~on_BT])
    assert not torch.isclose(ablated_BTD[on_BT], x_BTD[on_BT]).all(-1).any()


@pytest.mark.parametrize("sparsity", [Sparsity("topk", 6), Sparsity("relu")])
def test_each_edit_is_what_a_hand_computation_gives(
    subject: LanguageSubject, sparsity: Sparsity
) -> None:
    sae = make_sae(D, sparsity)
    x_BTD = hidden(subject.module, tokens())
    z_BTS = sae.encode(x_BTD)
    latent = int((z_BTS > 0).sum((0, 1)).argmax())
    other = (latent + 1) % S
    for fields, change in (
        ({"ablate": [latent]}, {latent: 0.0}),
        ({"set": {latent: 2.5}}, {latent: 2.5}),
        ({"scale": {latent: -2.0}}, {latent: -2 * z_BTS[..., latent].double()}),
        ({"add": {latent: 1.5}}, {latent: z_BTS[..., latent].double() + 1.5}),
        (
            {"scale": {latent: 3}, "add": {latent: 1.5}, "set": {other: 1}},
            {latent: 3 * z_BTS[..., latent].double() + 1.5, other: 1.0},
        ),
    ):
        with tendril.edit(subject, SITE, sae, **fields) as model:  # type: ignore[arg-type]
            torch.testing.assert_close(
                hidden(model, tokens()), hand(sae, x_BTD, change), atol=2e-5, rtol=1e-4
            )
            logits_BTV = model(tokens()).logits
        with splicing(subject.module, (MODULE,)) as splice:
            spliced_BTV = splice.run(tokens(), {MODULE: hand(sae, x_BTD, change)})
        torch.testing.assert_close(logits_BTV, spliced_BTV, atol=1e-4, rtol=1e-4)


def test_the_latents_are_those_that_the_folded_dictionary_gives(subject: LanguageSubject) -> None:
    """A dictionary trained on scale (x - centre) is edited in the units of x."""
    raw = make_sae(D, Sparsity("topk", 6))
    sae = folded(raw, 0.25, torch.linspace(-1, 1, D))
    x_BTD = hidden(subject.module, tokens())
    latent = int((sae.encode(x_BTD) > 0).sum((0, 1)).argmax())
    z_BT = raw.encode(0.25 * (x_BTD - torch.linspace(-1, 1, D)))[..., latent] / 0.25
    with tendril.edit(subject, SITE, sae, ablate=[latent]) as model:
        made_BTD = hidden(model, tokens())
    torch.testing.assert_close(
        made_BTD, x_BTD - z_BT[..., None] * raw.W_dec[latent], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("fields", [{"set": {3: 6.0}}, {"scale": {3: 4.0}, "add": {9: 2.0}}])
@pytest.mark.parametrize("positions", [None, slice(1, None), slice(9, None), slice(0, 9), [2, 10]])
def test_generation_agrees_with_and_without_a_cache(
    subject: LanguageSubject, sae: SAE, fields: Any, positions: Any
) -> None:
    plain = generated(subject.module, tokens())
    with tendril.edit(subject, SITE, sae, positions=positions, **fields) as model:
        cached = generated(model, tokens(), use_cache=True)
        torch.testing.assert_close(
            cached, generated(model, tokens(), use_cache=False), atol=1e-3, rtol=1e-3
        )
    assert not torch.equal(cached, plain)
    assert "use_cache" in subject.module.config.to_dict()  # the model's own setting is left alone


def test_results_do_not_depend_on_the_other_inputs_of_a_batch(
    subject: LanguageSubject, sae: SAE
) -> None:
    with tendril.edit(subject, SITE, sae, set={3: 6.0}, ablate=[4, 5]) as model:
        together = model(tokens(7)).logits
        alone = torch.cat([model(tokens(7)[i : i + 1]).logits for i in range(7)])
        parts = torch.cat([model(tokens(7)[:3]).logits, model(tokens(7)[3:]).logits])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, parts, atol=1e-4, rtol=1e-4)


def test_a_mask_and_positions_choose_the_vectors(subject: LanguageSubject, sae: SAE) -> None:
    x_BTD = hidden(subject.module, tokens())
    mask_BT = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    moved_D = 4 * sae.W_dec[3]
    with tendril.edit(subject, SITE, sae, add={3: 4.0}, mask=mask_BT) as model:
        torch.testing.assert_close(hidden(model, tokens()), x_BTD + mask_BT[..., None] * moved_D)
    with tendril.edit(subject, SITE, sae, add={3: 4.0}, mask=mask_BT[0, :5]) as model:
        made_BTD = hidden(model, tokens())  # positions beyond the mask are edited
    torch.testing.assert_close(made_BTD[:, 5:], x_BTD[:, 5:] + moved_D)
    assert torch.equal(made_BTD[:, :5][:, ~mask_BT[0, :5]], x_BTD[:, :5][:, ~mask_BT[0, :5]])
    with tendril.edit(
        subject, SITE, sae, add={3: 4.0}, mask=mask_BT, positions=slice(2, 8, 3)
    ) as model:
        made_BTD = hidden(model, tokens())
    both_BT = mask_BT & torch.isin(torch.arange(9), torch.tensor([2, 5]))
    assert torch.equal(made_BTD[~both_BT], x_BTD[~both_BT])
    torch.testing.assert_close(made_BTD[both_BT], x_BTD[both_BT] + moved_D)


def test_padding_on_the_left_with_its_mask_changes_nothing(
    subject: LanguageSubject, sae: SAE
) -> None:
    """The attention mask of a prompt is the mask of an edit: padded tokens are left out."""
    network: Any = subject.module
    prompt_BT = tokens(1)
    padded_BT = torch.cat([torch.full((1, 4), 2), prompt_BT], dim=1)
    attention_BT = torch.cat([torch.zeros(1, 4), torch.ones(1, 9)], dim=1).long()
    with tendril.edit(subject, SITE, sae, set={3: 6.0}):
        plain_BT = network.generate(
            prompt_BT, attention_mask=torch.ones_like(prompt_BT), use_cache=True, **GREEDY
        )
    with tendril.edit(subject, SITE, sae, set={3: 6.0}, mask=attention_BT.bool()):
        found_BT = network.generate(
            padded_BT, attention_mask=attention_BT, use_cache=True, **GREEDY
        )
    assert torch.equal(found_BT[:, 4:], plain_BT)


def test_hooks_are_gone_after_an_exception(subject: LanguageSubject, sae: SAE) -> None:
    plain = subject.module(tokens()).logits
    with (
        no_hooks_left(subject.module),
        pytest.raises(RuntimeError, match="mine"),
        tendril.edit(subject, SITE, sae, add={3: 4.0}),
        tendril.edit(subject, "resid_post.2", sae, ablate=[3]) as model,
    ):
        model(tokens())
        raise RuntimeError("mine")
    with (
        no_hooks_left(subject.module),
        pytest.raises(ConfigError, match="must take the 16 channels of the site; it takes 8"),
        tendril.edit(subject, SITE, make_sae(8, Sparsity("relu")), add={3: 4.0}) as model,
    ):
        model(tokens())
    assert torch.equal(subject.module(tokens()).logits, plain)


def test_edits_are_nested(subject: LanguageSubject, sae: SAE) -> None:
    """At several sites each is edited; at one site the inner edit sees what the outer one made."""
    first = {"model.layers.0": ("model.layers.0",)}
    with recording(subject.module, first) as forward:
        x_BTD = forward(tokens())["model.layers.0"]
    added_BTD = x_BTD + 4 * sae.W_dec[3]
    with (
        tendril.edit(subject, "resid_post.0", sae, add={3: 4.0}),
        tendril.edit(subject, SITE, sae, ablate=[5]) as model,
    ):
        logits = model(tokens()).logits
    with (
        tendril.edit(subject, SITE, sae, ablate=[5]),
        splicing(subject.module, ("model.layers.0",)) as splice,
    ):
        by_hand = splice.run(tokens(), {"model.layers.0": added_BTD})
    torch.testing.assert_close(logits, by_hand, atol=1e-4, rtol=1e-4)
    with (
        tendril.edit(subject, SITE, sae, set={3: 4.0}),
        tendril.edit(subject, SITE, sae, scale={7: 2.0}) as model,
    ):
        twice_BTD = hidden(model, tokens())
    once_BTD = hand(sae, hidden(subject.module, tokens()), {3: 4.0})
    z_BTS = sae.plain().double().encode(once_BTD.double())
    torch.testing.assert_close(
        twice_BTD, hand(sae, once_BTD, {7: 2 * z_BTS[..., 7]}), atol=1e-4, rtol=1e-4
    )


def test_gradients_flow_to_strengths_and_inputs(subject: LanguageSubject, sae: SAE) -> None:
    """Also to a strength that is zero; against finite differences."""
    strength = torch.zeros((), requires_grad=True)
    network: Any = subject.module

    def loss(value: Tensor | float) -> Tensor:
        with tendril.edit(subject, SITE, sae, add={3: value}, scale={5: 2.0}) as model:
            found: Tensor = model(tokens()).logits.double().logsumexp(-1).mean()
            return found

    loss(strength).backward()
    step = 1e-2
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert strength.grad is not None and float(strength.grad) == pytest.approx(
        float(slope), rel=2e-2
    )
    embeds_BTD = network.get_input_embeddings()(tokens()).clone().requires_grad_()
    with tendril.edit(subject, SITE, sae, scale={3: 2.0, 4: 2.0}, add={5: 1.0}) as model:
        model(inputs_embeds=embeds_BTD).logits.square().mean().backward()
    assert embeds_BTD.grad is not None and bool(embeds_BTD.grad.isfinite().all())
    assert float(embeds_BTD.grad.abs().sum()) > 0


def test_the_input_of_a_module_can_be_edited(subject: LanguageSubject, sae: SAE) -> None:
    """`resid_mid` is the input of a norm, which the residual connection reads, too."""
    site = "blocks.1.hook_resid_mid"
    (name,) = subject.sites[site]
    assert name.endswith(":in")
    with splicing(subject.module, (name,)) as splice:
        x_BTD = splice.read(tokens())[name]
        by_hand = splice.run(tokens(), {name: x_BTD + 4 * sae.W_dec[3]})
    strength = torch.tensor(4.0, requires_grad=True)
    with tendril.edit(subject, "resid_mid.1", sae, add={3: strength}) as model:
        logits = model(tokens()).logits
    torch.testing.assert_close(logits, by_hand, atol=1e-4, rtol=1e-4)
    logits.square().mean().backward()
    assert strength.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_of_the_model_is_kept(dtype: torch.dtype, sae: SAE) -> None:
    module: Any = tiny_language.network("llama").to(dtype).eval()
    with torch.no_grad():
        x_BTD = hidden(module, tokens())
        with tendril.edit(module, MODULE, sae, add={3: 4.0}, ablate=[5]) as model:
            made_BTD = hidden(model, tokens())
            logits = model(tokens()).logits
    assert made_BTD.dtype == logits.dtype == dtype
    z_BT = sae.encode(x_BTD.float())[..., 5]
    wanted = x_BTD.float() + 4 * sae.W_dec[3] - z_BT[..., None] * sae.W_dec[5]
    torch.testing.assert_close(made_BTD, wanted.to(dtype), atol=2e-2, rtol=2e-2)


def test_a_run_is_loaded_and_must_be_of_the_site(
    subject: LanguageSubject, sae: SAE, tmp_path: Path
) -> None:
    told: dict[str, Any] = {"site": "blocks.1.hook_resid_post", "store": "none"}
    save_dictionary(tmp_path / "runs" / "one", sae, told)
    two = {"resid_post.0": D, "resid_post.1": D}
    save_dictionary(
        tmp_path / "runs" / "two", make_sae(2 * D, Sparsity("relu")), {**told, "sites": two}
    )
    with tendril.edit(subject, SITE, sae, add={3: 4.0}) as model:
        wanted = model(tokens()).logits
    for run in ("one", tmp_path / "runs" / "one"):
        with tendril.edit(subject, SITE, run, add={3: 4.0}, home=str(tmp_path)) as model:
            assert torch.equal(model(tokens()).logits, wanted)
    with pytest.raises(ConfigError, match=r"the site must be blocks\.1\.hook_resid_post, that of"):
        tendril.edit(subject, "resid_post.0", "one", add={3: 4.0}, home=str(tmp_path))
    with pytest.raises(ConfigError, match=r"two is a crosscoder of the sites resid_post\.0, resid"):
        tendril.edit(subject, SITE, "two", add={3: 4.0}, home=str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"add": {S: 1.0}}, f"add must name latents from 0 to {S - 1}; got {S}"),
        ({"ablate": [-1]}, "ablate must name latents from 0"),
        ({"set": {3: float("nan")}}, "the strength of set must be a finite number"),
        ({"set": {3: 1.0}, "ablate": [3]}, "latent 3 is given more than one"),
        ({"ablate": [3], "scale": {3: 2.0}}, "latent 3 is given more than one"),
        ({"ablate": [3], "positions": slice(-2, None)}, "positions must count from 0"),
        ({"ablate": [3], "positions": [-1]}, "positions must count from 0"),
        ({"ablate": [3], "mask": torch.ones(9)}, "the mask must be a boolean tensor"),
    ],
)
def test_what_cannot_be_edited_is_refused_at_once(
    subject: LanguageSubject, sae: SAE, fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        tendril.edit(subject, SITE, sae, **fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"positions": ([1], [2])}, "positions must be a slice or numbers of tokens"),
        ({"mask": torch.ones(2, 9, dtype=torch.bool)}, "the mask must have 9 positions, for all"),
        ({"set": {3: torch.ones(2)}}, "must be one number, or one for each of the 3 inputs; got 2"),
    ],
)
def test_what_does_not_fit_the_input_is_refused_in_the_pass(
    subject: LanguageSubject, sae: SAE, fields: dict[str, Any], told: str
) -> None:
    with (
        no_hooks_left(subject.module),
        pytest.raises(ConfigError, match=told),
        tendril.edit(subject, SITE, sae, **{"ablate": [4], **fields}) as model,
    ):
        model(tokens())


def test_what_is_no_dictionary_of_this_site_is_refused(
    subject: LanguageSubject, sae: SAE, tmp_path: Path
) -> None:
    from tendril.data.group.dihedral import Dihedral

    orbits = EquivariantCrosscoder(Dihedral(4, False), D, 6, 2)
    with pytest.raises(ConfigError, match="edit needs a dictionary of single vectors; this one"):
        tendril.edit(subject, SITE, orbits, add={3: 1.0})
    with pytest.raises(UnknownSiteError, match=r"has no site 'resid_post\.9'"):
        tendril.edit(subject, "resid_post.9", sae, add={3: 1.0})
    with pytest.raises(UnknownSiteError, match=r"has no site 'model\.layer\.1'"):
        tendril.edit(subject.module, "model.layer.1", sae, add={3: 1.0})
    with pytest.raises(ConfigError, match="edit needs a subject or a torch module; got a str"):
        tendril.edit("gpt2", SITE, sae, add={3: 1.0})


def test_a_site_that_is_called_twice_or_never_or_alone_is_refused(sae: SAE) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.never = nn.Linear(D, D), nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            return self.part(self.part(x))

    module, x = Twice(), torch.rand(2, D)
    with (
        tendril.edit(module, "part", sae, add={3: 1.0}) as model,
        pytest.raises(SubjectError, match="is called twice or more"),
    ):
        model(x)
    with (
        tendril.edit(module, "never", sae, add={3: 1.0}) as model,
        pytest.raises(SubjectError, match="'never' is not called"),
    ):
        model(x)
    with (
        tendril.edit(module, "part", sae, add={3: 1.0}) as model,
        pytest.raises(SubjectError, match="an edited network must be called itself"),
    ):
        model.forward(x)


def test_a_latent_of_a_real_model_forced_on_changes_the_story(shared: Path) -> None:
    """stories260K: a latent that detects ` T`, before names such as Tom and Tim. Forced on it makes
    these names frequent; with strength zero greedy and sampled stories are bit for bit the same."""
    real = language_subject(str(shared / "lm" / "stories260K"))
    (module,) = real.sites["blocks.2.hook_resid_post"]
    start = real.tokenizer("Tom and Tim saw Timmy. Tim and Tom met Tommy.", return_tensors="pt")
    ids_BT = start["input_ids"]
    with recording(real.module, {module: (module,)}) as forward:
        x_TD = forward(ids_BT)[module][0, 1:]
    name = [piece.startswith("▁T") for piece in real.tokenizer.convert_ids_to_tokens(ids_BT[0, 1:])]
    row_D = x_TD[name].mean(0) - x_TD.mean(0)
    sae = SAE(real.width, 1, Sparsity("relu"), pre_bias=True).requires_grad_(False)
    sae.W_dec[0] = row_D / row_D.norm()
    sae.W_enc[:, 0] = sae.W_dec[0]
    sae.b_dec.copy_(x_TD.mean(0))
    most = float(sae.encode(x_TD).max())
    prompt_BT = real.tokenizer("One day", return_tensors="pt")["input_ids"].repeat(8, 1)
    network: Any = real.module

    def stories(**options: Any) -> Tensor:
        torch.manual_seed(0)
        mask_BT = torch.ones_like(prompt_BT)
        found: Tensor = network.generate(
            prompt_BT, attention_mask=mask_BT, max_new_tokens=30, use_cache=True, pad_token_id=0,
            **options,
        )  # fmt: skip
        return found

    def names(tokens_BT: Tensor) -> int:
        return sum(real.tokenizer.decode(row).count(" T") for row in tokens_BT)

    plain = stories(do_sample=True), stories(do_sample=False)
    with tendril.edit(real, "resid_post.2", sae, add={0: 0.0}, scale={0: 1.0}):
        assert torch.equal(stories(do_sample=True), plain[0])
        assert torch.equal(stories(do_sample=False), plain[1])
    with tendril.edit(real, "resid_post.2", sae, add={0: most}, positions=slice(1, None)):
        forced = stories(do_sample=True)
    with tendril.edit(real, "resid_post.2", sae, add={0: -most}, positions=slice(1, None)):
        held = stories(do_sample=True)
    assert names(forced) >= 3 * max(names(plain[0]), 1)
    assert names(held) <= names(plain[0])
