"""Record the activations of named sites with forward hooks, which are removed afterwards."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tendril.data.errors import SubjectError, TendrilError

from ..subjects.subject import Subject, site_modules
from .dimensions import check_batch, image_size, is_image, layout_of, standard, tokens_of

ALIKE = 1e-2  # allowed difference between an image alone and in a batch, over the largest value
INPUT = ":in"  # suffix of a module name: the site is the module's input instead of its output

Forward = Callable[..., dict[str, Tensor]]  # inputs, and further arguments of the network by name


class _Stop(BaseException):
    """Ends a forward pass once every site is recorded, or on an error.

    It derives from BaseException so that an `except Exception` in the network cannot catch it.
    """

    def __init__(self, error: SubjectError | None = None) -> None:
        self.error = error


@dataclass(frozen=True)
class SiteShape:
    """The width D of a site's vectors, and the (rows, columns) of its activation map."""

    width: int
    grid: tuple[int, int]


@contextmanager
def recording(
    module: nn.Module, sites: Mapping[str, tuple[str, ...]], *, all_tokens: bool = False
) -> Iterator[Forward]:
    """Context manager that yields `forward(x)`, which returns the activations at each site. Further
    arguments of `forward` go to the network by name.

    A site is the outputs of its modules, concatenated over channels; for a module marked `:in`, its
    first input. Activations of images are views in the layout [B, C, H, W], [B, T, D] or [B, D],
    whatever the module's own (see `layout_of`). Of a vision transformer whose tokens are told apart
    (`tokens_of`), the patches are a map [B, C, H, W], and the class token is [B, C]; with
    `all_tokens` they stay [B, T, D]. The forward pass stops after the last module needed. All but
    the last activation are copies, because a later in-place operation would change them. Gradients
    flow if they are enabled. Several threads may call `forward` at once. Calling the network itself
    inside the body runs it in full and records nothing. Hooks are removed on exit, also after an
    exception.

    Raises SubjectError if a module does not exist, is not called, or is called twice before the
    pass stops. `describe_sites` also detects modules that are called again after that point.
    """
    modules = _submodules(module, sites)
    assert modules, "a recording needs at least one site"
    passes = threading.local()  # activations of this thread's pass; None outside `forward`

    def record(name: str, acts: object) -> None:
        seen: dict[str, Tensor] | None = getattr(passes, "seen", None)
        if seen is None:
            return
        if name in seen:
            raise _Stop(SubjectError(called_often(name, "twice or more")))
        tensor = _first_tensor(name, acts)
        last = len(seen) + 1 == len(modules)
        seen[name] = tensor if last else tensor.clone()
        if last:
            raise _Stop

    def forward(x: Tensor, **named: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        passes.seen = seen
        try:
            module(x, **named)
        except _Stop as stop:
            if stop.error:
                raise stop.error from None
            if is_image(x):
                image = image_size(x)
                for name, acts in seen.items():
                    layout = layout_of(name, modules[name], module, acts.shape, image)
                    seen[name] = acts = standard(acts, layout)
                    if acts.ndim == 3 and not all_tokens:
                        seen[name] = tokens_of(module).kept(name, acts, image)
            return {site: _join([seen[name] for name in names]) for site, names in sites.items()}
        else:
            uncalled = next(name for name in modules if name not in seen)
            raise SubjectError(never_called(uncalled))
        finally:
            passes.seen = None

    handles = []
    try:
        for name, submodule in modules.items():
            handles.append(_add_hook(name, submodule, record))
        yield forward
    finally:
        for handle in handles:
            handle.remove()


def _add_hook(
    name: str, module: nn.Module, record: Callable[[str, object], None]
) -> RemovableHandle:
    """Hook the output of a module, or its input if the name is marked `:in`."""
    if not name.endswith(INPUT):
        return module.register_forward_hook(lambda _module, _inputs, output: record(name, output))

    def before(_module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        record(name, inputs or tuple(named.values()))

    return module.register_forward_pre_hook(before, with_kwargs=True)


@torch.no_grad()
def describe_sites(subject: Subject, names: Sequence[str]) -> dict[str, SiteShape]:
    """Width and grid of each site, from full forward passes over two images of noise, first
    alone and then as one batch.

    Raises UnknownSiteError, and SubjectError if the network fails on these images, does not call
    a module exactly once (a ReLU that a block uses twice has no single activation), if no
    dimension of the activations is the batch (see `check_batch`), or if the activations of an
    image change with the other images of its batch.
    """
    sites = site_modules(subject, names)
    modules = _submodules(subject.module, sites)
    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    shape = (2, 3, subject.input_size, subject.input_size)
    noise_BCHW = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    first, x = module_outputs(subject, modules, noise_BCHW[:1])
    second, _ = module_outputs(subject, modules, noise_BCHW[1:])
    both, _ = module_outputs(subject, modules, noise_BCHW)
    shapes: dict[str, Tensor] = {}
    for name, part in modules.items():
        check_batch(name, part, first[name].shape, both[name].shape)
        layout = layout_of(name, part, subject.module, both[name].shape, image_size(x))
        shapes[name] = standard(first[name], layout)
        alone = torch.cat([shapes[name], standard(second[name], layout)])
        _check_alike(name, alone, standard(both[name], layout))
        if shapes[name].ndim == 3:
            shapes[name] = tokens_of(subject.module).kept(name, shapes[name], image_size(x))
    grids = {s: as_grid(_join([shapes[name] for name in names])) for s, names in sites.items()}
    return {s: SiteShape(g.shape[3], (g.shape[1], g.shape[2])) for s, g in grids.items()}


@torch.no_grad()
def sequence_lengths(
    subject: Subject, names: Sequence[str]
) -> tuple[dict[str, int], Sequence[int]]:
    """The number of tokens at each site whose output is a sequence [B, L, C], from one image of
    noise, and the (height, width) of the network's input.

    Modules whose layout cannot be told are left out: `describe_sites` refuses them. Raises
    UnknownSiteError, and SubjectError as `describe_sites` does.
    """
    sites = site_modules(subject, names)
    modules = _submodules(subject.module, sites)
    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    shape = (1, 3, subject.input_size, subject.input_size)
    noise_BCHW = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    outputs, x = module_outputs(subject, modules, noise_BCHW)
    lengths: dict[str, int] = {}
    for name, acts in outputs.items():
        if acts.ndim != 3 or not is_image(x):
            continue
        with suppress(SubjectError):
            layout = layout_of(name, modules[name], subject.module, acts.shape, image_size(x))
            lengths[name] = standard(acts, layout).shape[1]
    parts = {site: next((n for n in names if n in lengths), "") for site, names in sites.items()}
    found = {site: lengths[name] for site, name in parts.items() if name}
    return found, image_size(x)


def module_outputs(
    subject: Subject, modules: Mapping[str, nn.Module], rgb_BCHW: Float[Tensor, "b 3 h w"]
) -> tuple[dict[str, Tensor], Tensor]:
    """The output of each module as the module returns it, from one full pass, and the network's
    input. Raises SubjectError."""
    calls: Counter[str] = Counter()
    outputs: dict[str, Tensor] = {}

    def record(name: str, acts: object) -> None:
        calls[name] += 1
        outputs[name] = _first_tensor(name, acts).clone()

    handles = []
    try:
        for name, submodule in modules.items():
            handles.append(_add_hook(name, submodule, record))
        x = subject.preprocess(rgb_BCHW)
        subject.module(x)
    except TendrilError:
        raise
    except Exception as error:  # a user's network may raise anything
        images = "an image" if len(rgb_BCHW) == 1 else f"a batch of {len(rgb_BCHW)} images"
        raise SubjectError(
            f"{subject.name} fails on {images} of {subject.input_size} pixels "
            f"({type(error).__name__}: {str(error)[:200]}). Give its input size and preprocessing "
            "with subject_from_module(module, input_size=..., preprocess=...)."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for name in modules:
        if calls[name] == 0:
            raise SubjectError(never_called(name))
        if calls[name] > 1:
            raise SubjectError(called_often(name, f"{calls[name]} times"))
    return outputs, x


def _check_alike(name: str, alone: Tensor, batched: Tensor) -> None:
    """Raise SubjectError if two images give other activations alone than as one batch."""
    alone, batched = (acts.cpu().double().nan_to_num() for acts in (alone, batched))
    error = (alone - batched).abs().max()
    if error > ALIKE * alone.abs().max():
        raise SubjectError(
            f"the activations of an image at {name!r} must not depend on the other images of its "
            f"batch; alone and in a batch of two they differ by {float(error):.3g}, at values of "
            f"up to {float(alone.abs().max()):.3g}. Choose another site, or make the network "
            "deterministic."
        )


def as_grid(acts: Float[Tensor, "b ..."]) -> Float[Tensor, "b h w d"]:
    """View activations as a map of vectors [B, H, W, D], without copying.

    Maps [B, C, H, W] become [B, H, W, C], tokens [B, T, D] become [B, T, 1, D], and one vector
    per input [B, D] becomes [B, 1, 1, D]. Raises SubjectError for other shapes.
    """
    if acts.ndim == 4:
        return acts.permute(0, 2, 3, 1)
    if acts.ndim == 3:
        return acts[:, :, None, :]
    if acts.ndim == 2:
        return acts[:, None, None, :]
    raise SubjectError(
        "activations at a site must have shape [B, C, H, W], [B, T, D] or [B, D]; got "
        f"{list(acts.shape)}. Choose another site."
    )


def _submodules(module: nn.Module, sites: Mapping[str, tuple[str, ...]]) -> dict[str, nn.Module]:
    unique = dict.fromkeys(name for names in sites.values() for name in names)
    modules = dict(module.named_modules(remove_duplicate=False))
    missing = [name for name in unique if name.removesuffix(INPUT) not in modules]
    if missing:
        raise SubjectError(
            f"the network has no module {missing[0]!r}. Choose a name from named_modules()."
        )
    return {name: modules[name.removesuffix(INPUT)] for name in unique}


def _first_tensor(name: str, output: object) -> Tensor:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise SubjectError(
            f"the output of module {name!r} must be a tensor; got a {type(output).__name__}. "
            "Choose another site."
        )
    return output


def _join(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), dim=-1 if parts[0].ndim == 3 else 1)  # tokens are [B, T, D]


def never_called(name: str) -> str:
    return f"module {name!r} is not called in a forward pass. Choose another site."


def called_often(name: str, count: str) -> str:
    block = name.rpartition(".")[0]
    return (
        f"module {name!r} is called {count} in one forward pass, so it has no single activation. "
        f"Choose {f'its block {block!r}' if block else 'another site'} instead."
    )
