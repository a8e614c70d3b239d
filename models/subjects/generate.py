"""Text that a language model writes itself: what it knows best."""

import re
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.inputs.tokens import TokenSource

from .language import LanguageSubject, cut_for

SELF = "self"
TOGETHER = 64  # contexts written side by side, whoever asks for how many: rounding goes by it


def is_self(inputs: str) -> bool:
    """Whether inputs are what the subject writes: `self` or `self:SEED`."""
    return inputs == SELF or inputs.startswith(f"{SELF}:")


def written_by(
    subject: LanguageSubject, inputs: str, length: int, limit: int | None, device: torch.device
) -> TokenSource:
    """`limit` contexts drawn from a causal model's own distribution, from an empty beginning.

    Token t of context i is where the cumulated probabilities pass u(seed, i)[t], so that every
    context is a pure function of (weights, seed, i) and the rounding of the device. Raises
    ConfigError.
    """
    seed = inputs.removeprefix(SELF).removeprefix(":") or "0"
    if not re.fullmatch(r"\d+", seed):
        raise ConfigError(f"--inputs {SELF}:SEED wants a whole number, and got {seed!r}.")
    if limit is None:
        raise ConfigError(
            f"--inputs {inputs} has no end; say how many contexts with --limit, e.g. 1000."
        )
    cut = cut_for(subject, length)
    if subject.kind != "causal" or not cut.prefix:
        raise ConfigError(
            f"--inputs {inputs} wants a causal model whose texts begin with a token of their own, "
            f"and {subject.name} is none; give it a text."
        )

    def documents() -> Iterator[list[int]]:
        for first in range(0, limit, TOGETHER):
            drawn_BT = _write(subject, int(seed), range(first, first + TOGETHER), cut.body, device)
            yield from drawn_BT[: limit - first].tolist()

    key = {"self": dict(subject.identity), "seed": int(seed), "length": length}
    return TokenSource(key, inputs, documents)


@torch.inference_mode()
def _write(
    subject: LanguageSubject, seed: int, contexts: range, length: int, device: torch.device
) -> Int64[np.ndarray, "b t"]:
    """Contexts as the model draws them, without what begins them."""
    begin = cut_for(subject, length + 1).prefix
    uniform_BT = torch.from_numpy(np.stack([order.uniform(length, seed, i) for i in contexts]))
    uniform_BT = uniform_BT.to(device)
    module = subject.module.to(device)
    last_B1 = torch.tensor([begin] * len(contexts), device=device)
    past, drawn = None, []
    for position in range(length):
        done = module(last_B1, past_key_values=past, use_cache=True)
        past = done.past_key_values
        chances_BV = torch.softmax(done.logits[:, -1].double(), -1).cumsum(-1)
        wanted_B1 = uniform_BT[:, position : position + 1] * chances_BV[:, -1:]
        last_B1 = torch.searchsorted(chances_BV, wanted_B1).clamp_max(chances_BV.shape[1] - 1)
        drawn.append(last_B1)
    written: Int64[np.ndarray, "b t"] = torch.cat(drawn, 1).cpu().numpy()
    return written
