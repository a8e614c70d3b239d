"""TransformerLens's names for places in a language model -> modules of the plain network.

`TransformerBridge` knows where the residual stream of some 140 architectures lies. It also swaps
their attention for one that shows its patterns, at three to four times the price (LOG.md). So it
is built around an empty copy of the network, asked where things are, and thrown away; what runs
is the network as transformers made it.
"""

from collections.abc import Iterator
from typing import Any

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from tendril.data.errors import SubjectError

PLACES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
ENDS = {"hook_in": ":in", "hook_out": ""}  # of a module: what goes in, what comes out


def lens_sites(
    network_class: Any, config: Any, tokenizer: PreTrainedTokenizerBase, name: str
) -> dict[str, tuple[str, ...]]:
    """`blocks.N.hook_resid_pre` and its like -> the module whose output it is, or whose input,
    marked `:in`. `unembed` and `ln_final` are there too, where the network has them.

    Raises SubjectError where TransformerLens does not know the architecture.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

    empty, bridge = None, None
    for materialised in (False, True):  # some adapters cut fused weights, which must be somewhere
        with torch.device("meta"):
            empty = network_class.from_config(config)
        if materialised:
            empty = empty.to_empty(device="cpu")  # never written, so it takes no memory
        paths = {id(module): path for path, module in empty.named_modules()}
        try:
            bridge = TransformerBridge.boot_transformers(
                f"here/{name}", hf_model=empty, tokenizer=tokenizer, device="cpu"
            )
        except NotImplementedError:
            continue
        except (ValueError, AttributeError, KeyError, RuntimeError) as error:
            raise SubjectError(
                f"TransformerLens finds no residual stream in {name} ({_one_line(error)}); choose "
                "a model of an architecture that it supports."
            ) from error
        break
    assert bridge is not None, "an adapter that wants weights has them"
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
    """Every hook point at an end of a module of the plain network, and which."""
    for _, module in bridge.named_modules():
        original = getattr(module, "original_component", None)
        path = paths.get(id(original))
        for end, mark in ENDS.items():
            found = getattr(module, end, None)
            if path and isinstance(found, point):
                yield id(found), path + mark


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
