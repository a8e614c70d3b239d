"""The sparse autoencoder (SAE), and the interface that all dictionaries share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .sparsity import Sparsity


class Dictionary(nn.Module, ABC):
    """Base class: S latents for vectors of width D, with `encode` and a linear `decode`.

        x_hat = z W_dec + b_dec

    W_dec [S, D], b_dec [D]. Row i of W_dec is the direction d_i of latent i. Subclasses differ
    in their encoder and in how they are trained; `plain` converts each to a `Stored` kind.
    `row_shape` is the shape of one input: (D,), or (G, D) for orbits of G group elements.
    """

    def __init__(self, width: int, latents: int, elements: int = 0) -> None:
        super().__init__()
        self.width, self.latents = width, latents
        self.row_shape = (elements, width) if elements else (width,)
        self.W_dec = nn.Parameter(torch.zeros(latents, *self.row_shape))
        self.b_dec = nn.Parameter(torch.zeros(width))

    def extra_repr(self) -> str:
        """What Python shows of a dictionary."""
        sparsity: Any = getattr(self, "sparsity", None)
        k = f", k {sparsity.k}" if getattr(sparsity, "k", 0) else ""
        kind = f", {sparsity.name}{k}" if sparsity is not None else ""
        return f"{self.latents} latents of vectors {list(self.row_shape)}{kind}"

    @abstractmethod
    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """Latents z [n, S] of vectors x [n, D]."""

    @abstractmethod
    def plain(self) -> "Stored":
        """The same function as a stored kind of dictionary. Weights are copied."""

    def decode(self, z_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n d"]:
        """Reconstruction x_hat = z W_dec + b_dec [n, D]."""
        return functional.linear(z_NS, self.W_dec.T, self.b_dec)

    def forward(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """x_hat = decode(encode(x))."""
        return self.decode(self.encode(x_ND))


class Stored(Dictionary, ABC):
    """Base class of dictionaries that can be saved: weights, and a description to rebuild them."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything but the weights, as a JSON object. `checkpoint.described` inverts it."""


