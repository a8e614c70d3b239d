"""Which vectors of a site an edit changes: numbers of positions, and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor

from tendril.data.errors import ConfigError

Numbers = slice | Sequence[int]


@final
@dataclass(frozen=True)
class Places:
    """Chosen positions, and a mask; both must hold. None stands for all."""

    positions: tuple[Numbers, ...] | None = None
    given: Tensor | None = None

    def mask(
        self, batch: int, shape: tuple[int, ...], offset: int, device: torch.device
    ) -> Bool[Tensor, "b p"] | None:
        """Where the vectors of a pass are chosen; None for everywhere.

        `shape` is (T,) of a sequence, (H, W) of a map, or () of one vector an input; b is `batch`
        or 1. Position 0 of this pass is position `offset` of the text. Raises ConfigError if
        positions or mask are of another kind of site.
        """
        if self.positions is None and self.given is None:
            return None
        if self.positions is not None and len(self.positions) != len(shape):
            kinds = ("none: the site has one vector an input", "a slice or numbers of tokens",
                     "a pair, (rows, columns)")  # fmt: skip
            raise ConfigError(
                f"positions must be {kinds[len(shape)]}; got {len(self.positions)} of them. Change "
                "positions, or leave them out."
            )
        found = torch.ones((1, *shape), dtype=torch.bool, device=device)
        for axis, numbers in enumerate(self.positions or ()):
            place = torch.arange(shape[axis], device=device) + (offset if len(shape) == 1 else 0)
            ends = [1] * (len(shape) - 1 - axis)
            found = found & _among(place, numbers).view(-1, *ends)
        if self.given is not None:
            found = found & self._given(batch, shape, offset, device)
        return found.reshape(len(found), -1)

    def _given(
        self, batch: int, shape: tuple[int, ...], offset: int, device: torch.device
    ) -> Bool[Tensor, "b ..."]:
        """The mask at the positions of this pass."""
        assert self.given is not None
        given = self.given.to(device)
        given = given if given.ndim > len(shape) else given[None]
        if len(shape) == 1 and given.ndim == 2:
            end = offset + shape[0]
            beyond = given.new_ones(len(given), max(end - given.shape[1], 0))
            given = torch.cat([given, beyond], dim=1)[:, offset:end]
        if given.shape[1:] != shape or len(given) not in (1, batch):
            sizes = " x ".join(map(str, shape)) or "no"
            raise ConfigError(
                f"the mask must have {sizes} positions, for all inputs or for each of {batch}; its "
                f"shape is {list(self.given.shape)}. Give the mask of this input."
            )
        return given


def places_of(positions: Any, mask: Tensor | None) -> Places:
    """The places of positions and a mask as `edit` takes them. Raises ConfigError."""
    if mask is not None and (mask.dtype != torch.bool or not 1 <= mask.ndim <= 3):
        raise ConfigError(
            f"the mask must be a boolean tensor [T], [B, T], [H, W] or [B, H, W]; got "
            f"{str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}."
        )
    if positions is None:
        return Places(None, mask)
    pair = isinstance(positions, tuple) and any(not isinstance(one, int) for one in positions)
    chosen = tuple(positions) if pair else (positions,)
    for numbers in chosen:
        listed = [numbers.start, numbers.stop] if isinstance(numbers, slice) else numbers
        step = numbers.step if isinstance(numbers, slice) else None
        if isinstance(listed, str) or not isinstance(listed, Sequence):
            raise ConfigError(
                f"positions must be a slice or a list of numbers; got {numbers!r}. Put one number "
                "in a list."
            )
        if any(one is not None and (not isinstance(one, int) or one < 0) for one in listed):
            raise ConfigError(
                f"positions must count from 0 at the beginning; got {numbers!r}. The end is not "
                "known while a text is generated."
            )
        if step is not None and step < 1:
            raise ConfigError(f"the step of positions must be 1 or more; got {step}.")
    return Places(chosen, mask)


def _among(place: Tensor, numbers: Numbers) -> Bool[Tensor, " n"]:
    """True for each place that is among the numbers."""
    if not isinstance(numbers, slice):
        return torch.isin(place, torch.tensor(list(numbers), dtype=place.dtype).to(place.device))
    start, step = numbers.start or 0, numbers.step or 1
    found = (place >= start) & ((place - start) % step == 0)
    return found if numbers.stop is None else found & (place < numbers.stop)
