"""The sparse autoencoder: two linear maps with a sparsity function between them."""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .sparsity import Sparsity


@final
class SAE(nn.Module):
    """A dictionary of S latents for vectors of width D.

        z     = sparsity((x - b_dec) W_enc + b_enc)      (without b_dec if not `pre_bias`)
        x_hat = z W_dec + b_dec

    W_enc [D, S], b_enc [S], W_dec [S, D], b_dec [D]; row i of W_dec is the direction d_i of
    latent i. Vectors are rows. Parameters are zero until `initialised` or a file fills them.
    """

    def __init__(self, width: int, latents: int, sparsity: Sparsity, *, pre_bias: bool) -> None:
        super().__init__()
        self.width, self.latents = width, latents
        self.sparsity, self.pre_bias = sparsity, pre_bias
        self.W_enc = nn.Parameter(torch.zeros(width, latents))
        self.b_enc = nn.Parameter(torch.zeros(latents))
        self.W_dec = nn.Parameter(torch.zeros(latents, width))
        self.b_dec = nn.Parameter(torch.zeros(width))

    def pre(
        self, x_ND: Float[Tensor, "*n d"], latents: Int[Tensor, " l"] | None = None
    ) -> Float[Tensor, "*n l"]:
        """Pre-activations, of all latents or of some. b_dec goes through W_enc once, not with
        every vector: the same sum, and backward needs no product of the size of the batch."""
        some = slice(None) if latents is None else latents
        W_enc, b_enc = self.W_enc[:, some], self.b_enc[some]
        bias_S = b_enc - self.b_dec @ W_enc if self.pre_bias else b_enc
        return functional.linear(x_ND, W_enc.T, bias_S)

    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """Latents z of the vectors x."""
        return self.sparsity(self.pre(x_ND))

    def decode(self, z_NS: Float[Tensor, "*n s"]) -> Float[Tensor, "*n d"]:
        """Reconstruction x_hat = z W_dec + b_dec."""
        return functional.linear(z_NS, self.W_dec.T, self.b_dec)

    def combine(
        self,
        values: Float[Tensor, "*entries"],
        indices: Int[Tensor, "*entries"],
        starts_B: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """sum_k values[k] d_indices[k], without b_dec: what `decode` does, for the cost of
        the latents that are on. Entries are [n, k], k a vector, or lie flat, those of vector b
        from starts_B[b] on."""
        return functional.embedding_bag(
            indices, self.W_dec, starts_B, per_sample_weights=values, mode="sum"
        )

    def forward(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """x_hat = decode(encode(x))."""
        return self.decode(self.encode(x_ND))

    def description(self) -> dict[str, Any]:
        """All but the weights, as JSON; `described` is the way back."""
        return {
            "width": self.width,
            "latents": self.latents,
            "sparsity": self.sparsity.name,
            "k": self.sparsity.k,
            "pre_bias": self.pre_bias,
        }


def described(description: dict[str, Any]) -> SAE:
    """The SAE of a description, its parameters zero."""
    sparsity = Sparsity(description["sparsity"], int(description["k"]))
    width, latents = int(description["width"]), int(description["latents"])
    return SAE(width, latents, sparsity, pre_bias=bool(description["pre_bias"]))


def initialised(
    sae: SAE,
    generator: torch.Generator,
    *,
    decoder_norm: float = 1.0,
    bias_D: Float[Tensor, " d"] | None = None,
) -> SAE:
    """Fill in W_dec with random directions of one norm, W_enc = W_dec^T, b_dec = `bias_D`.

    Source: Gao et al. (2406.04093), A.1 (norm 1, bias the geometric median); Anthropic's
    circuits update of April 2024 (norm from .05 to 1, biases zero). The generator is on the
    CPU, so that one seed means one dictionary on every device.
    """
    with torch.no_grad():
        W_SD = torch.randn(sae.latents, sae.width, generator=generator)
        sae.W_dec.copy_(functional.normalize(W_SD, dim=1) * decoder_norm)
        sae.W_enc.copy_(sae.W_dec.T)
        if bias_D is not None:
            sae.b_dec.copy_(bias_D)
    return sae


def folded(sae: SAE, scale: float) -> SAE:
    """A dictionary trained on scale * x, as one that takes x itself.

    Sparsity functions are homogeneous, so only the biases are divided:

        encode_folded(x) = encode(scale x) / scale,  decode_folded(z) = decode(scale z) / scale

    Latents come out in the units of x. Where each latent is decided by itself, its scale is
    free too and is set so that d_i has norm 1: z_i becomes z_i ||d_i||, W_enc and b_enc are
    multiplied by ||d_i|| and row i of W_dec is divided by it. (Where latents compete, as in
    TopK, that would change the winners, and rows are kept at norm 1 while training.)
    """
    raw = described(sae.description())
    with torch.no_grad():
        norm_S = torch.ones_like(sae.b_enc)
        if sae.sparsity.elementwise:
            length_S = sae.W_dec.norm(dim=1)
            norm_S = torch.where(length_S > 0, length_S, norm_S)
        raw.W_enc.copy_(sae.W_enc * norm_S)
        raw.b_enc.copy_(sae.b_enc * norm_S / scale)
        raw.W_dec.copy_(sae.W_dec / norm_S[:, None])
        raw.b_dec.copy_(sae.b_dec / scale)
    return raw.eval().requires_grad_(False)
