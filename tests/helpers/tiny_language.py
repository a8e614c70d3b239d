"""Small language models with a tokenizer of whole words, in Hugging Face's format."""

from pathlib import Path

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{i}" for i in range(40)] + [str(i) for i in range(10)]
SPECIAL = ["<unk>", "<s>", "</s>"]


def tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """One token a word; <s> begins a text."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def network(kind: str, layers: int = 3, width: int = 16, vocabulary: int = 53) -> PreTrainedModel:
    """A llama, a gpt2 or a bert with random weights."""
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=64,
            )
        )
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=2, n_positions=64
            )
        )
    assert kind == "bert"
    return BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
        )
    )


def save(folder: Path, kind: str = "llama", **shape: int) -> Path:
    """A model and its tokenizer in a folder, as `from_pretrained` wants them."""
    network(kind, **shape).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def text(words: int, seed: int = 0) -> str:
    """Words at random."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(WORDS), (words,), generator=generator)
    return " ".join(WORDS[i] for i in drawn.tolist())