@final
class SAE(Stored):
    """Sparse autoencoder: two linear maps and a sparsity function.

        z     = sparsity((x - b_dec) W_enc + b_enc)      (without b_dec if not `pre_bias`)
        x_hat = z W_dec + b_dec

    W_enc [D, S], b_enc [S], W_dec [S, D], b_dec [D], and threshold [S] if the sparsity function
    has thresholds. Vectors are rows, as in SAELens; papers write W_enc and W_dec transposed.
    Parameters are zero until `initialised` or a checkpoint fills them.

    If `residual`, the latents are blocks (`sparsity.parts`), each of which encodes what those
    before it leave; see `ensemble`:

        z_j = sparsity((x - sum_{i < j} z_i W_dec,i) W_enc,j + b_enc,j)

    Source: Bricken et al., Towards monosemanticity (Anthropic, 2023), for the form with
    `pre_bias`; Anthropic's circuits update of April 2024 for the one without. The sparsity
    functions name their own sources.
    """

    def __init__(
        self,
        width: int,
        latents: int,
        sparsity: Sparsity,
        *,
        pre_bias: bool,
        residual: bool = False,
    ) -> None:
        super().__init__(width, latents)
        if sparsity.parts < 1 or latents % sparsity.parts or (residual and pre_bias):
            raise ValueError("latents must be equal parts, and residual ones read x itself")
        self.sparsity, self.pre_bias, self.residual = sparsity, pre_bias, residual
        self.W_enc = nn.Parameter(torch.zeros(width, latents))
        self.b_enc = nn.Parameter(torch.zeros(latents))
        zero_S = torch.zeros(latents)
        self.threshold = nn.Parameter(zero_S) if sparsity.thresholded else None

    def pre(
        self, x_ND: Float[Tensor, "*n d"], latents: Int[Tensor, " l"] | None = None
    ) -> Float[Tensor, "*n l"]:
        """Pre-activations x W_enc + (b_enc - b_dec W_enc) of all latents, or of `latents` [l].

        Equal to (x - b_dec) W_enc + b_enc up to rounding, but b_dec passes through W_enc once
        instead of once per vector, which makes the backward pass cheaper.
        """
        if self.residual:
            pre_NS = self._pre_of_residuals(x_ND)
            return pre_NS if latents is None else pre_NS[..., latents]
        W_enc: Tensor = self.W_enc
        b_enc: Tensor = self.b_enc
        if latents is not None:
            W_enc, b_enc = W_enc[:, latents], b_enc[latents]
        bias_S = b_enc - self.b_dec @ W_enc if self.pre_bias else b_enc
        return functional.linear(x_ND, W_enc.T, bias_S)

    def _pre_of_residuals(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        each = self.latents // self.sparsity.parts
        one = replace(self.sparsity, parts=1)
        left_ND, found = x_ND, []
        for start in range(0, self.latents, each):
            part = slice(start, start + each)
            pre_NS = functional.linear(left_ND, self.W_enc[:, part].T, self.b_enc[part])
            threshold_S = None if self.threshold is None else self.threshold[part]
            left_ND = left_ND - one(pre_NS, threshold_S) @ self.W_dec[part]
            found.append(pre_NS)
        return torch.cat(found, dim=-1)

    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """z = sparsity(pre(x))."""
        return self.sparsity(self.pre(x_ND), self.threshold)

    def combine(
        self,
        values: Float[Tensor, "*entries"],
        indices: Int[Tensor, "*entries"],
        starts_B: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """Sparse decoding without b_dec: sum_k values[k] d_indices[k] for each vector.

        `values` and `indices` are [n, k] with k active latents per vector, or flat, where the
        entries of vector b begin at starts_B[b]. The cost is that of the active latents.
        """
        values = values.to(self.W_dec.dtype)  # autocast lowers their precision
        return functional.embedding_bag(
            indices, self.W_dec, starts_B, per_sample_weights=values, mode="sum"
        )

    def plain(self) -> "SAE":
        """A copy of this SAE."""
        copy = described(self.description()).to(self.W_dec.device, self.W_dec.dtype)
        copy.load_state_dict(self.state_dict())
        return copy

    def description(self) -> dict[str, Any]:
        """Everything but the weights, as a JSON object. `described` inverts it."""
        return {
            "kind": "sae",
            "width": self.width,
            "latents": self.latents,
            "sparsity": self.sparsity.name,
            "k": self.sparsity.k,
            "pre_bias": self.pre_bias,
            **({"parts": self.sparsity.parts} if self.sparsity.parts > 1 else {}),
            **({"residual": True} if self.residual else {}),
        }


def described(description: Mapping[str, Any]) -> SAE:
    """Build the SAE of a description, with all parameters zero."""
    parts = int(description.get("parts", 1))
    sparsity = Sparsity(description["sparsity"], int(description["k"]), parts)
    width, latents = int(description["width"]), int(description["latents"])
    bias, residual = bool(description["pre_bias"]), bool(description.get("residual", False))
    return SAE(width, latents, sparsity, pre_bias=bias, residual=residual)


@torch.no_grad()
def initialised(
    sae: SAE,
    generator: torch.Generator,
    *,
    decoder_norm: float = 1.0,
    bias_D: Float[Tensor, " d"] | None = None,
) -> SAE:
    """Initialise in place: rows of W_dec are random directions of norm `decoder_norm`, W_enc =
    W_dec^T, b_dec = `bias_D` (default: unchanged, zero in a new SAE). Returns `sae`.

    Source: Gao et al. (2406.04093), A.1 (norm 1, b_dec the geometric median); Anthropic's
    circuits update of April 2024 (norms drawn from 0.05 to 1, biases zero). Here all rows have
    the same norm.
    """
    sae.W_dec.copy_(random_directions(sae.latents, sae.width, generator) * decoder_norm)
    sae.W_enc.copy_(sae.W_dec.T)
    if bias_D is not None:
        sae.b_dec.copy_(bias_D)
    return sae


def random_directions(latents: int, width: int, generator: torch.Generator) -> Float[Tensor, "s d"]:
    """Random unit rows, uniform on the sphere.

    The generator is on the CPU, so that a seed gives the same dictionary on every device.
    """
    return functional.normalize(torch.randn(latents, width, generator=generator), dim=1)
