"""Language models as subjects: all that transformers can load and TransformerLens supports.

Sites have the names of TransformerLens hooks; `resid_post.3` is short for
`blocks.3.hook_resid_post`. Forward passes run the unmodified transformers network, and stop after
the last site needed (see `sites.hooks`).
"""

import difflib
import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
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

from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError

from .lens import lens_sites
from .subject import weights_digest

COMPUTE = ("float32", "bfloat16", "float16")
PACKAGE = "package:"
SHORT = re.compile(r"(resid_pre|resid_mid|resid_post|attn_out|mlp_out)\.(\d+)")


@final
@dataclass(frozen=True)
class LanguageSubject:
    """A language model under study.

    `module` takes token ids [B, T]; it is in eval mode, without gradients. `sites` maps each site
    to the module whose output it is, or whose input if marked `:in`. `kind` is `causal` (logits
    are `module(tokens).logits`) or `encoder`. `identity` holds everything that can change the
    activations. `width` is that of the residual stream, and `context` the longest input in tokens
    (0: unknown). `unembed` and `final_norm` name modules, if the model has them. `origin` is the
    folder or name that was loaded.
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
    """Load a language model.

    `model` is a local folder, a name on the Hugging Face hub, or `package:NAME` for a model inside
    an installed Python package. `compute` is the dtype of the forward pass: float32, bfloat16 or
    float16. Raises SubjectError if the model is not found, cannot be loaded completely, or has a
    tokenizer that does not fit, and ConfigError for an unknown dtype.
    """
    if compute not in COMPUTE:
        raise ConfigError(f"--compute must be one of {', '.join(COMPUTE)}; got {compute!r}.")
    origin, model = model, _folder_of(model)
    config = _config(model)
    causal = _is_causal(config)
    tokenizer = _tokenizer(model)
    network = _network(AutoModelForCausalLM if causal else AutoModel, model, compute)
    embedding: Any = network.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    _check_tokenizer(tokenizer, vocabulary, model)
    name = Path(origin.removeprefix(PACKAGE)).name
    lens_class = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    sites = lens_sites(lens_class, _lens_config(config, causal), tokenizer, name)
    if not causal:
        sites = _encoder_sites(sites, network)
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
    """Expand short site names: `resid_post.3` -> `blocks.3.hook_resid_post`.

    Negative block numbers count from the end; raises UnknownSiteError if there is no such block.
    Other names are returned unchanged; `site_modules` checks whether they exist.
    """

    def full(name: str) -> str:
        short = SHORT.fullmatch(re.sub(r"\.-(\d+)$", lambda m: _from_end(subject, m), name))
        return f"blocks.{short[2]}.hook_{short[1]}" if short else name

    return tuple(full(name) for name in names)


def _from_end(subject: LanguageSubject, match: re.Match[str]) -> str:
    back = int(match[1])
    if not 1 <= back <= subject.layers:
        raise UnknownSiteError(
            f"a block counted from the end must be from -1 to -{subject.layers}, since "
            f"{subject.name} has {subject.layers} blocks; got {match[0]} in --sites."
        )
    return f".{subject.layers - back}"


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a model, named as in `language_subject`. Raises SubjectError."""
    return _tokenizer(_folder_of(model))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokenizer as JSON, or of its vocabulary if it has no JSON form."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _folder_of(model: str) -> str:
    """Resolve `package:NAME` to the folder of the model inside an installed Python package."""
    if not model.startswith(PACKAGE):
        return model
    package = model.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    roots = [Path(root) for root in (spec.submodule_search_locations if spec else None) or ()]
    folders = [file.parent for root in roots for file in sorted(root.rglob("model.safetensors"))]
    if not folders:
        raise SubjectError(
            f"--subject {model} needs an installed Python package {package!r} that contains a "
            f"model. Try `pip install {package.replace('_', '-')}`."
        )
    return str(folders[0])


def _config(model: str) -> Any:
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise SubjectError(
            f"--subject must be the folder of a language model or its name on the Hugging Face "
            f"hub; {model!r} cannot be found or reached{_near(model)} ({_one_line(error)}). Check "
            "the name."
        ) from error


def _near(model: str) -> str:
    """Names of models in the same folder that resemble the one requested."""
    folder = Path(model).parent
    if not folder.is_dir():
        return ""
    present = [p.parent.name for p in sorted(folder.glob("*/config.json"))]
    near = difflib.get_close_matches(Path(model).name, present, n=3, cutoff=0.3)
    return f"; near names in {folder} are {', '.join(near)}" if near else ""


def _is_causal(config: Any) -> bool:
    architecture = (config.architectures or [""])[0]
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    causal, masked = AutoModelForCausalLM._model_mapping, AutoModelForMaskedLM._model_mapping
    return type(config) in causal and type(config) not in masked


def _lens_config(config: Any, causal: bool) -> Any:
    """The config of the class that TransformerLens has an adapter for: for an encoder, the one
    with a head for masked tokens."""
    if not causal:
        config = type(config).from_dict(config.to_dict())
        masked: Any = AutoModelForMaskedLM._model_mapping[type(config)]
        config.architectures = [masked.__name__]
    return config


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        loaded = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        return cast(PreTrainedTokenizerBase, loaded)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubjectError(
            f"{model} has no tokenizer that can be loaded ({_one_line(error)}). Put its "
            "tokenizer.json next to the weights."
        ) from error


def _network(kind: Any, model: str, compute: str) -> PreTrainedModel:
    try:
        with _silence():  # missing weights are checked below
            network, info = kind.from_pretrained(
                model,
                dtype=getattr(torch, compute),
                output_loading_info=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SubjectError(
            f"the weights of {model} cannot be loaded ({_one_line(error)}). Check that its files "
            "are complete."
        ) from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise SubjectError(
            f"{model} must have all weights of {type(network).__name__}; it has none for "
            f"{missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}. Check that "
            "its files are complete and belong to one model."
        )
    if hasattr(network, "pooler"):
        network.pooler = None  # it follows the last block, and often is untrained
    network.config.use_cache = False  # the key-value cache only helps generation, and costs a copy
    return cast(PreTrainedModel, network.eval().requires_grad_(False))


@contextmanager
def _silence() -> Iterator[None]:
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


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, model: str) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        raise SubjectError(
            f"token ids of the tokenizer of {model} must be below the network's vocabulary of "
            f"{vocabulary}; got {largest}. The tokenizer belongs to another model: replace its "
            "tokenizer.json."
        )


def _encoder_sites(
    sites: Mapping[str, tuple[str, ...]], network: nn.Module
) -> dict[str, tuple[str, ...]]:
    """Sites without the prefix of the model with a head, and without `resid_mid`: blocks that
    normalise after the addition have no residual stream in the middle."""
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    renamed = {site: (paths[0].removeprefix(prefix),) for site, paths in sites.items()}
    return {site: path for site, path in renamed.items() if "resid_mid" not in site}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
