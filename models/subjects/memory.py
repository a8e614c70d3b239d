"""Networks that a Python program holds, under a name that `load_subject` takes."""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.store.spec import canonical_json, slug

from .module import subject_from_module
from .structure import from_no_file
from .subject import MEMORY, REMEMBERED, Subject

KEPT = 8  # networks that are remembered; the oldest is forgotten


def remember(
    module: Any,
    *,
    input_size: int | None = None,
    channels: int = 3,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    layout: Mapping[str, str] | None = None,
    prefix_tokens: Sequence[str] | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> tuple[str, Subject]:
    """Keep a copy of a network, and return the name by which `load_subject` finds it in this
    process, and the subject.

    Training the original goes on as if nothing had happened. `module` is a torch module, or what
    `subject_from_module` returns, which has settings of its own. A network whose first convolution
    takes one channel is given the first of three; `channels` says how many one without
    convolutions takes. Raises ConfigError and SubjectError.
    """
    settings: dict[str, Any] = {
        "preprocess": preprocess,
        "layout": layout,
        "prefix_tokens": prefix_tokens,
        "patch_size": patch_size,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if isinstance(module, Subject):
        if given:
            raise ConfigError(
                f"{', '.join(given)} must be left out for a Subject, which has settings of its "
                "own. Pass them to subject_from_module."
            )
        subject = from_no_file(_copied(module))
    else:
        if not isinstance(module, nn.Module):
            called = isinstance(module, type) and issubclass(module, nn.Module)
            got = f"the class {module.__name__}" if called else f"a {type(module).__name__}"
            raise ConfigError(
                f"module must be a torch.nn.Module, or the Subject of subject_from_module; got "
                f"{got}. Pass a network."
            )
        inner = getattr(module, "_orig_mod", module)  # of torch.compile
        if preprocess is None and _takes_one_channel(inner, channels):
            given["preprocess"] = first_channel
        name = type(inner).__name__
        made = subject_from_module(
            _copy_of((inner,), name)[0], input_size=input_size or 224, name=name, **given
        )
        subject = from_no_file(made)
    digest = hashlib.sha256(canonical_json(dict(subject.identity)).encode()).hexdigest()
    place = f"{MEMORY}{slug(subject.name)}-{digest[:12]}"
    _order.pop(place, None)
    _order[place] = None
    REMEMBERED[place] = lambda: replace(subject, module=subject.module.cpu())  # as from a file
    while len(_order) > KEPT:
        REMEMBERED.pop(_order.popitem(last=False)[0], None)
    return place, subject


_order: "OrderedDict[str, None]" = OrderedDict()


def first_channel(rgb: Tensor) -> Tensor:
    """The first of three channels, of images that are grey."""
    return rgb[:, :1]


def _takes_one_channel(module: nn.Module, channels: int) -> bool:
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return (channels if first is None else first.in_channels) == 1


def _copied(subject: Subject) -> Subject:
    module, unpadded = _copy_of((subject.module, subject.unpadded), subject.name)
    return replace(subject, module=module, unpadded=unpadded)


def _copy_of(modules: tuple[nn.Module | None, ...], name: str) -> tuple[Any, ...]:
    """Copies on the CPU of modules that may share weights."""
    try:
        copies = copy.deepcopy(modules)
    except (RuntimeError, TypeError, ValueError) as error:
        raise SubjectError(
            f"the network must be one that copy.deepcopy can copy; of {name} it cannot "
            f"({error}). Take tensors that are computed out of its attributes."
        ) from error
    return tuple(None if module is None else module.cpu() for module in copies)
