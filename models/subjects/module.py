"""Any torch.nn.Module as a subject: every dotted module name is a site."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from tendril.data import _torchvision  # noqa: F401  before a user's file imports torchvision
from tendril.data.errors import SubjectError, TendrilError

from .subject import Subject, weights_digest


def subject_from_module(
    module: nn.Module,
    *,
    input_size: int = 224,
    preprocess: Callable[[Tensor], Tensor] = lambda rgb: rgb,
    name: str = "module",
) -> Subject:
    """A subject of any network that takes images.

    `preprocess` turns RGB [B, 3, H, W] in 0..1 into what the module takes; by default they go
    in as they are. Every dotted name of `module.named_modules()` is a site.
    """
    module = module.eval().float().requires_grad_(False)
    names = [n for n, _ in module.named_modules(remove_duplicate=False) if n]
    return Subject(
        name=name,
        module=module,
        preprocess=preprocess,
        input_size=input_size,
        sites={n: (n,) for n in names},
        identity={"name": name, "weights": weights_digest(module), "input_size": input_size},
    )


def subject_from_file(text: str) -> Subject:
    """The subject that `FILE.py:FUNCTION` names.

    The function takes nothing and gives a Subject (see `subject_from_module`) or a plain
    module, which then gets RGB in 0..1 of 224 pixels. What the file says is part of the
    identity, since preprocessing is written there. Raises SubjectError.
    """
    file, _, function = text.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function or not path.is_file():
        raise SubjectError(
            "--subject wants inceptionv1, handmade, planted, or FILE.py:FUNCTION of a file that "
            f"is there, and got {text!r}."
        )
    made = _call(path, function)
    if isinstance(made, nn.Module):
        made = subject_from_module(made)
    if not isinstance(made, Subject):
        raise SubjectError(
            f"{function}() of {path} should give a Subject or a torch.nn.Module and gave a "
            f"{type(made).__name__}."
        )
    identity = {"name": f"{path.name}:{function}", "file": _digest(path)}
    made.module.eval().requires_grad_(False)
    return replace(
        made,
        name=function if made.name == "module" else made.name,
        identity={**made.identity, **identity, "weights": weights_digest(made.module)},
    )


def _call(path: Path, function: str) -> object:
    name = f"tendril_subject_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # dataclasses and the like look their module up
    sys.path.insert(0, str(path.parent))  # its neighbours can be imported, as when it is run
    try:
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
    except Exception as error:  # whatever somebody's file raises is told, with its kind
        raise SubjectError(
            f"{path}{_line(error, path)} could not be run: {type(error).__name__}: {error}; mend "
            "the file, or install what it needs."
        ) from error
    finally:
        sys.path.remove(str(path.parent))


def _line(error: Exception, path: Path) -> str:
    """Where in somebody's file it was raised, as ` (line 7)`."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
