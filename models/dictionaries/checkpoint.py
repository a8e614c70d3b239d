"""Dictionaries and runs on disk: safetensors and JSON. Each file is written whole or not at all.

<run>/config.json               the configuration, the store and the site, and a label for people
<run>/state.safetensors         the state of training, for resuming
<run>/metrics.csv               the training curves
<run>/evaluations.csv           figures on held-out vectors, with --eval-every
<run>/dictionary.safetensors    W_enc b_enc W_dec b_dec (threshold), for raw activations
<run>/latents.safetensors       frequency: the fraction of held-out vectors each latent fires on
<run>/result.json               figures, written last: the run is finished
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError, TendrilError
from tendril.data.home import RUN, find_run
from tendril.data.store.atomic import write_whole

from .sae import SAE, Stored
from .sae import described as described_sae

CONFIG, RESULT = "config.json", "result.json"
EQUIVARIANT = ("equivariant", "orbit")  # the kind of dictionary; runs before format 3 say orbit
DICTIONARY, LATENTS, STATE = RUN.marker, "latents.safetensors", "state.safetensors"


def load_dictionary(run: str | Path, home: str | None = None) -> Stored:
    """The dictionary of a run, ready for use: `load_dictionary(run).encode(x)`.

    It takes raw activations of the run's site [n, D] (the scaling of training is folded into the
    weights) and gives latents [n, S] in the same units. An equivariant group crosscoder takes
    orbits [n, G, D] and gives [n, F, G]. `run` is a folder, or a name that `find_run` resolves.
    Raises RunNotFoundError and RunDamagedError.
    """
    folder = find_run(run, home)
    config = read_config(folder)
    if "dictionary" not in config:
        raise RunDamagedError(f"{folder / CONFIG} has no entry `dictionary`. Train the run again.")
    dictionary = described(config["dictionary"])
    tensors, _ = read_tensors(folder / DICTIONARY)
    wanted = {name: tuple(p.shape) for name, p in dictionary.named_parameters()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    if got != wanted:
        raise RunDamagedError(
            f"{folder / DICTIONARY} must hold {wanted} according to its {CONFIG}; got {got}. Train "
            "the run again."
        )
    check_values(tensors, folder / DICTIONARY, RunDamagedError, "Train the run again.")
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


def load_frequency(run: str | Path, home: str | None = None) -> Float[Tensor, " s"]:
    """The fraction of held-out vectors that each latent of a run fires on."""
    tensors, _ = read_tensors(find_run(run, home) / LATENTS)
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
    """config.json of a run. Raises RunDamagedError."""
    return read_json(run / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises RunDamagedError if it is missing or something else."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise RunDamagedError(f"{path} is missing. Train the run again.") from error
    except ValueError as error:
        raise RunDamagedError(f"{path} must be JSON; got {error}. Train the run again.") from error
    if not isinstance(value, dict):
        raise RunDamagedError(f"{path} must hold a JSON object. Train the run again.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object to a file."""
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any] | None = None
) -> None:
    """Write tensors, and numbers that belong to them, to one file: one rename commits both."""
    content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_whole(path, save(content, metadata={"tendril": json.dumps(numbers or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote. Raises RunDamagedError if it is missing or truncated."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), json.loads(metadata.get("tendril", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunDamagedError(
            f"{path} cannot be read ({error}). Remove the folder and train the run again."
        ) from error
