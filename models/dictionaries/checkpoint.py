"""Dictionaries and runs on disk: safetensors and JSON, each file there whole or not at all.

<run>/config.json               all that was asked for, and what it was asked of
<run>/state.safetensors         where training stands, for resuming
<run>/metrics.csv               the training curves
<run>/evaluations.csv           figures on held-out vectors, with --eval-every
<run>/dictionary.safetensors    W_enc b_enc W_dec b_dec (threshold), for raw activations
<run>/latents.safetensors       frequency: the share of held-out vectors each latent fires on
<run>/result.json               figures, written last: the run is finished
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.home import RUN, find_run
from tendril.data.store.atomic import write_whole

from .sae import SAE, Stored
from .sae import described as described_sae

CONFIG, RESULT = "config.json", "result.json"
DICTIONARY, LATENTS, STATE = RUN.marker, "latents.safetensors", "state.safetensors"


def load_dictionary(run: str | Path, home: str | None = None) -> Stored:
    """The dictionary of a run, ready for use: `load_dictionary(run).encode(x)`.

    It takes raw activations of the run's site [n, D] (any normalisation of training is
    folded into the weights) and gives latents [n, S] in the same units; an orbit crosscoder
    takes orbits [n, G, D] and gives [n, F, G]. `run` is a folder, or a name that `find_run`
    knows. Raises RunNotFoundError and RunDamagedError.
    """
    folder = find_run(run, home)
    config = read_config(folder)
    if "dictionary" not in config:
        raise RunDamagedError(f"{folder / CONFIG} has no entry `dictionary`; train the run again.")
    dictionary = described(config["dictionary"])
    tensors, _ = read_tensors(folder / DICTIONARY)
    wanted = {name: tuple(p.shape) for name, p in dictionary.named_parameters()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    if got != wanted:
        raise RunDamagedError(
            f"{folder / DICTIONARY} should hold {wanted} after its {CONFIG}, and holds {got}; "
            "train the run again."
        )
    dictionary.load_state_dict(tensors)
    return dictionary.eval().requires_grad_(False)


def load_sae(run: str | Path, home: str | None = None) -> SAE:
    """The same where nothing but an SAE will do: latents that stand alone, read and written by
    matrices. Raises ConfigError for an orbit crosscoder too."""
    dictionary = load_dictionary(run, home)
    if not isinstance(dictionary, SAE):
        raise ConfigError(
            f"the run {str(run)!r} is an orbit crosscoder, whose latents are families of "
            f"{dictionary.row_shape[0]} copies, and an SAE or a crosscoder is wanted here; name "
            "another run."
        )
    return dictionary


def described(description: Mapping[str, Any]) -> Stored:
    """The dictionary of a description, its parameters zero."""
    if description.get("kind", "sae") == "orbit":
        from .equivariant import OrbitCrosscoder

        return OrbitCrosscoder.described(description)
    return described_sae(description)


def load_frequency(run: str | Path, home: str | None = None) -> Float[Tensor, " s"]:
    """The share of held-out vectors that each latent of a run fires on, from 0 to 1."""
    tensors, _ = read_tensors(find_run(run, home) / LATENTS)
    return tensors["frequency"]


def save_dictionary(
    run: Path,
    dictionary: Stored,
    config: Mapping[str, Any],
    frequency_S: Float[Tensor, " s"] | None = None,
) -> None:
    """Write a dictionary for raw activations and the config that it came from."""
    write_json(run / CONFIG, {**config, "dictionary": dictionary.description()})
    parameters = {name: p.detach() for name, p in dictionary.named_parameters()}
    write_tensors(run / DICTIONARY, parameters)
    if frequency_S is not None:
        write_tensors(run / LATENTS, {"frequency": frequency_S})


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run. Raises RunDamagedError."""
    return read_json(run / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises RunDamagedError where it is missing or none."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise RunDamagedError(f"{path} is missing; train the run again.") from error
    except ValueError as error:
        raise RunDamagedError(f"{path} is no JSON ({error}); train the run again.") from error
    if not isinstance(value, dict):
        raise RunDamagedError(f"{path} should hold a JSON object; train the run again.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, for programs and people."""
    write_whole(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any] | None = None
) -> None:
    """Tensors, and numbers that belong to them, in one file: one rename commits both."""
    content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_whole(path, save(content, metadata={"tendril": json.dumps(numbers or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises RunDamagedError where it is missing or cut short."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), json.loads(metadata.get("tendril", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunDamagedError(
            f"{path} cannot be read ({error}); remove the folder and train the run again."
        ) from error
