"""Any vision network as a subject: every dotted module name is a site."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from tendril.data import _torchvision  # noqa: F401  before a subject file imports torchvision
from tendril.data.errors import SubjectError, TendrilError

from ..dictionaries.checkpoint import check_values
from ..sites.dimensions import ELSE, NAMES, TOKENS, Tokens, declare_layout, find_tokens
from .subject import Subject, weights_digest
from .trust import file_digest, remember

_SUBJECT_FOLDERS: set[Path] = set()  # folders of the subject files loaded in this process


def subject_from_module(
    module: nn.Module,
    *,
    input_size: int = 224,
    preprocess: Callable[[Tensor], Tensor] = lambda rgb: rgb,
    name: str = "module",
    layout: Mapping[str, str] | None = None,
    prefix_tokens: Sequence[str] | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> Subject:
    """Make a subject of any network that takes images.

    `preprocess` turns RGB images [B, 3, H, W] in 0..1, squares of `input_size` pixels, into the
    input of the module; by default it changes nothing. Every dotted name of
    `module.named_modules()` is a site. The module is put in eval mode, float32, without
    gradients.

    `layout` maps a site to the order of the dimensions of its output, with one letter for each:
    `N` images, `C` channels, `H` and `W` rows and columns, `L` positions. `NHWC` is a map with
    the channels last, `LNC` a sequence whose second dimension is the batch. Without it the order
    is found from the module and the shape of its output.

    `prefix_tokens` are the tokens before the patches of a vision transformer, one word each:
    `["class"]`, or `["class", "register", "register"]`. `patch_size` is the side of a patch in
    pixels, or (height, width). Without them both are found where the network has the parameters of
    transformers, timm or torchvision.

    Raises SubjectError for parameters that are not finite, for layouts that are no layout, and for
    tokens and patches that are none.
    """
    module = module.eval().float().requires_grad_(False)
    digest = weights_digest(module)
    # Quantising libraries keep integers in modules of their own, and torch's do not.
    parameters = {
        f"{path}.{name}".removeprefix("."): parameter
        for path, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.is_floating_point() or type(part).__module__.startswith("torch.nn.")
    }
    check_values(parameters, name, SubjectError, "Load the weights of a trained network.")
    parts = dict(module.named_modules(remove_duplicate=False))
    names = [n for n in parts if n]
    for site, letters in (layout or {}).items():
        if site not in names:
            raise SubjectError(
                f"layout must name modules of the network; it has no module {site!r}. Choose a "
                "name from named_modules()."
            )
        declare_layout(parts[site], site, letters)
    declared: dict[str, Any] = {"layout": dict(sorted(layout.items()))} if layout else {}
    if prefix_tokens is not None or patch_size is not None:
        tokens = _declared_tokens(module, prefix_tokens, patch_size)
        module.__dict__[TOKENS] = tokens
        declared["declared_tokens"] = {"prefix": list(tokens.prefix), "patch": tokens.patch}
    return Subject(
        name=name,
        module=module,
        preprocess=preprocess,
        input_size=input_size,
        sites={n: (n,) for n in names},
        identity={"name": name, "weights": digest, "input_size": input_size} | declared,
    )


def _declared_tokens(
    module: nn.Module, prefix: Sequence[str] | None, patch: int | tuple[int, int] | None
) -> Tokens:
    """The tokens as declared; what is not declared is found."""
    found = find_tokens(module)
    if isinstance(prefix, str) or any(word not in (*NAMES, ELSE) for word in prefix or ()):
        raise SubjectError(
            f"prefix_tokens must be a list of {', '.join((*NAMES, ELSE))}, one word for each token "
            f'before the patches; got {prefix!r}. Give ["class"] for one class token.'
        )
    sides = (patch, patch) if isinstance(patch, int) else patch
    if sides is not None and (len(sides) != 2 or min(sides) < 1):
        raise SubjectError(
            f"patch_size must be a number of pixels of at least 1, or (height, width); got "
            f"{patch!r}. Give e.g. 16."
        )
    return Tokens(
        found.prefix if prefix is None else tuple(prefix),
        found.patch if sides is None else (sides[0], sides[1]),
    )


def subject_from_file(text: str) -> Subject:
    """The subject that `FILE.py:FUNCTION` names.

    The function takes no arguments and returns a Subject (see `subject_from_module`) or a plain
    module, whose input is then RGB in 0..1 of 224 pixels. The content of the file is part of the
    identity, since it holds the preprocessing, and so are the weights: a function that draws them
    must seed them. The file can import modules from its folder, as if it were run with
    `python FILE.py`. It is remembered as named by the user (see `trust`). Raises SubjectError.
    """
    file, _, function = text.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function or not path.is_file():
        raise SubjectError(
            "--subject must be inceptionv1, handmade, planted, planted-hard, planted-test, "
            "hf:NAME, timm:NAME, torchvision:NAME, a run of `tendril train classifier`, or "
            f"FILE.py:FUNCTION with a file that exists; got {text!r}."
        )
    digest = file_digest(path)
    made = _call(path, function)
    remember(path, digest)
    if isinstance(made, nn.Module):
        made = subject_from_module(made)
    if not isinstance(made, Subject):
        raise SubjectError(
            f"{function}() in {path} must return a torch.nn.Module or a Subject; got "
            f"{type(made).__name__}."
        )
    identity = {"name": f"{path.name}:{function}", "file": digest}
    made.module.eval().requires_grad_(False)
    return replace(
        made,
        name=function if made.name == "module" else made.name,
        identity={**made.identity, **identity, "weights": weights_digest(made.module)},
    )


def _call(path: Path, function: str) -> object:
    """What the function of a file returns. Raises SubjectError for whatever the file raises."""
    file = path.resolve()
    name = f"tendril_subject_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # dataclasses and the like look their module up
    try:
        with _imports_from(file.parent):
            spec.loader.exec_module(code)
            made = getattr(code, function, None)
            if not callable(made):
                have = [n for n, v in vars(code).items() if callable(v) and not n.startswith("_")]
                raise SubjectError(
                    f"{path} has no function {function!r}; it has {', '.join(have) or 'none'}."
                )
            return made()
    except TendrilError:
        raise
    except (Exception, SystemExit) as error:  # a subject file may raise anything
        raise SubjectError(
            f"{path}{_line(error, file)} could not be run: {type(error).__name__}: {error}. "
            "Correct the file, or install what it imports."
        ) from error


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Within the body, modules of `folder` are imported first, as when a file in it is run.

    Afterwards the folder stays on `sys.path`, at the end: a network that imports its own modules
    only when it is called still finds them, and no installed package is hidden by a folder that
    has its name, such as `datasets`.
    """
    place = str(folder)
    _forget_namesakes(folder)
    _SUBJECT_FOLDERS.add(folder)
    before = list(sys.path)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have changed sys.path
            sys.path.remove(place)
        if place not in before:
            sys.path.append(place)


def _forget_namesakes(folder: Path) -> None:
    """Drop imported modules of other subjects' folders whose names also occur in `folder`.

    Two repositories often have a package of one name (`models`); without this the second subject
    would be built from the modules of the first.
    """
    others = _SUBJECT_FOLDERS - {folder}
    for name, module in list(sys.modules.items()) if others else ():
        if "." in name or _folder_of(module) not in others:
            continue
        if PathFinder.find_spec(name, [str(folder)]):
            for inner in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                del sys.modules[inner]


def _folder_of(module: ModuleType) -> Path | None:
    """The folder that a top-level module or package lies in."""
    spec = getattr(module, "__spec__", None)
    places = list(getattr(spec, "submodule_search_locations", None) or ())
    place = places[0] if places else getattr(spec, "origin", None)
    return Path(place).parent if place else None


def _line(error: BaseException, path: Path) -> str:
    """The line of the file at which an error was raised, as ` (line 7)`."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""
