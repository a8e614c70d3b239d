"""Language models as subjects: transformers networks whose residual stream is known.

Sites have the names of TransformerLens hooks; `resid_post.3` is short for
`blocks.3.hook_resid_post`. Forward passes run the unmodified transformers network, and stop after
the last site needed (see `sites.hooks`).
"""

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, final

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
from huggingface_hub import try_to_load_from_cache
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

from tendril.data.cli import note
from tendril.data.errors import ConfigError, SubjectError, UnknownSiteError
from tendril.data.store.spec import SHORT_SITE, full_site

from ..dictionaries.checkpoint import check_values
from .subject import check_stored_dtypes, weights_digest
from .transformers_networks import GLASS, longest_input, offline, one_line, silence, stream_sites

COMPUTE = ("float32", "bfloat16", "float16")
PACKAGE = "package:"
HUB_NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)


@final
@dataclass(frozen=True)
class LanguageSubject:
    """A language model under study.

    `module` takes token ids [B, T]; it is in eval mode, without gradients. `sites` maps each site
    to the module whose output it is, or whose input if marked `:in`. `kind` is `causal` (logits
    are `module(tokens).logits`) or `encoder`. `identity` holds everything that can change the
    activations. `width` is that of the residual stream, and `context` the longest input in tokens
    (0: unknown). `unembed` and `final_norm` name modules, if the model has them. `origin` is the
    folder or name that was loaded. `head` is False for a causal model whose files lack the layer
    that predicts tokens: it can be harvested, and gives no logits. `beyond` maps ids of tokens
    that the network has no embedding for to the tokens; no text may contain them.
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
    head: bool = True
    beyond: Mapping[int, str] = field(default_factory=dict)


def language_subject(model: str, compute: str = "float32") -> LanguageSubject:
    """Load a language model.

    `model` is a local folder, a name on the Hugging Face hub, `package:NAME` for a model inside an
    installed Python package, or `glassllm:en` or `glassllm:pt` (see `glass`). `compute` is the
    dtype of the forward pass: float32, bfloat16 or float16. Raises SubjectError if the model is not
    found, cannot be loaded completely, or has a tokenizer that does not fit, and ConfigError for an
    unknown dtype.
    """
    if compute not in COMPUTE:
        raise ConfigError(f"--compute must be one of {', '.join(COMPUTE)}; got {compute!r}.")
    origin, name = model, Path(model.removeprefix(PACKAGE)).name.replace(":", "-")
    with _files_of(model) as model:
        config = _config(model)
        causal = _is_causal(config)
        _check_kind(config, name, causal)
        config.dtype = getattr(torch, compute)  # whatever the file says
        tokenizer = _tokenizer(model)
        if Path(model).is_dir() and getattr(config, "quantization_config", None) is None:
            check_stored_dtypes(Path(model))
        network, head = _network(AutoModelForCausalLM if causal else AutoModel, model, compute)
    embedding: Any = network.get_input_embeddings()
    vocabulary = int(embedding.num_embeddings)
    beyond = _tokens_beyond(tokenizer, vocabulary, model)
    sites = stream_sites(
        network, config, _architecture(config, causal), name, not (causal and head)
    )
    if not causal:  # blocks that normalise after the addition have no stream in the middle
        sites = {site: paths for site, paths in sites.items() if "resid_mid" not in site}
    unembed, final_norm = sites.pop("unembed", ("",))[0], sites.pop("ln_final", ("",))[0]
    parameters = {n: p for n, p in network.named_parameters() if p.is_floating_point()}
    check_values(parameters, name, SubjectError, "Check that the files of the model are whole.")
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
        context=longest_input(text, network),
        unembed=unembed if causal and head else "",
        final_norm=final_norm if causal else "",
        origin=origin,
        head=causal and head,
        beyond=beyond,
    )


def full_names(subject: LanguageSubject, names: Sequence[str]) -> tuple[str, ...]:
    """Expand short site names: `resid_post.3` -> `blocks.3.hook_resid_post`.

    Negative block numbers count from the end; raises UnknownSiteError if there is no such block.
    Other names are returned unchanged; `site_modules` checks whether they exist.
    """

    full = tuple(full_site(name, subject.sites, subject.layers) for name in names)
    for name in full:
        short = SHORT_SITE.fullmatch(name)
        if short and short[2] and not 1 <= int(short[3]) <= subject.layers:
            raise UnknownSiteError(
                f"a block counted from the end must be from -1 to -{subject.layers}, since "
                f"{subject.name} has {subject.layers} blocks; got {name!r} in --sites."
            )
    return full


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a model, named as in `language_subject`. Raises SubjectError."""
    with _files_of(model) as files:
        return _tokenizer(files)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokenizer as JSON, or of its vocabulary if it has no JSON form."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _files_of(model: str) -> Iterator[str]:
    """The folder that transformers loads a model from, or its name on the hub, within the body.
    The hub is not asked if the model is local."""
    if model.startswith(GLASS):
        with TemporaryDirectory(prefix="tendril-") as folder, offline():
            from .glass import write_packaged  # few models are packaged so

            write_packaged(model, Path(folder))
            yield folder
        return
    folder = _folder_of(model)
    with offline() if Path(folder).is_dir() else nullcontext():
        yield folder


def _folder_of(model: str) -> str:
    """The folder of a model, or its name on the hub. Resolves `package:NAME` to the folder inside
    an installed Python package. Raises SubjectError for a folder that does not exist."""
    if model.startswith(PACKAGE):
        return _packaged(model)
    if Path(model).is_dir():
        return model
    if Path(model).exists():
        raise SubjectError(
            f"--subject must be the folder of a language model; {model} is a file. Give the folder "
            "that holds config.json, the weights and the tokenizer."
        )
    if _is_path(model) or not HUB_NAME.fullmatch(model):
        raise SubjectError(
            f"--subject must be the folder of a language model or its name on the Hugging Face "
            f"hub; there is no folder {model}{_near(model)}. Check the name, or give a name on "
            "the hub as OWNER/NAME."
        )
    note(f"There is no folder {model} here, so it is taken as a name on the Hugging Face hub.")
    return model


