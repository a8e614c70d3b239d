"""Sites of language models have TransformerLens's names, wherever its bridge finds them."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from tendril.data.errors import SubjectError
from tendril.models.subjects.transformers_networks import (
    ARCHITECTURES,
    offline,
    silence,
    stream_sites,
)

from ..helpers.transformer_lens_sites import lens_sites

QUICK = ("LlamaForCausalLM", "GPT2LMHeadModel", "Gemma2ForCausalLM", "BertForMaskedLM")
LAYERS: dict[str, Any] = {"num_hidden_layers": 4}
NEEDED: dict[str, dict[str, Any]] = {  # what the default config lacks
    "NemotronForCausalLM": {"num_key_value_heads": 8, "num_attention_heads": 32},
    "HunYuanDenseV1ForCausalLM": {"head_dim": 128, "num_attention_heads": 32},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"] * 2},
    "JambaForCausalLM": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "BambaForCausalLM": {"attn_layer_indices": [1, 3]},
    "Zamba2ForCausalLM": {"num_hidden_layers": 54},
    "GPTNeoForCausalLM": {"num_hidden_layers": 24},
}
OTHERS = {  # an architecture with another config than its default
    "sequential GPT-NeoX": ("GPTNeoXForCausalLM", {"use_parallel_residual": False}),
    "sequential Falcon": ("FalconForCausalLM", {"parallel_attn": False}),
    "parallel StableLM": ("StableLmForCausalLM", {"use_parallel_residual": True}),
    "OPT with norms after": ("OPTForCausalLM", {"do_layer_norm_before": False}),
}
# TransformerLens has names for no encoder but BERT's and RoBERTa's; these have RoBERTa's modules.
ALIKE = {f"{name}ForMaskedLM": "RobertaForMaskedLM" for name in ("XLMRoberta", "Camembert")}
# The first needs timm. The others have no blocks of one stream: two decoders, hyper-connections.
WITHOUT = ("Gemma3nForConditionalGeneration", "BartForConditionalGeneration")
WITHOUT += ("MBartForConditionalGeneration", "DeepseekV4ForCausalLM", "HrmTextForCausalLM")


def config_classes() -> dict[str, tuple[Any, Any]]:
    """Each architecture that transformers has: what loads it, and the class of its config."""
    found = {}
    for auto in (AutoModelForCausalLM, AutoModelForMaskedLM):
        for config_class, network in auto._model_mapping.items():
            for kind in network if isinstance(network, tuple) else (network,):
                found.setdefault(kind.__name__, (auto, config_class))
    return found


def both(architecture: str, settings: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Sites by Tendril and by TransformerLens."""
    auto, config_class = config_classes()[architecture]
    with warnings.catch_warnings(), silence(), offline():
        warnings.simplefilter("ignore")
        config = config_class(**{**LAYERS, **NEEDED.get(architecture, {}), **settings})
        with torch.device("meta"):
            ours = stream_sites(auto.from_config(config), config, architecture, "model")
        config.architectures = [ALIKE.get(architecture, architecture)]
        return ours, lens_sites(auto, config, folder)


def check(architecture: str, settings: dict[str, Any], folder: Path) -> None:
    pytest.importorskip("transformer_lens")
    ours, theirs = both(architecture, settings, folder)
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert sum(site.endswith("resid_post") for site in ours) >= 4


@pytest.mark.parametrize("architecture", QUICK)
def test_names_are_those_of_transformer_lens(architecture: str, tmp_path: Path) -> None:
    check(architecture, {}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted({*ARCHITECTURES} - {*QUICK, *WITHOUT}))
def test_names_of_every_architecture(architecture: str, tmp_path: Path) -> None:
    check(architecture, {}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_names_where_the_config_moves_the_stream(name: str, tmp_path: Path) -> None:
    check(*OTHERS[name], tmp_path)


def test_no_architecture_of_transformer_lens_is_left_out() -> None:
    factory = pytest.importorskip("transformer_lens.factories.architecture_adapter_factory")
    known = {*factory.SUPPORTED_ARCHITECTURES} & {*config_classes()}
    assert known - {*ARCHITECTURES} <= {*WITHOUT}
    assert {*ARCHITECTURES} - known <= {*ALIKE}


def test_an_architecture_without_a_layout_is_refused() -> None:
    with torch.device("meta"):
        config = transformers.CTRLConfig(n_layer=1)
        network = transformers.CTRLLMHeadModel(config)
    with pytest.raises(SubjectError, match=re.escape("is known; tiny is a CTRLLMHeadModel.")):
        stream_sites(network, config, "CTRLLMHeadModel", "tiny")
