"""What a network computes besides its weights, as a digest: for networks that come from no file."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import CellType, CodeType, FunctionType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

from .subject import OWN, Subject, weights_digest

PLAIN = (bool, int, float, str, bytes, NoneType, torch.dtype)


def structure_digest(module: nn.Module) -> str:
    """SHA-256 over the modules of a network: their names, classes, settings, code, and the buffers
    that are no part of the state dict.

    The code of a class is the bytecode of its methods, so that a class that is defined again with
    another `forward` counts as another one. Functions and plain values of its own module that a
    method names are included, those of other modules are not. The same code has other bytecode in
    another version of Python.
    """
    digest, usual = hashlib.sha256(), set(vars(nn.Module()))
    seen: set[int] = set()
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
            if kind is not object and kind.__module__.partition(".")[0] != "torch":
                _add_class(digest, kind, seen)
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


def _add_class(digest: Any, kind: type, seen: set[int]) -> None:
    for name, value in sorted(vars(kind).items()):
        for function in _functions(value):
            digest.update(f"{kind.__qualname__}.{name}:".encode())
            _add_function(digest, function, seen)


def _functions(value: object) -> Iterator[FunctionType]:
    """The functions of a method, a property, a class method or a static method."""
    for inner in (value, *(getattr(value, n, None) for n in ("__func__", "fget", "__wrapped__"))):
        if isinstance(inner, FunctionType):
            yield inner


def _add_function(digest: Any, function: FunctionType, seen: set[int]) -> None:
    """Add the code of a function, its defaults, what it closes over, and the functions and plain
    values of its own module that it names."""
    if id(function) in seen:
        return
    seen.add(id(function))
    _add_code(digest, function.__code__)
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells]
    named = sorted(set(_names(function.__code__)) & function.__globals__.keys())
    for value in (*values, *(function.__globals__[name] for name in named)):
        if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
            _add_function(digest, value, seen)
        elif _is_plain(value):
            digest.update(f"{value!r}:".encode())


def _is_full(cell: CellType) -> bool:
    """False for a variable that has no value yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _add_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    _add_constant(digest, code.co_consts)


def _add_constant(digest: Any, constant: object) -> None:
    if isinstance(constant, CodeType):
        _add_code(digest, constant)
    elif isinstance(constant, tuple):
        digest.update(f"({len(constant)}:".encode())
        for one in constant:
            _add_constant(digest, one)
    elif isinstance(constant, frozenset):  # whose order differs from process to process
        digest.update(repr(sorted(map(repr, constant))).encode())
    else:
        digest.update(f"{constant!r}:".encode())
