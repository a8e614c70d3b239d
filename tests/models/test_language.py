"""Language models as subjects, compared with the hidden states of transformers."""

import json
from pathlib import Path

import pytest
import torch

from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError
from tendril.models.sites.hooks import recording
from tendril.models.subjects.language import (
    LanguageSubject,
    full_names,
    language_subject,
)
from tendril.models.subjects.subject import site_modules
from tendril.models.subjects.tokenise import cut_for, tokens_of

from ..helpers import tiny_language

KINDS = ("llama", "gpt2", "bert")


@pytest.fixture(scope="module", params=KINDS)
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageSubject:
    folder = tmp_path_factory.mktemp(request.param) / f"tiny-{request.param}"
    return language_subject(str(tiny_language.save(folder, request.param)))


@torch.inference_mode()
def _recorded(subject: LanguageSubject, tokens_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    sites = list(subject.sites)
    with recording(subject.module, site_modules(subject, sites)) as forward:
        return forward(tokens_BT)


@torch.inference_mode()
def _check_against_transformers(subject: LanguageSubject, tokens_BT: torch.Tensor) -> None:
    """Compare resid_pre and resid_post of every layer, within 1e-5 of the largest value.

    The last hidden state that transformers returns for a causal model includes the final norm.
    """
    hidden = subject.module(tokens_BT, output_hidden_states=True).hidden_states
    acts = _recorded(subject, tokens_BT)
    for block in range(subject.layers):
        pre = acts[f"blocks.{block}.hook_resid_pre"]
        post = acts[f"blocks.{block}.hook_resid_post"]
        if block == subject.layers - 1 and subject.final_norm:
            post = dict(subject.module.named_modules())[subject.final_norm](post)
        for ours, theirs in ((pre, hidden[block]), (post, hidden[block + 1])):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
            assert theirs.abs().max() > 0


def test_residuals_are_the_hidden_states_of_transformers(subject: LanguageSubject) -> None:
    _check_against_transformers(subject, torch.randint(3, 53, (4, 20)))


def test_residuals_of_a_real_model(shared: Path) -> None:
    subject = language_subject(str(shared / "lm" / "stories260K"))
    tokens = tokens_of(subject)(["Once upon a time there was a little girl."])
    assert (subject.layers, subject.width, subject.kind) == (5, 64, "causal")
    _check_against_transformers(subject, torch.tensor(tokens))


def test_what_is_added_to_the_stream_is_the_difference(subject: LanguageSubject) -> None:
    if subject.kind == "encoder":
        assert not any("resid_mid" in site for site in subject.sites)
        return
    acts = _recorded(subject, torch.randint(3, 53, (2, 12)))
    for block in range(subject.layers):
        pre, mid, post, attention, mlp = (
            acts[f"blocks.{block}.hook_{place}"]
            for place in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
        )
        torch.testing.assert_close(pre + attention, mid)
        torch.testing.assert_close(mid + mlp, post)


def test_the_pass_stops_after_the_last_site(subject: LanguageSubject) -> None:
    later: list[str] = []
    names = dict(subject.module.named_modules())
    inner = names[subject.sites["blocks.1.hook_resid_post"][0]]
    last = names[subject.sites[f"blocks.{subject.layers - 1}.hook_resid_post"][0]]
    before = len(inner._forward_hooks)  # transformers installs hooks of its own
    handles = [
        module.register_forward_hook(lambda *_, name=name: later.append(name))
        for name, module in (("inner", inner), ("last", last))
    ]
    with recording(subject.module, site_modules(subject, ["blocks.1.hook_resid_post"])) as forward:
        forward(torch.randint(3, 53, (1, 5)))
    for handle in handles:
        handle.remove()
    assert "last" not in later
    assert "inner" in later
    assert len(inner._forward_hooks) == before


def test_the_same_files_give_the_same_identity(subject: LanguageSubject, tmp_path: Path) -> None:
    kind = subject.name.removeprefix("tiny-")
    again = language_subject(str(tiny_language.save(tmp_path / subject.name, kind)))
    assert again.identity == subject.identity
    with torch.no_grad():
        weights = next(again.module.parameters())
        weights[0, 0] += 1
    again.module.save_pretrained(tmp_path / "other")  # type: ignore[operator]
    tiny_language.tokenizer().save_pretrained(tmp_path / "other")
    other = language_subject(str(tmp_path / "other"))
    assert other.identity["weights"] != subject.identity["weights"]


def test_short_names_and_names_that_are_not_there(subject: LanguageSubject) -> None:
    assert full_names(subject, ["resid_post.1", "mlp_out.-1", "blocks.0.hook_resid_pre"]) == (
        "blocks.1.hook_resid_post",
        "blocks.2.hook_mlp_out",
        "blocks.0.hook_resid_pre",
    )
    with pytest.raises(UnknownSiteError, match=r"near names are .*blocks\.\d\.hook_resid_post"):
        site_modules(subject, full_names(subject, ["resid_post.7"]))
    for name in ("resid_post.-99", "resid_post.-0"):
        with pytest.raises(UnknownSiteError, match="must be from -1 to -"):
            full_names(subject, [name])


def test_contexts_begin_as_the_tokenizer_begins_texts(subject: LanguageSubject) -> None:
    cut = cut_for(subject, 16)
    assert cut.prefix == (1,)
    assert cut.between == ((2,) if subject.kind == "encoder" else (1,))
    assert cut.suffix == ((2,) if subject.kind == "encoder" else ())
    assert set(cut.special) == {0, 1, 2}
    assert tokens_of(subject)(["w0 9", ""]) == [[3, 52], []]


def test_models_that_are_none(tmp_path: Path) -> None:
    tiny_language.save(tmp_path / "stories-small")
    with pytest.raises(SubjectError, match=r"near names in .* are stories-small"):
        language_subject(str(tmp_path / "storis-small"))
    with pytest.raises(SubjectError, match="pip install no-such-thing"):
        language_subject("package:no_such_thing")
    with pytest.raises(ConfigError, match="--compute must be one of"):
        language_subject(str(tmp_path / "stories-small"), "float8")


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = tiny_language.save(tmp_path / "model")
    tiny_language.tokenizer([f"x{i}" for i in range(99)]).save_pretrained(folder)
    with pytest.raises(SubjectError, match="vocabulary of 53; got 101"):
        language_subject(str(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(SubjectError, match="has no tokenizer"):
        language_subject(str(folder))


def test_weights_that_are_damaged_or_lack_a_part(tmp_path: Path) -> None:
    folder = tiny_language.save(tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "num_hidden_layers": 5}))
    with pytest.raises(SubjectError, match=r"has none for model\.layers\.3.* and \d+ more"):
        language_subject(str(folder))
    (folder / "config.json").write_text(json.dumps(about))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SubjectError, match=r"weights of .* cannot be loaded"):
        language_subject(str(folder))


def test_computing_in_half_precision_is_another_identity(tmp_path: Path) -> None:
    folder = str(tiny_language.save(tmp_path / "model"))
    half, whole = language_subject(folder, "bfloat16"), language_subject(folder)
    assert next(half.module.parameters()).dtype == torch.bfloat16
    assert half.identity != whole.identity
