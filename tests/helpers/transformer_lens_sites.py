"""Hook names and their modules as TransformerLens finds them: what Tendril's own must equal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from . import tiny_language

PLACES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
ENDS = {"hook_in": ":in", "hook_out": ""}  # hook points at a module's input and output


def lens_sites(network_class: Any, config: Any, folder: Path) -> dict[str, tuple[str, ...]]:
    """The modules of a `TransformerBridge` around an empty copy of the network.

    Where an adapter splits fused weights, the copy gets memory that nobody writes.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

    tiny_language.tokenizer().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for materialised in (False, True):
        with torch.device("meta"):
            empty = network_class.from_config(config)
        if materialised:
            empty = empty.to_empty(device="cpu")
        paths = {id(module): path for path, module in empty.named_modules()}
        try:
            bridge: Any = TransformerBridge.boot_transformers(
                "here/model", hf_model=empty, tokenizer=tokenizer, device="cpu"
            )
        except NotImplementedError:
            continue
        break
    owners = dict(_owners(bridge, paths, HookPoint))
    sites: dict[str, tuple[str, ...]] = {}
    for number, block in enumerate(bridge.blocks):
        for place in PLACES:
            point = getattr(block, f"hook_{place}", None)
            if id(point) in owners:
                sites[f"blocks.{number}.hook_{place}"] = (owners[id(point)],)
    for part in ("unembed", "ln_final"):
        component = getattr(bridge, part, None)
        path = paths.get(id(getattr(component, "original_component", None)))
        if path:
            sites[part] = (path,)
    return sites


def _owners(bridge: nn.Module, paths: dict[int, str], point: type) -> Iterator[tuple[int, str]]:
    """The id of each hook point at a module's input or output, and the module's path."""
    for _, module in bridge.named_modules():
        path = paths.get(id(getattr(module, "original_component", None)))
        for end, mark in ENDS.items():
            hook = getattr(module, end, None)
            if path and isinstance(hook, point):
                yield id(hook), path + mark
