"""What a network computes besides its weights, as a digest: for networks that come from no file."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import CodeType, FunctionType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

from .subject import OWN, Subject, weights_digest

PLAIN = (bool, int, float, str, bytes, NoneType, torch.dtype)
NO_FILE = ("torch.", "torch")  # modules whose code belongs to the version of torch


def structure_digest(module: nn.Module) -> str:
    """SHA-256 over the modules of a network: their names, classes, settings, code, and the buffers
    that are no part of the state dict.

    The code of a class is the bytecode of its methods, so that a class that is defined again with
    another `forward` counts as another one. Functions outside of the classes do not enter, and the
    same code has other bytecode in another version of Python.
    """
    digest, usual = hashlib.sha256(), set(vars(nn.Module()))
    stored = module.state_dict().keys()
    for path, part in module.named_modules():
        digest.update(f"{path}:{type(part).__qualname__}:{part.extra_repr()}:".encode())
        for name, value in sorted(vars(part).items()):
            if name not in usual and _is_plain(value):
                digest.update(f"{name}={value!r}:".encode())
        for name, buffer in part.named_buffers(recurse=False):
            if f"{path}.{name}".removeprefix(".") not in stored:
                digest.update(f"{name}:{tensor_digest(buffer)}:".encode())
        for kind in type(part).__mro__:
            if not kind.__module__.startswith(NO_FILE) and kind is not object:
                _add_class(digest, kind)
    return digest.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of the values of a tensor, in hex."""
    holder = nn.Module()
    holder.register_buffer("values", tensor)
    return weights_digest(holder)


def preprocess_digest(preprocess: Callable[[Tensor], Tensor], size: int) -> str:
    """SHA-256 of what preprocessing makes of two images of noise; empty if it changes nothing."""
    noise_BCHW = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    made = preprocess(noise_BCHW.clone())
    return "" if torch.equal(made, noise_BCHW) else tensor_digest(made)


def from_no_file(subject: Subject, name: str = "") -> Subject:
    """The subject with the identity of one that a program passes: weights, structure and what its
    preprocessing does."""
    known = {k: v for k, v in subject.identity.items() if k in ("layout", "declared_tokens")}
    made = preprocess_digest(subject.preprocess, subject.input_size)
    identity = {
        "name": name or subject.name,
        "weights": weights_digest(subject.module),
        "input_size": subject.input_size,
        OWN: structure_digest(subject.module),
        **({"preprocess": made} if made else {}),
        **known,
    }
    return replace(subject, identity=identity)


def as_passed(subject: Subject, identity: Mapping[str, Any]) -> Subject:
    """A subject from a file with the identity of one that a program passes, where `identity` is
    that of such a one; else the subject as it is."""
    if OWN not in identity or OWN in subject.identity:
        return subject
    return from_no_file(subject, str(identity.get("name", "")))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)


def _add_class(digest: Any, kind: type) -> None:
    for name, value in sorted(vars(kind).items()):
        for function in _functions(value):
            digest.update(f"{kind.__qualname__}.{name}:".encode())
            _add_code(digest, function.__code__)


def _functions(value: object) -> Iterator[FunctionType]:
    """The functions of a method, a property, a class method or a static method."""
    for inner in (value, *(getattr(value, n, None) for n in ("__func__", "fget", "__wrapped__"))):
        if isinstance(inner, FunctionType):
            yield inner


def _add_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(f"{constant!r}:".encode())
