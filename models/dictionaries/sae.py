"""The sparse autoencoder: two linear maps with a sparsity function between them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .sparsity import Sparsity


class Dictionary(nn.Module, ABC):
    """S latents for vectors of width D: `encode`, and a linear `decode`.

    x_hat = z W_dec + b_dec; row i of W_dec [S, D] is the direction d_i of latent i. Kinds
    differ in how they are trained; `plain` writes each as one of the kinds that are `Stored`.
    `row_shape` is the shape of what is encoded, (D,), or (G, D) where it is whole orbits.
    """

    def __init__(self, width: int, latents: int, elements: int = 0) -> None:
        super().__init__()
        self.width, self.latents = width, latents
        self.row_shape = (elements, width) if elements else (width,)
        self.W_dec = nn.Parameter(torch.zeros(latents, *self.row_shape))
        self.b_dec = nn.Parameter(torch.zeros(width))

    @abstractmethod
    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """Latents z of the vectors x."""

    @abstractmethod
    def plain(self) -> "Stored":
        """The same function as a kind that is stored, with weights of its own."""

    def decode(self, z_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n d"]:
        """Reconstruction x_hat = z W_dec + b_dec."""
        return functional.linear(z_NS, self.W_dec.T, self.b_dec)

    def forward(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """x_hat = decode(encode(x))."""
        return self.decode(self.encode(x_ND))


class Stored(Dictionary, ABC):
    """A kind that files hold: W_enc, b_enc, W_dec, b_dec, and a description that makes it."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """All but the weights, as JSON; `checkpoint.described` is the way back."""


@final
class SAE(Stored):
    """Two linear maps and a sparsity function.

        z     = sparsity((x - b_dec) W_enc + b_enc)      (without b_dec if not `pre_bias`)
        x_hat = z W_dec + b_dec

    W_enc [D, S], b_enc [S], W_dec [S, D], b_dec [D], and threshold [S] where the sparsity
    function has thresholds. Vectors are rows. Parameters are zero until `initialised` or a
    file fills them.
    """

    def __init__(self, width: int, latents: int, sparsity: Sparsity, *, pre_bias: bool) -> None:
        super().__init__(width, latents)
        self.sparsity, self.pre_bias = sparsity, pre_bias
        self.W_enc = nn.Parameter(torch.zeros(width, latents))
        self.b_enc = nn.Parameter(torch.zeros(latents))
        zero_S = torch.zeros(latents)
        self.threshold = nn.Parameter(zero_S) if sparsity.thresholded else None

    def pre(
        self, x_ND: Float[Tensor, "*n d"], latents: Int[Tensor, " l"] | None = None
    ) -> Float[Tensor, "*n l"]:
        """Pre-activations, of all latents or of some. b_dec goes through W_enc once, not with
        every vector: the same sum, and backward needs no product of the size of the batch."""
        W_enc: Tensor = self.W_enc
        b_enc: Tensor = self.b_enc
        if latents is not None:
            W_enc, b_enc = W_enc[:, latents], b_enc[latents]
        bias_S = b_enc - self.b_dec @ W_enc if self.pre_bias else b_enc
        return functional.linear(x_ND, W_enc.T, bias_S)

    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """z = sparsity(pre(x))."""
        return self.sparsity(self.pre(x_ND), self.threshold)

    def combine(
        self,
        values: Float[Tensor, "*entries"],
        indices: Int[Tensor, "*entries"],
        starts_B: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """sum_k values[k] d_indices[k], without b_dec: what `decode` does, for the cost of
        the latents that are on. Entries are [n, k], k a vector, or lie flat, those of vector b
        from starts_B[b] on."""
        values = values.to(self.W_dec.dtype)  # under autocast they come shorter
        return functional.embedding_bag(
            indices, self.W_dec, starts_B, per_sample_weights=values, mode="sum"
        )

    def plain(self) -> "SAE":
        """A copy."""
        copy = described(self.description()).to(self.W_dec.device, self.W_dec.dtype)
        copy.load_state_dict(self.state_dict())
        return copy

    def description(self) -> dict[str, Any]:
        """All but the weights, as JSON; `described` is the way back."""
        return {
            "kind": "sae",
            "width": self.width,
            "latents": self.latents,
            "sparsity": self.sparsity.name,
            "k": self.sparsity.k,
            "pre_bias": self.pre_bias,
        }


def described(description: Mapping[str, Any]) -> SAE:
    """The SAE of a description, its parameters zero."""
    sparsity = Sparsity(description["sparsity"], int(description["k"]))
    width, latents = int(description["width"]), int(description["latents"])
    return SAE(width, latents, sparsity, pre_bias=bool(description["pre_bias"]))


@torch.no_grad()
def initialised(
    sae: SAE,
    generator: torch.Generator,
    *,
    decoder_norm: float = 1.0,
    bias_D: Float[Tensor, " d"] | None = None,
) -> SAE:
    """Fill in W_dec with random directions of one norm, W_enc = W_dec^T, b_dec = `bias_D`.

    Source: Gao et al. (2406.04093), A.1 (norm 1, bias the geometric median); Anthropic's
    circuits update of April 2024 (norm from .05 to 1, biases zero).
    """
    sae.W_dec.copy_(random_directions(sae.latents, sae.width, generator) * decoder_norm)
    sae.W_enc.copy_(sae.W_dec.T)
    if bias_D is not None:
        sae.b_dec.copy_(bias_D)
    return sae


def random_directions(latents: int, width: int, generator: torch.Generator) -> Float[Tensor, "s d"]:
    """Unit rows, uniform on the sphere. The generator is on the CPU, so that one seed means
    one dictionary on every device."""
    return functional.normalize(torch.randn(latents, width, generator=generator), dim=1)
