"""Which tokens of a vision transformer are patches, and which are class, distillation or register
tokens: declared, or found from the network's parameters and its patch embedding."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from tendril.data.errors import ConfigError, SubjectError

from ..subjects.subject import Subject
from .dimensions import CLASS, TOKENS, Tokens, no_class_token, tokens_of
from .hooks import sequence_lengths

# Names of parameters that hold learned tokens, in the order in which the tokens come.
NAMES = {
    CLASS: ("cls_token", "class_token", "class_embedding", "cls", "cls_embed", "cls_embedding"),
    "distillation": ("distillation_token", "dist_token"),
    "register": ("register_tokens", "register_token", "registers", "reg_token", "reg_tokens"),
}
ELSE = "other"  # a prefix token whose kind is not known
CHOICES = ("auto", "patches", "class", "all")


def find_tokens(module: nn.Module) -> Tokens:
    """The tokens of a network: those declared, or those found.

    Prefix tokens are parameters with the names that transformers, timm and torchvision give them
    (NAMES); timm's `num_prefix_tokens` settles their number. The patch is the kernel of the
    convolution over RGB whose stride is as large as its kernel. Networks with two such
    convolutions that differ have no known patch.
    """
    declared = module.__dict__.get(TOKENS)
    if isinstance(declared, Tokens):
        return declared
    prefix: list[str] = []
    for kind, names in NAMES.items():
        counts = {
            parameter.numel() // parameter.shape[-1]
            for path, parameter in module.named_parameters()
            if path.rpartition(".")[2] in names and parameter.ndim and parameter.numel()
        }
        prefix += [kind] * (counts.pop() if len(counts) == 1 else 0)
    told = {n for m in module.modules() if isinstance(n := _prefix_count(m), int)}
    if len(told) == 1:
        count = told.pop()
        prefix = (prefix + [ELSE] * count)[:count]
    patches = {
        (int(m.kernel_size[0]), int(m.kernel_size[1]))
        for m in module.modules()
        if isinstance(m, nn.Conv2d)
        and m.in_channels == 3
        and m.kernel_size == m.stride
        and min(m.kernel_size) > 1
    }
    return Tokens(tuple(prefix), patches.pop() if len(patches) == 1 else None)


def _prefix_count(module: nn.Module) -> object:
    """timm's number of tokens before the patches."""
    return getattr(module, "num_prefix_tokens", None)


def with_tokens(subject: Subject, choice: str, sites: Sequence[str]) -> Subject:
    """The subject whose token sequences are read as `choice` says: "patches", "class", "all", or
    "auto", which is "patches" where they are known at all of the `sites`.

    Sites that are no sequences, such as the maps of a convolutional network, are read as ever, and
    the identity of a subject without sequences stays as it is. Raises ConfigError for an unknown
    choice or a class token where there are no tokens, SubjectError where the tokens cannot be told
    apart, and what `describe_sites` raises.
    """
    if choice not in CHOICES:
        raise ConfigError(f"--tokens must be one of {', '.join(CHOICES)}; got {choice!r}.")
    if choice == "all":
        return reading(subject, "all")
    lengths, image = sequence_lengths(reading(subject, "all"), sites)
    if not lengths:
        if choice == CLASS:
            raise ConfigError(
                f"--tokens class needs a site of tokens; {', '.join(sites)} of {subject.name} have "
                "none. Leave --tokens out."
            )
        return subject
    tokens = find_tokens(subject.module)
    for site, length in lengths.items():
        found = tokens.split(length, image)
        if found is None and choice == "auto":
            return reading(subject, "all")
        if choice == CLASS and (CLASS not in tokens.prefix or not (found and found[0])):
            raise SubjectError(no_class_token(site, length))
        if found is None:
            raise SubjectError(tokens.unknown(site, length, image))
    return reading(subject, "patches" if choice == "auto" else choice)


def as_identified(subject: Subject, identity: Mapping[str, Any] | None) -> Subject:
    """The subject, whose tokens are read as those of a stored identity were."""
    told = (identity or {}).get("tokens", {})
    return reading(subject, told.get("keep", "all") if isinstance(told, Mapping) else "all")


def reading(subject: Subject, keep: str) -> Subject:
    """The subject with a copy of its network, of shared parts, that reads `keep` of its tokens.

    All that decides which tokens are read becomes a part of the identity; for "all" there is
    nothing to decide.
    """
    found, identity = find_tokens(subject.module), dict(subject.identity)
    identity.pop("tokens", None)
    if keep != "all":
        patch = list(found.patch) if found.patch else None
        identity["tokens"] = {"keep": keep, "prefix": list(found.prefix), "patch": patch}
    if tokens_of(subject.module).keep == keep:
        return replace(subject, identity=identity)
    module = copy.copy(subject.module)  # two subjects may read one network in two ways
    module.__dict__[TOKENS] = replace(found, keep=keep)
    return replace(subject, module=module, identity=identity)


def has_tokens(subject: Subject, site: str) -> bool:
    """True if a site holds a sequence of more than one token, whichever of them are read."""
    return sequence_lengths(subject, [site])[0].get(site, 0) > 1


def other_tokens(subject: Subject) -> str:
    """The tokens of a network that are not patches, in words, e.g. `a class token and 4 registers`;
    empty if there are none."""
    prefix = find_tokens(subject.module).prefix
    words = []
    for kind in dict.fromkeys(prefix):
        count = prefix.count(kind)
        noun = {"register": "register"}.get(kind, f"{kind} token")
        words.append(f"{count} {noun}s" if count > 1 else f"{'an' if kind == ELSE else 'a'} {noun}")
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
