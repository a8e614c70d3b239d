"""A harvest of a language model against the bare forward pass, and that against the full pass.

`harvest_over_forward`: packed tokens to a complete store on disk, against the same network cut
after the last block needed, without hooks. They alternate slice by slice. The ratio is the median
of seven rounds; `spread` is their minimum and maximum.
`truncated_over_full`: the recorded pass that stops at the site, against the pass to the logits.
"""

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.harvest.config import LanguageConfig
from tendril.harvest.language_plan import LanguagePlan, plan_language
from tendril.harvest.loop import Produce, write_store
from tendril.models.sites.hooks import recording
from tendril.models.subjects.language import LanguageSubject, language_subject
from tendril.models.subjects.subject import site_modules

from .config import PAIRS, LanguageBench
from .interleaved import interleaved
from .measure import Paired, machine, paired

SHORT_PAIRS = 35  # pairs of single passes


def measure(bench: LanguageBench) -> Mapping[str, object]:
    """Both ratios, and rows per second."""
    keep_freed_memory()  # as every harvest does
    with tempfile.TemporaryDirectory() as folder:
        subject = bench.subject or str(_random_llama(Path(folder)))
        config = LanguageConfig(
            inputs=bench.inputs,
            subject=subject,
            sites=(bench.site,),
            limit=bench.contexts,
            context=bench.context,
            batch_size=bench.batch_size,
            dtype=bench.dtype,
            device=bench.device,
            home=folder,
        )
        plan = plan_language(config, resolve_device(bench.device))
        note("harvest against the bare forward pass ...")
        rows, times = _harvest_over_forward(plan, Path(folder))
        note("truncated pass against the full pass ...")
        truncated_over_full = _truncated_over_full(plan)
    return {
        "bench": "language",
        **machine(),
        "config": asdict(bench),
        "rows_per_s": round(rows / statistics.median(times.ours), 1),
        "ratios": {
            "harvest_over_forward": round(times.ratio, 3),
            "truncated_over_full": truncated_over_full,
        },
        "spread": [round(min(times.ratios), 3), round(max(times.ratios), 3)],
    }


def cut_after(subject: LanguageSubject, site: str) -> nn.Module:
    """The network without the blocks after a site, the final norm and the logits.

    This is the least that a harvest of the site must compute. Takes token ids [B, T]. Raises
    ConfigError if the blocks are not in a list.
    """
    path = subject.sites[site][0].removesuffix(":in")
    parent, _, number = path.rpartition(".")
    network: Any = language_subject(subject.origin).module
    network.load_state_dict(subject.module.state_dict(), assign=True)  # shares the weights
    blocks = network.get_submodule(parent)
    if not isinstance(blocks, nn.ModuleList):
        raise ConfigError(f"--site must be a residual stream at a block; got {site!r}.")
    holder = network.get_submodule(parent.rpartition(".")[0])
    setattr(holder, parent.rpartition(".")[2], blocks[: int(number) + 1])
    if subject.final_norm:
        above, _, name = subject.final_norm.rpartition(".")
        setattr(network.get_submodule(above), name, nn.Identity())
    bare: nn.Module = getattr(network, network.base_model_prefix, network)
    return bare.eval().requires_grad_(False)


def _harvest_over_forward(plan: LanguagePlan, folder: Path) -> tuple[int, Paired]:
    layout, produce = plan.layout(), plan.producer(plan.config.batch_size)
    bare = cut_after(plan.subject, plan.spec.sites[0]).to(plan.device)
    location = folder / "store" / "measured"

    def write(produce: Produce) -> None:
        write_store(
            location,
            plan.spec,
            layout,
            produce,
            origin={},
            environment={},
            overlap=plan.device.type != "cpu",
        )

    @torch.inference_mode()
    def yardstick(inputs: range) -> None:
        tokens_BT = plan.contexts.tokens_BT[inputs.start : inputs.stop].copy()
        bare(torch.from_numpy(tokens_BT).long().to(plan.device), use_cache=False)

    return layout.rows, interleaved(write, produce, yardstick, layout, location, PAIRS)


def _truncated_over_full(plan: LanguagePlan) -> float:
    module = plan.subject.module.to(plan.device)
    tokens_BT = torch.from_numpy(plan.contexts.tokens_BT[: plan.config.batch_size].copy())
    ids_BT = tokens_BT.long().to(plan.device)
    modules = site_modules(plan.subject, plan.spec.sites)
    with recording(module, modules) as forward, torch.inference_mode():
        times = paired(lambda: forward(ids_BT), lambda: module(ids_BT), SHORT_PAIRS)
    return round(times.ratio, 3)


def _random_llama(folder: Path) -> Path:
    """A Llama with random weights and a tokenizer of bytes, which suffice to measure speed."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers import PreTrainedTokenizerFast as FastTokenizer

    words = {token: i for i, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Tokenizer(WordLevel({**words, "<s>": 256}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(use_regex=False), pre_tokenizers.Split("", "isolated")]
    )
    make: Any = FastTokenizer  # has no types
    tokenizer = make(tokenizer_object=backend, bos_token="<s>")
    tokenizer.save_pretrained(folder / "llama")
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    return folder / "llama"
