"""The language models of the package glassllm as files of transformers.

The package (MIT, by Oséias Dias de Farias) carries two models of Llama's architecture, one of
English (`glassllm:en`) and one of Portuguese (`glassllm:pt`), as `weights/<language>.npz` and
`weights/<language>.tokenizer.json`. Three things differ from transformers' Llama:

- linear maps are [in, out], and are transposed;
- rotary embeddings turn adjacent pairs (2i, 2i + 1) of a head, where transformers turns
  (i, i + d/2), so the rows of the queries and keys are put in another order;
- the tokenizer is BPE over chunks of Unicode form C in which "▁" stands for a space.

The models were trained without tokens that begin or end a text, so the tokenizer has none.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors.torch import save_file

from tendril.data.errors import SubjectError

from .transformers_networks import CHUNKS, GLASS, one_line

LANGUAGES = ("en", "pt")
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")  # the first ids; the last two are not trained
SPACE = "▁"
# names in the package's files -> names in transformers; True if the map is to be transposed
PARTS = {
    "norm1.gamma": ("input_layernorm", False),
    "attn.W_Q": ("self_attn.q_proj", True),
    "attn.W_K": ("self_attn.k_proj", True),
    "attn.W_V": ("self_attn.v_proj", True),
    "attn.W_O": ("self_attn.o_proj", True),
    "norm2.gamma": ("post_attention_layernorm", False),
    "ffn.W1": ("mlp.gate_proj", True),
    "ffn.W3": ("mlp.up_proj", True),
    "ffn.W2": ("mlp.down_proj", True),
}


def write_packaged(subject: str, folder: Path) -> None:
    """Write `glassllm:en` or `glassllm:pt` to a folder that transformers loads.

    Raises SubjectError if the package is not installed or has no such model.
    """
    language = subject.removeprefix(GLASS)
    if language not in LANGUAGES:
        raise SubjectError(
            f"--subject {GLASS}LANGUAGE must name a model of the package glassllm, "
            f"{' or '.join(LANGUAGES)}; got {language!r}. Write {GLASS}{LANGUAGES[0]}."
        )
    spec = importlib.util.find_spec("glassllm")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise SubjectError(
            f"--subject {subject} needs the package glassllm, which is not installed. Run "
            "`pip install glassllm`."
        )
    write_model(Path(roots[0]) / "weights" / language, folder)


def write_model(files: Path, folder: Path) -> None:
    """Write the model of `<files>.npz` and `<files>.tokenizer.json` to a folder for transformers.

    Raises SubjectError if the files are damaged or hold something else.
    """
    weights, words = files.with_name(f"{files.name}.npz"), f"{files.name}.tokenizer.json"
    try:
        with weights.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            config = json.loads(str(arrays["__config__"]))
            tensors = _tensors(arrays, config)
        tokenizer = _tokenizer(json.loads(files.with_name(words).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise SubjectError(
            f"{weights} and {words} must be a model and its tokenizer as glassllm saves them; they "
            f"cannot be read ({one_line(error)}). Install glassllm again."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(config, tensors), indent=1))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    named = {"pad_token": SPECIALS[0], "unk_token": SPECIALS[1]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named})
    )


def _config(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config["vocab_size"],
        "hidden_size": config["d_model"],
        "intermediate_size": len(tensors["model.layers.0.mlp.gate_proj.weight"]),
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config["n_kv_heads"],
        "max_position_embeddings": config["max_len"],
        "rope_theta": config["rope_base"],
        "rms_norm_eps": config["eps"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "dtype": "float32",
    }


def _tensors(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(arrays[name].astype(np.float32))

    tensors = {"model.embed_tokens.weight": read("E"), "model.norm.weight": read("norm_f.gamma")}
    heads = {"attn.W_Q": config["n_heads"], "attn.W_K": config["n_kv_heads"]}
    for block in range(config["n_layers"]):
        for part, (name, transposed) in PARTS.items():
            value = read(f"blocks.{block}.{part}")
            value = value.T.contiguous() if transposed else value
            if part in heads:
                value = _halves(value, heads[part])
            tensors[f"model.layers.{block}.{name}.weight"] = value
    return tensors


def _halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of each head [d, D] in the order 0, 2, ..., 1, 3, ...: pairs (2i, 2i + 1) become
    (i, i + d/2)."""
    return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def _tokenizer(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer in the JSON form of the tokenizers library."""
    merges = [(first, second) for first, second in saved["merges"]]
    tokens = [*SPECIALS, *saved["alphabet"], *(first + second for first, second in merges)]
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    # of a token that two merges make the last id is taken, as in the package
    bpe = {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, mark]},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": CHUNKS},
            "behavior": "Isolated",
            "invert": False,
        },
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "Fuse"}]},
        "model": bpe | {"unk_token": SPECIALS[1]},
    }
