"""Map TransformerLens hook names to modules of a plain transformers network.

`TransformerBridge` knows where the residual stream is in some 140 architectures, but it replaces
attention by an implementation that is three to four times slower. It is therefore built around an
empty copy of the network, only to look up modules. Forward passes use the transformers network.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from huggingface_hub import constants
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tendril.data.errors import SubjectError

PLACES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
# Modules of learned positions, outside the parts that read images and sound.
POSITIONS = re.compile(
    r"(?!.*(vision|visual|audio|image))(.*\.)?(position_embeddings?|embed_positions|wpe|wpm)"
)
ENDS = {"hook_in": ":in", "hook_out": ""}  # hook points at a module's input and output


def lens_sites(
    network_class: Any, config: Any, tokenizer: PreTrainedTokenizerBase, name: str
) -> dict[str, tuple[str, ...]]:
    """Map hook names such as `blocks.N.hook_resid_pre` to the module that computes them.

    A module marked `:in` stands for its input instead of its output. `unembed` and `ln_final` are
    included if the network has them. `name` labels the model in error messages. Raises
    SubjectError if TransformerLens does not support the architecture.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

    empty, bridge = None, None
    for materialised in (False, True):  # some adapters split fused weights and need real memory
        with torch.device("meta"):
            empty = network_class.from_config(config)
        if materialised:
            empty = empty.to_empty(device="cpu")  # pages that are never written take no memory
        paths = {id(module): path for path, module in empty.named_modules()}
        try:
            bridge = TransformerBridge.boot_transformers(
                f"here/{name}", hf_model=empty, tokenizer=tokenizer, device="cpu"
            )
        except NotImplementedError:
            continue
        except Exception as error:  # adapters raise anything for configs that they do not expect
            raise SubjectError(
                f"TransformerLens finds no residual stream in {name} ({one_line(error)}). Choose "
                "a model with an architecture that it supports."
            ) from error
        break
    assert bridge is not None, "an adapter that needs weights gets them on the second try"
    if not hasattr(bridge, "blocks"):
        raise SubjectError(
            f"TransformerLens finds no blocks of one residual stream in {name}. Choose a model "
            "with an architecture that it supports."
        )
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
    and TransformerLens ask it for parts that are not there."""
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


def _owners(bridge: nn.Module, paths: dict[int, str], point: type) -> Iterator[tuple[int, str]]:
    """The id of each hook point at a module's input or output, and the module's path."""
    for _, module in bridge.named_modules():
        original = getattr(module, "original_component", None)
        path = paths.get(id(original))
        for end, mark in ENDS.items():
            hook = getattr(module, end, None)
            if path and isinstance(hook, point):
                yield id(hook), path + mark


def one_line(error: Exception) -> str:
    """The beginning of an error's message, in one line."""
    return " ".join(str(error).split())[:160]
