"""Language models of many architectures are read, or refused in a sentence, without a network."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tendril.data.errors import ConfigError, SubjectError
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest, make_plan
from tendril.models.sites.hooks import recording
from tendril.models.subjects.language import language_subject, tokenizer_of
from tendril.models.subjects.subject import site_modules
from tendril.study.core.language_inputs import check_causal

from ..helpers import tiny_language

VOCABULARY = 53
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
}
GROUPED = {**TEXT, "num_key_value_heads": 1, "head_dim": 8}
PAIR = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 32}
IMAGES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "ffn_dim": 32,
    "max_position_embeddings": 66,
}
GPT_NEO = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "attention_types": [[["global", "local"], 1]],
    "max_position_embeddings": 66,
}
QWEN2_VL = {
    "text_config": {**GROUPED, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
    "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
}
GEMMA3 = {"text_config": GROUPED, "vision_config": IMAGES, "image_token_index": 5}

READ = {  # name -> class, config, the longest input
    "llama": ("LlamaForCausalLM", GROUPED, 66),
    "gemma 3 text": ("Gemma3ForCausalLM", GROUPED, 66),
    "gemma 3": ("Gemma3ForConditionalGeneration", GEMMA3, 66),
    "roberta": ("RobertaForMaskedLM", {**TEXT, "pad_token_id": 1}, 64),
    "roberta, pad 0": ("RobertaForMaskedLM", {**TEXT, "pad_token_id": 0}, 65),
    "xlm-r": ("XLMRobertaModel", {**TEXT, "pad_token_id": 1}, 64),
    "camembert": ("CamembertForMaskedLM", {**TEXT, "pad_token_id": 1}, 64),
    "bert": ("BertForMaskedLM", TEXT, 66),
    "opt": ("OPTForCausalLM", OPT, 66),
    "gpt neo": ("GPTNeoForCausalLM", GPT_NEO, 66),
    "gpt2 base": ("GPT2Model", {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2}, 1024),
    "llama without head": ("LlamaModel", GROUPED, 66),
    "llama that classifies": ("LlamaForSequenceClassification", {**GROUPED, "pad_token_id": 0}, 66),
}
HEADLESS = ("llama without head", "llama that classifies")  # the head of GPT-2 is its embedding
TABLES = ("roberta", "roberta, pad 0", "xlm-r", "camembert", "bert", "opt", "gpt neo")
REFUSED = {  # name -> class, config, the reason
    "t5": ("T5ForConditionalGeneration", {**T5, "decoder_start_token_id": 0}, "a decoder"),
    "t5 encoder": ("T5EncoderModel", T5, "neither a causal nor a masked"),
    "bart": ("BartForConditionalGeneration", PAIR, "an encoder and a decoder"),
    "bart base": ("BartModel", PAIR, "an encoder and a decoder"),
    "bart decoder": ("BartForCausalLM", PAIR, "residual stream is known"),
    "marian": ("MarianMTModel", PAIR, "an encoder and a decoder"),
    "whisper": ("WhisperForConditionalGeneration", {**PAIR, "eos_token_id": 2}, "a decoder"),
    "clip text": ("CLIPTextModel", TEXT, "neither a causal nor a masked"),
    "clip": ("CLIPModel", {"text_config": TEXT, "vision_config": IMAGES}, "images or sound"),
    "qwen2-vl": ("Qwen2VLForConditionalGeneration", QWEN2_VL, "images or sound"),
    "vit": ("ViTModel", IMAGES, "neither a causal nor a masked"),
    "electra": ("ElectraModel", {**TEXT, "embedding_size": 16}, "residual stream is known"),
}


def save(folder: Path, kind: str, config: dict[str, Any]) -> Path:
    """A model with random weights, and a tokenizer."""
    torch.manual_seed(0)
    network_class = getattr(transformers, kind)
    network_class(network_class.config_class(**config)).save_pretrained(folder)
    tiny_language.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """No network: whatever asks it fails, and is listed."""
    asked: list[object] = []

    def refuse(*question: object, **_: object) -> None:
        asked.append(question)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield asked


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_transformers_reads_it(
    name: str, tmp_path: Path, asked: list[object]
) -> None:
    kind, config, longest = READ[name]
    subject = language_subject(str(save(tmp_path / "model", kind, config)))
    assert asked == []
    assert subject.context == longest
    assert subject.head == (subject.kind == "causal" and name not in HEADLESS)
    tokens_BT = torch.randint(3, VOCABULARY, (2, 20))
    sites = [site for site in subject.sites if site.endswith("resid_pre")]
    assert len(sites) == subject.layers
    with torch.inference_mode(), recording(subject.module, site_modules(subject, sites)) as read:
        acts = read(tokens_BT)
    with torch.inference_mode():
        hidden = subject.module(tokens_BT, output_hidden_states=True).hidden_states
    for site, expected in zip(sites, hidden, strict=False):
        torch.testing.assert_close(acts[site], expected)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_a_sentence(name: str, tmp_path: Path, asked: list[object]) -> None:
    kind, config, reason = REFUSED[name]
    with pytest.raises(SubjectError, match=reason) as raised:
        language_subject(str(save(tmp_path / "model", kind, config)))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert asked == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    folder = tiny_language.save(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][0, 0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SubjectError, match=f"the tensor {name} in model must be finite; got 1"):
        language_subject(str(folder))


def planned(folder: Path, subject: Path, text: str, context: int = 16) -> LanguageConfig:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text/0.txt").write_text(text)
    return LanguageConfig(
        inputs=str(folder / "text"),
        subject=str(subject),
        sites=("resid_post.1",),
        context=context,
        device="cpu",
        home=str(folder / "home"),
    )


@pytest.mark.parametrize("name", TABLES)
def test_contexts_of_the_longest_length_and_no_longer(name: str, tmp_path: Path) -> None:
    kind, config, longest = READ[name]
    model = save(tmp_path / "model", kind, config)
    text = tiny_language.text(400)
    make_plan(planned(tmp_path, model, text, longest)).layout()
    with pytest.raises(ConfigError, match=f"--context must be at most {longest}, the tokens"):
        make_plan(planned(tmp_path, model, text, longest + 1))


def test_a_network_that_fails_on_its_context_says_so(tmp_path: Path) -> None:
    """A limit that neither the config nor the tables tell."""
    model = tiny_language.save(tmp_path / "model")
    plan = make_plan(planned(tmp_path, model, tiny_language.text(400), 32))

    def fail(*_: object) -> None:
        raise IndexError("index out of range in self")

    plan.subject.module.register_forward_pre_hook(fail)  # type: ignore[attr-defined]
    with pytest.raises(SubjectError, match=r"must take contexts of 32 tokens.*--context"):
        plan.layout()


def with_added(folder: Path, token: str = "<image>", special: bool = False) -> Path:
    """A model whose tokenizer has a token that the network has no embedding for."""
    tiny_language.save(folder)
    tokenizer = tiny_language.tokenizer()
    tokenizer.add_tokens([transformers.AddedToken(token, special=special)], special_tokens=special)
    assert max(tokenizer.get_vocab().values()) == VOCABULARY
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("special", [False, True])
def test_an_added_token_without_embedding_does_no_harm(tmp_path: Path, special: bool) -> None:
    model = with_added(tmp_path / "model", special=special)
    text = tiny_language.text(100)
    done = harvest(planned(tmp_path, model, text))
    assert done.rows > 0
    (tmp_path / "plain").mkdir()
    plain = harvest(planned(tmp_path / "plain", tiny_language.save(tmp_path / "other"), text))
    assert plain.rows == done.rows


def test_a_text_with_that_token_is_refused(tmp_path: Path) -> None:
    model = with_added(tmp_path / "model")
    text = f"{tiny_language.text(100)} <image> {tiny_language.text(100)}"
    with pytest.raises(SubjectError, match=r"the text has '<image>', which is 53"):
        harvest(planned(tmp_path, model, text))
    assert not (tmp_path / "home" / "store").exists()


def test_text_that_was_packed_for_a_larger_model_is_refused(tmp_path: Path) -> None:
    """The tokenizer is the same, so that its packed text is used again."""
    text = f"{tiny_language.text(100)} <image> {tiny_language.text(100)}"
    larger = with_added(tmp_path / "larger")
    tiny_language.network("llama", vocabulary=54).save_pretrained(larger)
    make_plan(planned(tmp_path, larger, text))
    with pytest.raises(SubjectError, match=r"the text has '<image>', which is 53"):
        make_plan(planned(tmp_path, with_added(tmp_path / "model"), text))


def test_a_begin_of_text_token_without_embedding_is_refused(tmp_path: Path) -> None:
    model = with_added(tmp_path / "model", "<begin>", special=True)
    tokenizer = tokenizer_of(str(model))
    tokenizer.bos_token = "<begin>"
    tokenizer.save_pretrained(model)
    with pytest.raises(SubjectError, match=r"has '<begin>', which is 53"):
        make_plan(planned(tmp_path, model, tiny_language.text(100)))


def test_weights_without_the_head_are_enough_to_harvest(tmp_path: Path) -> None:
    whole = tiny_language.save(tmp_path / "whole" / "model")
    bare = tiny_language.save(tmp_path / "bare" / "model")
    weights = load_file(bare / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, bare / "model.safetensors", {"format": "pt"})
    text = tiny_language.text(100)
    stores = [harvest(planned(model.parent, model, text)).store for model in (whole, bare)]
    first, second = (
        sorted((p.name, p.read_bytes()) for p in (Path(s) / "activations").rglob("0/0"))
        for s in stores
    )
    assert first == second
    subject = language_subject(str(bare))
    assert (subject.kind, subject.head, subject.unembed) == ("causal", False, "")
    assert subject.identity == language_subject(str(bare)).identity
    with pytest.raises(SubjectError, match="lack the layer that does"):
        check_causal(subject, "patching")
    config = planned(tmp_path, bare, text)
    with pytest.raises(ConfigError, match="needs a causal model with its head"):
        make_plan(LanguageConfig(**{**vars(config), "inputs": "self", "limit": 2}))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("models/tyni", r"there is no folder models/tyni; near names in models are tiny"),
        ("models/other", r"there is no folder models/other\. Check"),
        ("./tiny", r"there is no folder \./tiny"),
        ("nowhere/at/all", "there is no folder nowhere/at/all"),
        ("/nowhere/tiny", "there is no folder /nowhere/tiny"),
        ("tiny-lama", r"there is no folder tiny-lama; near names in \. are tiny-llama"),
        ("models/", r"models/ has no config\.json"),
        ("models", r"models has no config\.json"),
        ("some.txt", r"some\.txt is a file"),
        ("a b", "there is no folder a b"),
        ("", r"must be the folder"),
    ],
)
def test_a_mistyped_folder_asks_nobody(
    name: str, sentence: str, tmp_path: Path, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_language.save(tmp_path / "models/tiny")
    tiny_language.save(tmp_path / "tiny-llama")
    (tmp_path / "some.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SubjectError, match=sentence):
        language_subject(name)
    if not Path(name).is_dir():
        with pytest.raises(SubjectError, match=sentence):
            tokenizer_of(name)
    assert asked == []


def test_a_name_on_the_hub_is_told_first(
    asked: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained",
        lambda *_, **__: said.append(capsys.readouterr().err) or {}["x"],
    )
    with pytest.raises(SubjectError, match="cannot be found, reached or read"):
        language_subject("someone/no-such-model")
    assert said[0].startswith("There is no folder someone/no-such-model here, so it is taken as")


def damage(name: str, content: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        old = json.loads((folder / name).read_text())
        new = {**old, **content} if isinstance(content, dict) else content
        (folder / name).write_text(new if isinstance(new, str) else json.dumps(new))

    return change


QUANTISED = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (damage("config.json", "{"), "cannot be found, reached or read"),
        (damage("config.json", "[]"), "cannot be found, reached or read"),
        (damage("config.json", {"model_type": "no-such"}), "cannot be found, reached or read"),
        (damage("config.json", {"auto_map": {"AutoConfig": "x/y--z.W"}}), ""),
        (damage("config.json", {"hidden_size": 24}), "weights of .* cannot be loaded"),
        (damage("config.json", {"hidden_size": "x"}), "must|cannot"),
        (damage("config.json", QUANTISED), "needs a package|cannot be loaded"),
        (damage("tokenizer.json", "{"), "has no tokenizer that can be loaded"),
        (damage("tokenizer.json", {"model": {"type": "Other"}}), "has no tokenizer"),
        (damage("tokenizer.json", {"model": None}), "has no tokenizer"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(
    change: Callable[[Path], None], sentence: str, tmp_path: Path, asked: list[object]
) -> None:
    folder = tiny_language.save(tmp_path / "model")
    change(folder)
    if sentence:
        with pytest.raises(SubjectError, match=sentence):
            language_subject(str(folder))
    else:
        language_subject(str(folder))  # code that the config names is not used
    assert asked == []


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_weights_stored_as_integers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tiny_language.save(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[3]
    save_file(
        tensors | {name: tensors[name].to(dtype)}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SubjectError, match=rf"the tensor {name} in .* must hold floating-point"):
        language_subject(str(folder))


@pytest.mark.parametrize("dtype", [{}, "float99", 3, "bfloat16"])
def test_the_dtype_in_the_config_does_not_matter(tmp_path: Path, dtype: object) -> None:
    folder = tiny_language.save(tmp_path / "model")
    plain = language_subject(str(folder)).identity
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
    try:
        assert language_subject(str(folder)).identity == plain
    except SubjectError as error:
        assert "config.json" in str(error)
