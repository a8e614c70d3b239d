"""Networks of transformers: where their residual stream is, the longest input, quiet loading.

One line of LAYOUTS holds for all architectures that it lists. A test compares each of them with
`TransformerBridge` of TransformerLens, which Tendril does not need otherwise.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
from huggingface_hub import constants
from torch import nn
from transformers.utils import logging as transformers_logging

from tendril.data.errors import SubjectError

# Modules of learned positions, outside the parts that read images and sound.
POSITIONS = re.compile(
    r"(?!.*(vision|visual|audio|image))(.*\.)?(position_embeddings?|embed_positions|wpe|wpm)"
)

GLASS = "glassllm:"
"""Beginning of the names of models that the package glassllm carries."""
CHUNKS = r"\n|▁*[^▁\n]+|▁+"
"""How their tokenizer divides a text: no merge reaches beyond a chunk."""


@final
@dataclass(frozen=True)
class Layout:
    """Modules of an architecture: the list of blocks, and parts named from a block.

    A part marked `:in` stands for the module's input instead of its output. The name of a part
    that an architecture does not have is empty. In architectures whose blocks normalise what they
    add to the stream, `attn_out` and `mlp_out` are the outputs of these norms.
    """

    blocks: str
    attn_out: str = ""
    resid_mid: str = ""
    mlp_out: str = ""
    ln_final: str = ""
    unembed: str = "lm_head"


LAYERS, MLP_NORM = "model.layers", "post_attention_layernorm:in"
NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
GEMMA = (NORMS[0], "pre_feedforward_layernorm:in", NORMS[1])
ENCODER = ("attention", "output.LayerNorm:in", "output.dense")
LAYOUTS: dict[str, Layout] = {
    "Arcee Jais2 Laguna Ministral3 Youtu NanoChat BitNet DeepseekV2 DeepseekV3 Ernie4_5 "
    "Ernie4_5_Moe Gemma Glm GlmMoeDsa Glm4Moe Glm4MoeLite GptOss HunYuanDenseV1 Llama MiniMaxM2 "
    "Mistral Mixtral Nemotron Olmo Olmoe Phi3 Qwen2 Qwen2Moe Qwen3 Qwen3Moe Qwen3Next Qwen3_5 "
    "Qwen3_5Moe SeedOss SmolLM3 StableLm Starcoder2": Layout(
        LAYERS, "self_attn", MLP_NORM, "mlp", "model.norm"
    ),
    "Apertus": Layout(LAYERS, "self_attn", "feedforward_layernorm:in", "mlp", "model.norm"),
    "JetMoe": Layout(LAYERS, "self_attention", MLP_NORM, "mlp", "model.norm"),
    "VaultGemma": Layout(LAYERS, "self_attn", GEMMA[1], "mlp", "model.norm"),
    "Llama4": Layout(LAYERS, "self_attn", MLP_NORM, "feed_forward", "model.norm"),
    "Lfm2 Lfm2Moe": Layout(
        LAYERS, "self_attn", "ffn_norm:in", "feed_forward", "model.embedding_norm"
    ),
    "Bamba Jamba FalconH1": Layout(
        LAYERS, "self_attn", "pre_ff_layernorm:in", "feed_forward", "model.final_layernorm"
    ),
    "Cohere Cohere2": Layout(LAYERS, "self_attn", "", "mlp", "model.norm"),
    "Phi": Layout(LAYERS, "self_attn", "", "mlp", "model.final_layernorm"),
    "XGLM": Layout(LAYERS, "self_attn", "final_layer_norm:in", "fc2", "model.layer_norm"),
    # blocks that scale what they add, outside of every module
    "Granite GraniteMoe GraniteMoeHybrid": Layout(LAYERS, "", MLP_NORM, "", "model.norm"),
    # blocks that normalise what they add
    "FlexOlmo Exaone4 Olmo2 Olmo3": Layout(LAYERS, NORMS[0], "mlp:in", NORMS[1], "model.norm"),
    "Gemma2 Gemma3 Gemma4": Layout(LAYERS, *GEMMA, "model.norm"),
    "Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration "
    "Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration": Layout(
        "model.language_model.layers", *GEMMA, "model.language_model.norm"
    ),
    "Afmoe": Layout(LAYERS, NORMS[0], "pre_mlp_layernorm:in", "post_mlp_layernorm", "model.norm"),
    "Glm4": Layout(
        LAYERS, "post_self_attn_layernorm", MLP_NORM, "post_mlp_layernorm", "model.norm"
    ),
    # blocks of one kind of mixer, without attention and MLP of their own
    "Mamba Mamba2 FalconMamba": Layout("backbone.layers", ln_final="backbone.norm_f"),
    "NemotronH": Layout(LAYERS, ln_final="model.norm_f"),
    "RecurrentGemma": Layout(LAYERS, ln_final="model.final_norm"),
    "Zamba2": Layout(LAYERS, ln_final="model.final_layernorm"),
    "Rwkv": Layout("rwkv.blocks", "", "ln2:in", "", "rwkv.ln_out", "head"),
    # the older ones
    "GPT2LMHeadModel GPTBigCode": Layout(
        "transformer.h", "attn", "ln_2:in", "mlp", "transformer.ln_f"
    ),
    "GPTNeo": Layout("transformer.h", "attn.attention", "ln_2:in", "mlp", "transformer.ln_f"),
    "GPTJ CodeGen": Layout("transformer.h", "attn", "", "mlp", "transformer.ln_f"),
    "GPTNeoX": Layout("gpt_neox.layers", "attention", MLP_NORM, "mlp", "gpt_neox.final_layer_norm"),
    "OpenAIGPTLMHeadModel": Layout("transformer.h", "attn", "mlp:in", "mlp"),
    "Falcon": Layout("transformer.h", "self_attention", MLP_NORM, "mlp", "transformer.ln_f"),
    "Bloom": Layout(
        "transformer.h", "self_attention.dense", MLP_NORM, "mlp.dense_4h_to_h", "transformer.ln_f"
    ),
    "Mpt": Layout("transformer.blocks", "attn", "norm_2:in", "ffn.down_proj", "transformer.norm_f"),
    "OPT": Layout(
        "model.decoder.layers",
        *("self_attn", "final_layer_norm:in", "fc2", "model.decoder.final_layer_norm"),
    ),
    "ModernBertDecoder": Layout(
        LAYERS, "attn", "mlp_norm:in", "mlp", "model.final_norm", "decoder"
    ),
    # encoders
    "BertLMHeadModel BertForMaskedLM": Layout(
        "bert.encoder.layer",
        *(*ENCODER, "cls.predictions.transform.LayerNorm", "cls.predictions.decoder"),
    ),
    "RobertaForMaskedLM XLMRobertaForMaskedLM CamembertForMaskedLM": Layout(
        "roberta.encoder.layer", *ENCODER, "lm_head.layer_norm", "lm_head.decoder"
    ),
}
# OlmoHybrid has blocks of two kinds: those of linear attention normalise what they read.
LINEAR = Layout(LAYERS, "linear_attn", MLP_NORM, "mlp", "model.norm")
HYBRID = Layout(LAYERS, NORMS[0], "mlp:in", NORMS[1], "model.norm")


def _layouts() -> dict[str, tuple[Layout, ...]]:
    """Each architecture with its layouts, of which the first one that a block has holds for it."""
    found: dict[str, tuple[Layout, ...]] = {"OlmoHybridForCausalLM": (LINEAR, HYBRID)}
    for names, layout in LAYOUTS.items():
        for name in names.split():
            whole = name if "For" in name or name.endswith("Model") else f"{name}ForCausalLM"
            found[whole] = (layout,)
    return found


ARCHITECTURES: Mapping[str, tuple[Layout, ...]] = _layouts()
PARTS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def stream_sites(
    network: nn.Module, config: Any, architecture: str, name: str, bare: bool = False
) -> dict[str, tuple[str, ...]]:
    """Map hook names such as `blocks.N.hook_resid_pre` to the module that computes them.

    A module marked `:in` stands for its input instead of its output. `unembed` and `ln_final` are
    included if the network has them. `architecture` is the class of the network with its head, and
    `bare` is True if the network is that class's inner part, without the head. `name` labels the
    model in error messages. Raises SubjectError for an architecture that has no layout here.
    """
    if architecture not in ARCHITECTURES:
        raise SubjectError(
            f"--subject must be a model whose residual stream is known; {name} is a "
            f"{architecture}. Choose one of the {len(ARCHITECTURES)} architectures in "
            "models/subjects/transformers_networks.py, such as gpt2, llama, qwen3, gemma3 or bert."
        )
    modules = {path for path, _ in network.named_modules() if path}
    layouts = ARCHITECTURES[architecture]
    whole = layouts[0]
    prefix = f"{getattr(network, 'base_model_prefix', '')}." if bare else ""
    stream = whole.blocks.removeprefix(prefix)
    sites: dict[str, tuple[str, ...]] = {}
    count = sum(1 for path in modules if path.rpartition(".")[0] == stream)
    for number in range(count):
        block = f"{stream}.{number}"
        held = [layout for layout in layouts if _has(modules, block, layout)]
        paths = _paths(block, (held or layouts)[0])
        if getattr(config, "use_parallel_residual", False):
            paths.pop("resid_mid", None)  # attention and MLP read the same stream
        for part in PARTS:
            if part in paths and paths[part].removesuffix(":in") in modules:
                sites[f"blocks.{number}.hook_{part}"] = (paths[part],)
    for part, path in (("unembed", whole.unembed), ("ln_final", whole.ln_final)):
        if (inner := path.removeprefix(prefix)) in modules:
            sites[part] = (inner,)
    return sites


def _has(modules: set[str], block: str, layout: Layout) -> bool:
    """True if a block has all parts of a layout."""
    return all(path.removesuffix(":in") in modules for path in _paths(block, layout).values())


def _paths(block: str, layout: Layout) -> dict[str, str]:
    """The modules of a block by part."""
    inner = {part: getattr(layout, part) for part in ("resid_mid", "attn_out", "mlp_out")}
    paths = {part: f"{block}.{path}" for part, path in inner.items() if path}
    return {"resid_pre": f"{block}:in", "resid_post": block} | paths


def longest_input(config: Any, network: nn.Module) -> int:
    """The longest input in tokens: what the config says, but at most what the tables of positions
    hold. RoBERTa and others number positions from `padding_idx` + 1, OPT from an `offset`.
    0 if unknown."""
    said = int(getattr(config, "max_position_embeddings", 0) or 0)
    limits = [said] if said else []
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and POSITIONS.fullmatch(name):
            pad = -1 if module.padding_idx is None else module.padding_idx
            limits.append(module.num_embeddings - int(getattr(module, "offset", pad + 1)))
    return min(limits, default=0)


@contextmanager
def offline() -> Iterator[None]:
    """Within the body, whatever asks the Hugging Face hub fails at once. Loaders of local files
    ask it for parts that are not there."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def silence() -> Iterator[None]:
    """Suppress the progress bar and the warnings of transformers."""
    library: Any = transformers_logging
    bar, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bar:
            library.enable_progress_bar()


def one_line(error: Exception) -> str:
    """The beginning of an error's message, in one line."""
    return " ".join(str(error).split())[:160]