def _is_path(model: str) -> bool:
    """True if a name that could be one on the hub must be a mistyped folder: its parent exists, or
    a model here has nearly the same name. False if the hub's cache has such a model."""
    if not HUB_NAME.fullmatch(model) or isinstance(
        try_to_load_from_cache(model, "config.json"), str
    ):
        return False
    return Path(model).parent.is_dir() if "/" in model else bool(_models_near(model, 0.8))


def _packaged(model: str) -> str:
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
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise SubjectError(
            f"--subject must be the folder of a language model; {model} has no config.json. "
            "Give the folder that holds the config and the weights."
        )
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # what a damaged config raises has no common type
        raise SubjectError(
            f"--subject must be the folder of a language model or its name on the Hugging Face "
            f"hub; {model!r} cannot be found, reached or read ({one_line(error)}). Check the name "
            "and its config.json."
        ) from error


def _near(model: str) -> str:
    """Names of models in the same folder that resemble the one requested."""
    near = _models_near(model, 0.3)
    return f"; near names in {Path(model).parent} are {', '.join(near)}" if near else ""


def _models_near(model: str, cutoff: float) -> list[str]:
    present = [p.parent.name for p in sorted(Path(model).parent.glob("*/config.json"))]
    return difflib.get_close_matches(Path(model).name, present, n=3, cutoff=cutoff)


def _is_causal(config: Any) -> bool:
    architecture = (config.architectures or [""])[0]
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    causal, masked = AutoModelForCausalLM._model_mapping, AutoModelForMaskedLM._model_mapping
    return type(config) in causal and type(config) not in masked


def _check_kind(config: Any, name: str, causal: bool) -> None:
    """Raise SubjectError unless a config is of a causal model or of an encoder of text."""
    of_text = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    paired = getattr(config, "is_encoder_decoder", False)
    if not paired and type(config) in of_text._model_mapping:
        return
    why = "for which transformers has neither a causal nor a masked language model"
    if paired:
        why = "which has an encoder and a decoder"
    elif any(hasattr(config, f"{sense}_config") for sense in ("vision", "audio")):
        why = "which reads images or sound beside text"
    architecture = (config.architectures or [type(config).__name__])[0]
    raise SubjectError(
        f"--subject must be a causal language model or an encoder of text; {name} is a "
        f"{architecture} ({config.model_type}), {why}. Choose a model such as gpt2, llama or bert."
    )


def _architecture(config: Any, causal: bool) -> str:
    """The class with a head that a config belongs to: for an encoder, that for masked tokens."""
    known: Any = (AutoModelForCausalLM if causal else AutoModelForMaskedLM)._model_mapping
    found = known[type(config)]
    kinds = [kind.__name__ for kind in (found if isinstance(found, tuple) else (found,))]
    own = [kind for kind in config.architectures or () if kind in kinds]
    return str((own or kinds)[0])


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        loaded = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        return cast(PreTrainedTokenizerBase, loaded)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise SubjectError(
            f"{model} has no tokenizer that can be loaded ({one_line(error)}). Put its "
            "tokenizer.json next to the weights."
        ) from error


def _network(kind: Any, model: str, compute: str) -> tuple[PreTrainedModel, bool]:
    """The network, without its head if its files have none; and whether it has all weights."""
    try:
        with silence():  # missing weights are checked below
            network, info = kind.from_pretrained(
                model,
                dtype=getattr(torch, compute),
                output_loading_info=True,
                trust_remote_code=False,
            )
    except ImportError as error:  # of the library that reads quantised weights
        raise SubjectError(
            f"{model} needs a package that is not installed ({one_line(error)}). Install it, or "
            "choose the model with weights that are not quantised."
        ) from error
    except Exception as error:  # what damaged weights raise has no common type
        raise SubjectError(
            f"the weights of {model} cannot be loaded ({one_line(error)}). Check that its files "
            "are complete."
        ) from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    head = network.get_output_embeddings()
    parts = {id(part) for part in head.parameters()} if head is not None else set()
    own = {name for name, part in network.named_parameters() if id(part) in parts}
    whole = not missing
    if missing and set(missing) <= own:
        network, missing = network.base_model, []
    if missing:
        raise SubjectError(
            f"{model} must have all weights of {type(network).__name__}; it has none for "
            f"{missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}. Check that "
            "its files are complete and belong to one model."
        )
    if hasattr(network, "pooler"):
        network.pooler = None  # it follows the last block, and often is untrained
    network.config.use_cache = False  # the key-value cache only helps generation, and costs a copy
    return cast(PreTrainedModel, network.eval().requires_grad_(False)), whole


def _tokens_beyond(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, model: str
) -> dict[int, str]:
    """The added tokens that the network has no embedding for, such as the image token in the
    tokenizer of Gemma 3. Raises SubjectError if there is none for an ordinary token."""
    beyond = {i: token for token, i in tokenizer.get_vocab().items() if i >= vocabulary}
    ordinary = beyond.keys() - tokenizer.added_tokens_decoder.keys()
    if ordinary:
        raise SubjectError(
            f"token ids of the tokenizer of {model} must be below the network's vocabulary of "
            f"{vocabulary}; got {max(ordinary)}. The tokenizer belongs to another model: replace "
            "its tokenizer.json."
        )
    return beyond
