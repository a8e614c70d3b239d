"""A tiny language model with features planted in it: classes of words that push the residual stream
along a direction of their own."""

from pathlib import Path

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity

CLASSES = {
    "digits": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"],
    "colours": ["red", "green", "blue", "yellow", "purple", "orange"],
    "beasts": ["dog", "cat", "cow", "horse", "mouse"],
}
FILLERS = [f"{a}{b}" for a in ("ta", "mi", "ro", "ke", "su") for b in ("la", "nu", "ve", "po")]
WORDS = [word for words in CLASSES.values() for word in words] + FILLERS
WIDTH = 32
SITE = "blocks.1.hook_resid_post"


def save_model(folder: Path, push: float = 8.0, seed: int = 0) -> torch.Tensor:
    """Write a Llama of two blocks whose embeddings of each class are moved by `push` along a
    direction; gives these directions [classes, WIDTH], of unit length and at right angles."""
    vocabulary = {"<s>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>"
    )
    torch.manual_seed(seed)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=WIDTH,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=None,
        )
    )
    directions = torch.linalg.qr(torch.randn(WIDTH, len(CLASSES)))[0].T.contiguous()
    with torch.no_grad():
        weight = network.model.embed_tokens.weight
        weight.copy_(functional.normalize(torch.randn_like(weight), dim=1))
        for words, direction in zip(CLASSES.values(), directions, strict=True):
            weight[[vocabulary[word] for word in words]] += push * direction
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return directions


def write_text(file: Path, contexts: int, words: int, seed: int = 0) -> None:
    """A document of `contexts` stretches of so many words, with words of one class at the most in
    each: a quarter of the stretches has fillers alone."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(contexts):
        line = rng.choice(FILLERS, words).tolist()
        if i % 4:
            named = list(CLASSES.values())[i % 4 - 1]
            places = rng.choice(words, int(rng.integers(1, 5)), replace=False)
            for place in places:
                line[int(place)] = str(rng.choice(named))
        lines.append(" ".join(line))
    file.write_text("\n".join(lines))


def save_run(run: Path, store: Path, directions: torch.Tensor, least: float = 1.5) -> None:
    """A dictionary that knows the planted directions: z = ReLU(x v - least). The last latent never
    fires."""
    count = len(directions) + 1
    sae = SAE(WIDTH, count, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        sae.W_enc[:, :-1] = directions.T
        sae.W_dec[:-1] = directions
        sae.b_enc.fill_(-least)
    run.mkdir(parents=True)
    config = {
        "store": store.name,
        "store_path": f"../../store/{store.name}",
        "site": SITE,
        "sites": {SITE: WIDTH},
    }
    frequency = torch.full((count,), 0.02)
    frequency[-1] = 0.0
    save_dictionary(run, sae, config, frequency)
