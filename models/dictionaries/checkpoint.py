"""Dictionaries and runs on disk: safetensors and JSON. Each file is written whole or not at all.

<run>/config.json               the configuration, the store and the site, and a label for people
<run>/state.safetensors         the state of training, for resuming
<run>/metrics.csv               the training curves
<run>/evaluations.csv           figures on held-out vectors, with --eval-every
<run>/dictionary.safetensors    W_enc b_enc W_dec b_dec (threshold), for raw activations
<run>/latents.safetensors       frequency: the fraction of held-out vectors each latent fires on
<run>/result.json               figures, written last: the run is finished

result.json holds the digests of the other files and of itself, and a state that of its tensors, so
that no altered file is used. Runs of earlier versions have no digests; of their files only form and
shapes can be checked.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Required, TypedDict, Union, get_args, get_origin, get_type_hints

import torch
import xxhash
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from tendril.data.errors import (
    ConfigError,
    MissingEntryError,
    RunDamagedError,
    TendrilError,
    is_out_of_memory,
)
from tendril.data.home import RUN, find_run
from tendril.data.store.atomic import changed_file, sealed, unsealed, write_whole

from .sae import SAE, Stored
from .sae import described as described_sae
from .sparsity import SparsityName

CONFIG, RESULT = "config.json", "result.json"
EQUIVARIANT = ("equivariant", "orbit")  # the kind of dictionary; runs before format 3 say orbit
DICTIONARY, LATENTS, STATE = RUN.marker, "latents.safetensors", "state.safetensors"
NUMBERS, DIGEST = "tendril", "digest"  # metadata of a safetensors file
SMALL = 2**20  # numbers of a matrix that can be made whatever the file holds
AGAIN = "Train the run again, with --overwrite."


class RunFields(TypedDict, total=False):
    """The entries of config.json that are read, and their types."""

    dictionary: Required[dict[str, Any]]
    label: str
    objective: str
    site: str | None
    sites: dict[str, int] | list[str] | None
    store: str
    store_path: str
    paired_store: str | None
    paired_store_path: str | None
    paired_sites: list[str] | None
    subject: dict[str, Any] | None
    group: dict[str, int | bool] | None
    grid: list[int] | None
    scales: dict[str, float] | None
    width: int
    latents: int
    families: int
    steps: int
    seed: int
    k: int
    l0: float
    l1: float
    target_l0: float
    held_out: float
    orbits: str | None
    control: str | None


class GroupFields(TypedDict):
    """The entries of `group` in config.json."""

    rotations: int
    reflections: bool


Parts = TypedDict("Parts", {"parts": int, "residual": bool}, total=False)  # noqa: UP013  short


class SAEFields(Parts):
    """The entries of `dictionary` in config.json for an SAE."""

    width: int
    latents: int
    sparsity: SparsityName
    k: int
    pre_bias: bool


class EquivariantFields(TypedDict):
    """The entries of `dictionary` in config.json for an equivariant group crosscoder."""

    rotations: int
    reflections: bool
    width: int
    families: int
    k: int
    poses: str
    side: str


class JsonObject(dict[str, Any]):
    """A JSON object of a run. Reading an entry that is missing raises RunDamagedError."""

    source = "config.json"

    def __missing__(self, name: str) -> Any:
        raise MissingEntryError(f"{self.source} must have the entry {name!r}; it has none. {AGAIN}")


def load_dictionary(run: str | Path, home: str | None = None) -> Stored:
    """The dictionary of a run, ready for use: `load_dictionary(run).encode(x)`.

    It takes raw activations of the run's site [n, D] (the scaling of training is folded into the
    weights) and gives latents [n, S] in the same units. An equivariant group crosscoder takes
    orbits [n, G, D] and gives [n, F, G]. `run` is a folder, or a name that `find_run` resolves.
    Raises RunNotFoundError and RunDamagedError.
    """
    folder = find_run(run, home)
    description = read_config(folder)["dictionary"]
    check_files(folder, DICTIONARY)
    tensors, _ = read_tensors(folder / DICTIONARY)
    dictionary = _built(description, tensors, folder / CONFIG)
    wanted = {name: tuple(p.shape) for name, p in dictionary.named_parameters()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    if got != wanted:
        raise RunDamagedError(
            f"{folder / DICTIONARY} must hold {wanted} according to its {CONFIG}; got {got}. "
            f"{AGAIN}"
        )
    check_values(tensors, folder / DICTIONARY, RunDamagedError, AGAIN)
    dictionary.load_state_dict(tensors)
    return dictionary.eval().requires_grad_(False)


def check_values(
    tensors: Mapping[str, Tensor], source: object, error: type[TendrilError], remedy: str
) -> None:
    """Raise `error`, with the tensor's name, unless all tensors are real, floating and finite.

    Integers, booleans and complex numbers would be cast in silence; NaN and infinities would
    spread into every result.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise error(
                f"the tensor {name} in {source} must hold floating-point numbers; got "
                f"{str(tensor.dtype).removeprefix('torch.')}. {remedy}"
            )
        bad = tensor.numel() - int(torch.isfinite(tensor.float()).sum())
        if bad:
            raise error(
                f"the tensor {name} in {source} must be finite; got {bad:,} of {tensor.numel():,} "
                f"values that are NaN or infinite. {remedy}"
            )


