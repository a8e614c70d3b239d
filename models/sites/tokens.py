"""Subjects of which the patches, the class token or all tokens are read (see `find_tokens`)."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tendril.data.errors import ConfigError, SubjectError

from ..subjects.subject import OWN, Subject
from .dimensions import CLASS, ELSE, TOKENS, find_tokens, no_class_token, tokens_of
from .hooks import sequence_lengths

CHOICES = ("auto", "patches", "class", "all")


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
    """The subject, whose tokens are read as those of a stored identity were.

    A subject from a file has the identity of one that a program passed, where the stored one is
    of such a one.
    """
    if identity and OWN in identity:
        from ..subjects.structure import as_passed  # seldom used

        subject = as_passed(subject, identity)
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
