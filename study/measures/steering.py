"""Steering by a latent: other directions of its norm, continuations, and what they contain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.edit import Changes
from tendril.models.sites.splice import Substitute, splicing, to_vectors

GREEDY = float("nan")  # in place of a random number: the most likely token


@torch.no_grad()
def other_dictionaries(sae: SAE, latent: int, count: int, seed: int) -> list[SAE]:
    """Copies of a dictionary whose row of `latent` is a random direction of the same norm.

    The encoder is the same, so that the latent has the same values.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + latent)
    found = []
    for _ in range(count):
        other = sae.plain().requires_grad_(False)
        row_D = torch.randn(sae.width, generator=generator).to(sae.W_dec)
        other.W_dec[latent] = row_D / row_D.norm() * sae.W_dec[latent].norm()
        found.append(other)
    return found


def steered(sae: SAE, latent: int, method: str, value: float) -> Substitute:
    """The edit of a latent as a function of vectors [n, D]."""
    put, add = ({latent: value}, {}) if method == "set" else ({}, {latent: value})
    changes = Changes(sae, put, add, {}, ())
    return lambda x_ND: changes.vectors(x_ND[None], None)[0]


@torch.inference_mode()
def continued(
    module: nn.Module,
    prompt: Sequence[int],
    uniform_BT: Float[np.ndarray, "b t"],
    temperature: float,
    device: torch.device,
) -> Int64[np.ndarray, "b t"]:
    """One continuation of a prompt for each row of uniform numbers, with a key-value cache.

    Token t is the first one whose cumulative probability reaches uniform_BT[b, t], so that the same
    numbers give the same text with the same network; where it is NaN, the most likely token.
    """
    uniform = torch.from_numpy(uniform_BT).to(device)
    last_BT = torch.tensor([list(prompt)] * len(uniform_BT), device=device)
    past, tokens = None, []
    for position in range(uniform_BT.shape[1]):
        output = module(last_BT, past_key_values=past, use_cache=True)
        past, logits_BV = output.past_key_values, output.logits[:, -1].double()
        cumulative_BV = torch.softmax(logits_BV / temperature, -1).cumsum(-1)
        level_B1 = uniform[:, position : position + 1]
        drawn_B1 = torch.searchsorted(cumulative_BV, level_B1.nan_to_num() * cumulative_BV[:, -1:])
        drawn_B1 = drawn_B1.clamp_max(logits_BV.shape[1] - 1)
        last_BT = torch.where(level_B1.isnan(), logits_BV.argmax(-1, keepdim=True), drawn_B1)
        tokens.append(last_BT)
    found: Int64[np.ndarray, "b t"] = torch.cat(tokens, 1).cpu().numpy()
    return found


def random_numbers(samples: int, length: int, key: Sequence[int]) -> Float[np.ndarray, "b t"]:
    """A greedy row, and one row of uniform numbers a sample."""
    rng = np.random.default_rng(list(key))
    return np.concatenate([np.full((1, length), GREEDY), rng.random((samples, length))])


@final
@dataclass(frozen=True)
class ReadBack:
    """How the unedited network reads continuations, token by token.

    `surprise_BT` is -log p of each token in nats, `active_BT` is where the latent is active,
    `valid_BT` is true before the end of the text.
    """

    tokens_BT: Int64[np.ndarray, "b t"]
    surprise_BT: Float[np.ndarray, "b t"]
    active_BT: Bool[np.ndarray, "b t"]
    valid_BT: Bool[np.ndarray, "b t"]

    def figures(self, sets: dict[str, set[int]]) -> dict[str, float | None]:
        """Means over all tokens: the fractions that are in each of some sets of tokens, and on
        which the latent is active, and the surprise."""
        valid = self.valid_BT
        if not valid.any():
            return dict.fromkeys([*sets, "active", "surprise"])
        found: dict[str, float | None] = {
            name: float(np.isin(self.tokens_BT[valid], list(tokens)).mean())
            for name, tokens in sets.items()
        }
        found["active"] = float(self.active_BT[valid].mean())
        found["surprise"] = float(self.surprise_BT[valid].mean())
        return found


@torch.inference_mode()
def read_back(
    module: nn.Module,
    names: tuple[str, ...],
    sae: SAE,
    latent: int,
    prompt: Sequence[int],
    tokens_BT: Int64[np.ndarray, "b t"],
    end: int | None,
    device: torch.device,
) -> ReadBack:
    """Read continuations of a prompt with the network as it is."""
    text_BT = torch.tensor([list(prompt)] * len(tokens_BT), dtype=torch.int64)
    text_BT = torch.cat([text_BT, torch.from_numpy(tokens_BT)], dim=1).to(device)
    first = len(prompt)
    with splicing(module, names) as splice:
        x_ND = to_vectors(splice.read(text_BT))
        logp_BTV = splice.run(text_BT, {}).double().log_softmax(-1)
    z_BT = sae.encode(x_ND.to(sae.W_dec.dtype))[:, latent].view(text_BT.shape)
    surprise_BT = -logp_BTV[:, first - 1 : -1].gather(-1, text_BT[:, first:, None])[..., 0]
    ended_BT = np.zeros(tokens_BT.shape, bool) if end is None else tokens_BT == end
    return ReadBack(
        tokens_BT,
        surprise_BT.cpu().numpy(),
        (z_BT[:, first:] > 0).cpu().numpy(),
        ~np.logical_or.accumulate(ended_BT, axis=1),
    )


def joined(parts: Sequence[ReadBack]) -> ReadBack:
    """Continuations of several prompts, all of one length, as one."""
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])
    }
    return ReadBack(**fields)


def usable(
    frequency_S: Float[np.ndarray, " s"], rare: float, dense: float
) -> Int64[np.ndarray, " l"]:
    """Latents that are neither rare nor dense, the most frequent first; where there are none, all
    that are ever active. Raises ConfigError where none is."""
    found = np.flatnonzero((frequency_S >= rare) & (frequency_S <= dense))
    if not len(found):
        found = np.flatnonzero(frequency_S > 0)
    if not len(found):
        raise ConfigError(
            "the dictionary must have a latent that is active somewhere; it has none."
        )
    chosen: Int64[np.ndarray, " l"] = found[np.argsort(-frequency_S[found], kind="stable")]
    return chosen


def similar_answers(logits_BV: Float[Tensor, "b v"], mean_V: Float[Tensor, " v"]) -> float:
    """Mean cosine between the logits of different images, minus the mean of all images."""
    unit_BV = functional.normalize(logits_BV.double() - mean_V.double(), dim=1)
    count = len(unit_BV)
    if count < 2:
        return -1.0
    return float(((unit_BV @ unit_BV.T).sum() - count) / (count * (count - 1)))