def load_sae(run: str | Path, home: str | None = None) -> SAE:
    """The dictionary of a run that must be an SAE, i.e. have latents that stand alone.

    Raises what `load_dictionary` raises, and ConfigError for an equivariant group crosscoder.
    """
    dictionary = load_dictionary(run, home)
    if not isinstance(dictionary, SAE):
        raise ConfigError(
            f"the run must be an SAE or a crosscoder; {str(run)!r} is an equivariant group "
            f"crosscoder, whose latents are families of {dictionary.row_shape[0]} copies. Name "
            "another run."
        )
    return dictionary


def described(description: Mapping[str, Any]) -> Stored:
    """The dictionary of a description, with zero parameters."""
    if description.get("kind", "sae") in EQUIVARIANT:
        from .equivariant import EquivariantCrosscoder  # not needed for an SAE

        return EquivariantCrosscoder.described(description)
    return described_sae(description)


def _built(description: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> Stored:
    """The dictionary of a description in config.json. Raises RunDamagedError if it cannot be built,
    or would hold more numbers than `tensors`."""
    equivariant = description.get("kind", "sae") in EQUIVARIANT
    schema = EquivariantFields if equivariant else SAEFields
    check_fields(description, schema, source, "dictionary.")
    size = description["families"] * description["rotations"] if equivariant else 0
    needed = description["width"] * (size or description["latents"])
    present = sum(tensor.numel() for tensor in tensors.values())
    if not 0 < needed <= max(present, SMALL):  # before memory is asked for
        raise RunDamagedError(
            f"{source} describes matrices of {needed:,} numbers; {DICTIONARY} holds {present:,} in "
            f"all. {AGAIN}"
        )
    try:
        return described(description)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise RunDamagedError(
            f"{source} describes a dictionary that cannot be built ({error}). {AGAIN}"
        ) from error


def load_frequency(run: str | Path, home: str | None = None) -> Float[Tensor, " s"]:
    """The fraction of held-out vectors that each latent of a run fires on."""
    folder = find_run(run, home)
    check_files(folder, LATENTS)
    tensors, _ = read_tensors(folder / LATENTS)
    check_values(tensors, folder / LATENTS, RunDamagedError, AGAIN)
    if "frequency" not in tensors or tensors["frequency"].ndim != 1:
        raise RunDamagedError(f"{folder / LATENTS} must hold a vector `frequency`. {AGAIN}")
    return tensors["frequency"]


def save_dictionary(
    run: Path,
    dictionary: Stored,
    config: Mapping[str, Any],
    frequency_S: Float[Tensor, " s"] | None = None,
) -> None:
    """Write a dictionary for raw activations, and its config."""
    write_json(run / CONFIG, {**config, "dictionary": dictionary.description()})
    parameters = {name: p.detach() for name, p in dictionary.named_parameters()}
    write_tensors(run / DICTIONARY, parameters)
    if frequency_S is not None:
        write_tensors(run / LATENTS, {"frequency": frequency_S})


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run. Raises RunDamagedError; so does reading an entry that is missing."""
    check_files(run, CONFIG)
    config = read_json(run / CONFIG)
    check_fields(config, RunFields, run / CONFIG)
    if config.get("group"):
        check_fields(config["group"], GroupFields, run / CONFIG, "group.")
    return config


def read_figures(run: Path) -> dict[str, Any]:
    """result.json of a finished run, without digests. Raises RunDamagedError."""
    return _result(run)[0]


def check_files(run: Path, *names: str) -> None:
    """Raise RunDamagedError if a file differs from its digest in result.json; by default, any file
    but the state, which a finished run does not use.

    Nothing is known of the files of an unfinished run, or of one of an earlier version.
    """
    if not (run / RESULT).is_file():
        return
    digests = _result(run)[1]
    chosen = {n: d for n, d in digests.items() if (n in names if names else n != STATE)}
    if fault := changed_file(run, chosen):
        raise RunDamagedError(f"{fault}. {AGAIN}")


def write_figures(run: Path, figures: Mapping[str, Any], names: Iterable[str]) -> None:
    """Write result.json, which marks the run as finished, with the digests of those files of the
    run that are there."""
    files = [run / name for name in names if (run / name).is_file()]
    write_whole(run / RESULT, sealed(figures, files, run))


def _result(run: Path) -> tuple[dict[str, Any], dict[str, str]]:
    value = read_json(run / RESULT)
    try:
        figures, digests = unsealed(dict(value))
    except ValueError as error:
        raise RunDamagedError(f"{run / RESULT} is damaged: {error}. {AGAIN}") from error
    kept = JsonObject(figures)
    kept.source = str(run / RESULT)
    return kept, digests


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises RunDamagedError if it is missing or something else; so does
    reading an entry that is missing."""

    def noted(entries: dict[str, Any]) -> JsonObject:
        found = JsonObject(entries)
        found.source = str(path)
        return found

    try:
        value = json.loads(path.read_bytes(), object_hook=noted)
    except FileNotFoundError as error:
        raise RunDamagedError(f"{path} is missing. {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise RunDamagedError(f"{path} must be JSON; got {error}. {AGAIN}") from error
    if not isinstance(value, dict):
        raise RunDamagedError(f"{path} must hold a JSON object. {AGAIN}")
    return value


def check_fields(
    value: Mapping[str, Any], schema: type, source: Path, prefix: str = "", but: Iterable[str] = ()
) -> None:
    """Raise RunDamagedError unless a JSON object has the required entries of a TypedDict or
    dataclass, and all entries that it knows are of their types. Those in `but` are not stored."""
    required = set(getattr(schema, "__required_keys__", ()))
    if is_dataclass(schema):
        required = {f.name for f in fields(schema) if f.default is f.default_factory is MISSING}
    for name, kind in get_type_hints(schema).items():
        if name in value and name not in but and not fits(value[name], kind):
            raise RunDamagedError(
                f"{prefix}{name} in {source} must be {in_words(kind)}; got "
                f"{json.dumps(value[name])[:60]}. {AGAIN}"
            )
        if name not in value and name in required.difference(but):
            raise RunDamagedError(f"{source} must have the entry {prefix}{name}. {AGAIN}")


def fits(value: object, kind: Any) -> bool:
    """True if a JSON value is of a type, e.g. `list[int] | None`. Integers are floats, too."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (kind is float and isinstance(value, float))
    return isinstance(value, kind)


def in_words(kind: Any) -> str:
    """A type as an error message says it, e.g. `a list or null`."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words |= {NoneType: "null", list: "a list", dict: "an object"}
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(in_words(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    inner = get_args(kind)[-1:] if get_origin(kind) in (list, dict) else ()
    plain = words.get(get_origin(kind) or kind, str(kind))
    return f"{plain} of {in_words(inner[0])}" if inner and inner[0] is not Any else plain


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object to a file."""
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any] | None = None
) -> None:
    """Write tensors, and numbers that belong to them, to one file: one rename commits both. With
    numbers, a digest of all of it comes along."""
    content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {NUMBERS: json.dumps(numbers or {})}
    if numbers:
        metadata[DIGEST] = _digest(content, metadata[NUMBERS])
    write_whole(path, save(content, metadata=metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote. Raises RunDamagedError if it is missing, truncated or
    altered."""
    try:
        path.open("rb").close()  # safetensors says of any file that it cannot open, it is missing
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors, numbers = load_file(path), json.loads(metadata.get(NUMBERS, "{}"))
    except (SafetensorError, FileNotFoundError, ValueError, RecursionError) as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise RunDamagedError(f"{path} cannot be read ({error}). {AGAIN}") from error
    digest = metadata.get(DIGEST)
    altered = digest is not None and digest != _digest(tensors, metadata.get(NUMBERS, ""))
    if altered or not isinstance(numbers, dict) or metadata.keys() - {NUMBERS, DIGEST, "format"}:
        raise RunDamagedError(f"{path} has changed: its digest differs. {AGAIN}")
    return tensors, numbers


def _digest(tensors: Mapping[str, Tensor], numbers: str) -> str:
    digest = xxhash.xxh3_128(numbers.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
