"""Masks of documents on networks of many architectures; slow: it builds each of them.

The architectures of every day are in tests/harvest/test_apart.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tendril.data.errors import SubjectError
from tendril.harvest.config import LanguageConfig
from tendril.harvest.language_plan import LanguagePlan
from tendril.harvest.run import make_plan
from tendril.models.sites.hooks import recording
from tendril.models.subjects.masks import places_of
from tendril.models.subjects.subject import site_modules

from ..helpers import tiny_language

TEXT = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = {**TEXT, "intermediate_size": 32, "max_position_embeddings": 65}
GROUPED = {**WIDE, "num_key_value_heads": 1, "head_dim": 8}
SHORT = {"vocab_size": 53, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
STATES = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 2}
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {  # class, config, takes --document-mask
    "roberta": ("RobertaModel", {**WIDE, "pad_token_id": 0}, True),
    "opt": ("OPTForCausalLM", {**WIDE, "ffn_dim": 32, "word_embed_proj_dim": 16}, True),
    "neox": ("GPTNeoXForCausalLM", WIDE, True),
    "gptj": ("GPTJForCausalLM", {**SHORT, "rotary_dim": 4}, True),
    "phi": ("PhiForCausalLM", WIDE, True),
    "qwen3": ("Qwen3ForCausalLM", GROUPED, True),
    "gemma2": ("Gemma2ForCausalLM", {**GROUPED, "sliding_window": 5}, True),
    "gemma3": ("Gemma3ForCausalLM", {**GROUPED, "sliding_window": 5}, True),
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}, True),
    "falcon": ("FalconForCausalLM", {**TEXT, "alibi": False}, True),
    "mpt": (
        "MptForCausalLM",
        {"vocab_size": 53, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 64},
        True,
    ),
    "gptneo": (
        "GPTNeoForCausalLM",
        {
            "vocab_size": 53,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 5,
        },
        True,
    ),
    "bloom": ("BloomForCausalLM", {**STATES, "n_layer": 3, "n_head": 2}, False),
    "rwkv": ("RwkvForCausalLM", {**STATES, "context_length": 64}, False),
    "mamba2": (
        "Mamba2ForCausalLM",
        {**STATES, "state_size": 8, "num_heads": 4, "head_dim": 8, "n_groups": 1},
        False,
    ),
    "recurrentgemma": (
        "RecurrentGemmaForCausalLM",
        {**WIDE, "num_key_value_heads": 1, "lru_width": 16, "attention_window_size": 5},
        False,
    ),
}


def save(folder: Path, kind: str) -> Path:
    name, config, _ = KINDS[kind]
    torch.manual_seed(0)
    network = getattr(transformers, name)
    network(network.config_class(**config)).save_pretrained(folder / kind)
    tokenizer = tiny_language.tokenizer()
    if kind == "roberta":
        tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(folder / kind)
    return folder / kind


def furthest(plan: LanguagePlan) -> float:
    """The largest difference of a row from that of its document alone, over its largest value."""
    contexts, module = plan.contexts, plan.subject.module
    slices = [range(i, min(i + 4, len(contexts))) for i in range(0, len(contexts), 4)]
    parts = list(plan.producer(4)(slices))
    worst = 0.0
    with recording(module, site_modules(plan.subject, plan.spec.sites)) as forward:
        for site in plan.spec.sites:
            rows = np.concatenate([part.activations[site] for part in parts])
            rows = rows.reshape(len(contexts), contexts.cut.length, -1)
            for index, documents in enumerate(np.asarray(contexts.documents_BT)):
                for number in set(documents.tolist()) - {-1}:
                    at = np.flatnonzero(documents == number)
                    tokens = torch.from_numpy(np.array(contexts.tokens_BT[index, at])).long()
                    with torch.no_grad():
                        alone = forward(tokens[None])[site][0].numpy()
                    off = np.abs(rows[index, at] - alone).max(-1) / np.abs(alone).max(-1)
                    worst = max(worst, float(off.max()))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_read_as_if_alone(kind: str, tmp_path: Path) -> None:
    words = (9, 3, 40, 0, 1, 14, 25, 2, 2, 7, 30, 5)
    lines = [json.dumps({"text": tiny_language.text(n, i)}) for i, n in enumerate(words)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    subject = str(save(tmp_path, kind))

    def planned(**flags: bool) -> LanguagePlan:
        plan = make_plan(
            LanguageConfig(
                inputs=str(tmp_path / "lines.jsonl"),
                subject=subject,
                sites=("resid_post.0", "resid_post.-1"),
                context=16,
                device="cpu",
                dtype="float32",
                home=str(tmp_path),
                **flags,  # type: ignore[arg-type]
            )
        )
        assert isinstance(plan, LanguagePlan)
        return plan

    assert furthest(planned(pad=True)) < 3e-6
    if KINDS[kind][2]:
        assert furthest(planned(document_mask=True)) < 3e-6
    else:
        with pytest.raises(SubjectError, match=f"{kind} does not .*Pass --pad instead"):
            planned(document_mask=True)


def test_places_count_anew_with_each_document() -> None:
    documents_BT = torch.tensor([[0, 0, 0, 1, 2, 2, -1, -1], [3, 4, 4, 4, 4, 4, 4, 4]])
    assert places_of(documents_BT).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
