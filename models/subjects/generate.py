"""Text sampled from a causal language model itself, as inputs for harvesting it."""

import re
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.tokens import TokenSource

from .language import LanguageSubject
from .tokenise import cut_for, tokens_of

SELF = "self"
BATCH = 64  # contexts sampled together, always the same number because it affects rounding


def is_self(inputs: str) -> bool:
    """True if `inputs` is `self` or `self:SEED`: text that the subject generates."""
    return inputs == SELF or inputs.startswith(f"{SELF}:")


def written_by(
    subject: LanguageSubject, inputs: str, length: int, limit: int | None, device: torch.device
) -> TokenSource:
    """`limit` contexts sampled at temperature 1 from a causal model, without a prompt.

    They begin after the begin-of-text token, or, of a model without one, after a line break.

    Token t of context i is the first one whose cumulative probability reaches u(seed, i)[t], a
    uniform number. Each context is thus a pure function of (weights, seed, i), up to the rounding
    of the device. `length` is the context length in tokens, including special tokens. Raises
    ConfigError for a malformed seed, a missing limit or a model that cannot generate.
    """
    seed = inputs.removeprefix(SELF).removeprefix(":") or "0"
    if not re.fullmatch(r"\d+", seed):
        raise ConfigError(
            f"SEED in --inputs {SELF}:SEED must be an integer of at least 0; got {seed!r}."
        )
    if limit is None:
        raise ConfigError(
            f"--inputs {inputs} has no end. Give the number of contexts with --limit, e.g. 1000."
        )
    cut = cut_for(subject, length)
    if not (subject.kind == "causal" and subject.head and _prefix(subject, cut)):
        raise ConfigError(
            f"--inputs {inputs} needs a causal model with its head and a begin-of-text token or a "
            f"token for a line break; {subject.name} is not one. Pass --inputs with a text."
        )

    def documents() -> Iterator[list[int]]:
        for first in range(0, limit, BATCH):
            tokens_BT = _sample(subject, int(seed), range(first, first + BATCH), cut.body, device)
            yield from tokens_BT[: limit - first].tolist()

    key = {"self": dict(subject.identity), "seed": int(seed), "length": length}
    return TokenSource(key, inputs, documents)


def _prefix(subject: LanguageSubject, cut: Cut) -> tuple[int, ...]:
    """What sampling begins after. A line break is no part of the context, as the begin-of-text
    token is; empty if there is neither."""
    if cut.prefix:
        return cut.prefix
    (tokens,) = tokens_of(subject)(["\n"])
    return tuple(tokens) if len(tokens) == 1 and tokens[0] not in cut.special else ()


@torch.inference_mode()
def _sample(
    subject: LanguageSubject, seed: int, contexts: range, length: int, device: torch.device
) -> Int64[np.ndarray, "b t"]:
    """Sampled tokens [b, length], without what they begin after."""
    prefix = _prefix(subject, cut_for(subject, length + 1))
    uniform_BT = torch.from_numpy(np.stack([order.uniform(length, seed, i) for i in contexts]))
    uniform_BT = uniform_BT.to(device)
    module = subject.module.to(device)
    last_B1 = torch.tensor([prefix] * len(contexts), device=device)
    past, tokens = None, []
    for position in range(length):
        output = module(last_B1, past_key_values=past, use_cache=True)
        past = output.past_key_values
        cumulative_BV = torch.softmax(output.logits[:, -1].double(), -1).cumsum(-1)
        level_B1 = uniform_BT[:, position : position + 1] * cumulative_BV[:, -1:]
        last_B1 = torch.searchsorted(cumulative_BV, level_B1)
        last_B1 = last_B1.clamp_max(cumulative_BV.shape[1] - 1)
        tokens.append(last_B1)
    tokens_BT: Int64[np.ndarray, "b t"] = torch.cat(tokens, 1).cpu().numpy()
    return tokens_BT
