"""The toy models of a sweep: trained, kept on disk, and trained on where they were stopped."""

import hashlib
import time
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tendril.data.cli import progress_bar
from tendril.data.errors import ConfigError
from tendril.data.home import home_folder
from tendril.data.store.atomic import write_whole
from tendril.data.store.spec import canonical_json

from ..measures.superposition import State, Toys, Training, start, train_toys
from .config import SuperpositionConfig

TOYS = "toys"
"""The folder beside reports/ where models are kept."""
VERSION = 1
"""Raised when the same settings would give other models."""
TRACED = 40
EVERY = 20.0
"""Seconds between two states on disk."""


def trained_sweep(config: SuperpositionConfig, seed: int) -> State:
    """The models of one seed: the clean ones of all densities, then the robust ones."""
    densities = config.densities()
    robust = (False,) * len(densities) + (True,) * len(densities)
    place = state_path(config, seed)
    state = read_state(place, densities * 2, robust)
    if state is None:
        state = start(config.features, config.hidden, densities * 2, robust, seed)
    if state.step == config.steps:
        return state
    training = Training(config.steps, config.attack, config.batch, config.lr)
    place.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(
        total=config.steps, initial=state.step, desc=f"seed {seed}", unit=" steps"
    ) as bar:
        written = time.monotonic()

        def tell(now: State) -> None:
            nonlocal written
            bar.update()
            if time.monotonic() - written > EVERY:
                write_state(place, now)
                written = time.monotonic()

        train_toys(state, training, seed, traced=traced_steps(config.steps), tell=tell)
    if not torch.isfinite(state.toys.W_MDF).all():
        place.unlink(missing_ok=True)
        raise ConfigError(
            f"--lr must be small enough for weights to stay finite; got {config.lr:g}, at which "
            "training diverged. Choose a smaller one; the default is 0.001."
        )
    write_state(place, state)
    return state


def traced_steps(steps: int) -> list[int]:
    """Steps, evenly spaced in their logarithm, at which features per dimension are kept."""
    first = min(100, steps)
    return sorted({round(first * (steps / first) ** (i / (TRACED - 1))) for i in range(TRACED)})


def state_path(config: SuperpositionConfig, seed: int) -> Path:
    """Where the models of one seed are kept. The name digests all that determines them."""
    about = {
        "version": VERSION,
        "densities": list(config.densities()),
        **{name: getattr(config, name) for name in ("features", "hidden", "attack", "steps")},
        **{"batch": config.batch, "lr": config.lr, "seed": seed},
    }
    digest = hashlib.sha256(canonical_json(about).encode()).hexdigest()[:12]
    return home_folder(config.home) / TOYS / f"superposition-{digest}.safetensors"


def write_state(path: Path, state: State) -> None:
    """Write models and the state of their training, in one step."""
    steps = torch.tensor([step for step, _ in state.trace], dtype=torch.int64)
    traced = torch.stack([f for _, f in state.trace]) if state.trace else torch.zeros(0)
    write_whole(
        path,
        save(
            {
                **{"W": state.toys.W_MDF, "b": state.toys.b_MF, **state.moments},
                **{"step": torch.tensor(state.step), "trace_steps": steps, "trace": traced},
            }
        ),
    )


def read_state(path: Path, densities: tuple[float, ...], robust: tuple[bool, ...]) -> State | None:
    """A state as it was written; None where there is none, or no whole one."""
    try:
        found = load(path.read_bytes())
        steps, traced = found["trace_steps"].tolist(), found["trace"]
        toys = Toys(found["W"], found["b"], torch.tensor(densities), robust)
        moments = {name: found[name] for name in ("m_W", "v_W", "m_b", "v_b")}
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return State(toys, moments, int(found["step"]), list(zip(steps, traced, strict=True)))
