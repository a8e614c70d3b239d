"""Every function of `kernels.sparse` against `kernels.reference`: active latents,
reconstructions, and the gradients of both for all parameters and vectors, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tendril.models.dictionaries.kernels import reference as active
from tendril.models.dictionaries.kernels import sparse as sparse_active
from tendril.models.dictionaries.kernels import sparse_product
from tendril.models.dictionaries.kernels.reference import Active
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity, topk_entries

D, S, K, N = 6, 24, 3, 10
PREFIXES = (2, 4, 7, 12, S)


def random_sae(*, pre_bias: bool = True, shift: float = 0.0) -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, S, Sparsity("topk", K), pre_bias=pre_bias).double()
    for parameter in sae.parameters():
        nn.init.normal_(parameter, generator=generator)
    with torch.no_grad():
        sae.b_enc += shift
    return sae


def vectors() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    sizes_N1 = torch.linspace(0.1, 2, N).double()[:, None]
    x_ND = torch.randn(N, D, generator=generator, dtype=torch.float64) * sizes_N1
    return x_ND.requires_grad_()


def on(found: Active) -> list[tuple[int, float]]:
    """The positive entries (latent, value), sorted."""
    pairs = zip(found.indices_M.tolist(), found.values_M.tolist(), strict=True)
    return sorted((latent, round(value, 10)) for latent, value in pairs if value > 0)


def assert_same_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    """Compare values, and gradients for a weighted sum of the output."""
    torch.testing.assert_close(fast, slow)
    weight = torch.linspace(-1, 1, fast.numel()).double().reshape(fast.shape)
    ours, theirs = (
        torch.autograd.grad(
            (output * weight).sum(), inputs, materialize_grads=True, retain_graph=True
        )
        for output in (fast, slow)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def assert_same(sae: SAE, x_ND: Tensor, fast: Active, slow: Active) -> None:
    assert on(fast) == on(slow)
    inputs = [*sae.parameters(), x_ND]
    assert_same_gradients(fast.x_hats_PND, slow.x_hats_PND, inputs)
    # the values are outputs too: an objective may penalise them
    penalties = [f.values_M.square().sum()[None] for f in (fast, slow)]
    assert_same_gradients(penalties[0], penalties[1], inputs)


WEIGHT_S = torch.linspace(0.1, 3, S).double()
CHOICES: dict[str, Callable[..., Active]] = {
    "topk": lambda code, sae, x: code.topk_active(sae, x, K),
    "topk, all": lambda code, sae, x: code.topk_active(sae, x, S),
    "batch_topk": lambda code, sae, x: code.batch_topk_active(sae, x, K),
    "batch_topk, all": lambda code, sae, x: code.batch_topk_active(sae, x, S),
    "batch_topk, weighted": lambda code, sae, x: code.batch_topk_active(sae, x, K, WEIGHT_S),
    "matryoshka": lambda code, sae, x: code.matryoshka_active(sae, x, K, PREFIXES),
    "matryoshka, weighted": lambda code, sae, x: code.matryoshka_active(
        sae, x, K, PREFIXES, WEIGHT_S
    ),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize(
    ("pre_bias", "shift"), [(True, 0.0), (False, 0.0), (True, -6.0), (True, -99.0)]
)
def test_it_equals_the_reference(
    choice: Callable[..., Active], pre_bias: bool, shift: float
) -> None:
    """Also if a shift of the bias leaves fewer than k positive pre-activations, or none."""
    sae, x_ND = random_sae(pre_bias=pre_bias, shift=shift), vectors()
    slow = choice(active, sae, x_ND)
    assert_same(sae, x_ND, choice(sparse_active, sae, x_ND), slow)
    positive = int((slow.values_M > 0).sum())
    assert {0.0: positive > 0, -6.0: 0 < positive < len(slow.values_M), -99.0: positive == 0}[shift]


@pytest.mark.parametrize("choice", ["topk", "batch_topk", "matryoshka"])
def test_equal_latents_serve_each_other(choice: str) -> None:
    """Every latent has a duplicate, so there are ties; the reconstruction does not depend on
    which of them is chosen."""
    sae, x_ND = random_sae(), vectors()
    with torch.no_grad():
        for parameter in (sae.W_enc.T, sae.b_enc, sae.W_dec):
            parameter[S // 2 :] = parameter[: S // 2]
    fast, slow = (CHOICES[choice](code, sae, x_ND) for code in (sparse_active, active))
    torch.testing.assert_close(fast.x_hat_ND, slow.x_hat_ND)
    assert int((fast.values_M > 0).sum()) == int((slow.values_M > 0).sum())


def dense_aux(sae: SAE, x_ND: Tensor, dead: Tensor, k: int) -> Tensor:
    values_NK, place_NK = topk_entries(sae.pre(x_ND, dead), min(k, len(dead)))
    z_NL = torch.zeros(N, len(dead)).double().scatter(1, place_NK, values_NK)
    return z_NL @ sae.W_dec[dead]


@pytest.mark.parametrize("dense_below", [0, 10**6])
@pytest.mark.parametrize("dead", [[7], [0, 2, 5, 11, 19, 23], list(range(S))])
def test_what_the_dead_make_of_it(
    dead: list[int], dense_below: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dense and with sparse products."""
    monkeypatch.setattr(sparse_active, "DENSE_BELOW", dense_below)
    sae, x_ND = random_sae(), vectors()
    marked = torch.tensor(dead)
    fast = sparse_active.aux_reconstruction(sae, x_ND, marked, 4)
    slow = dense_aux(sae, x_ND, marked, 4)
    assert_same_gradients(fast, slow, [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, x_ND])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x_ND = random_sae(), vectors()
    whole = [choice(sparse_active, sae, x_ND).x_hats_PND for choice in CHOICES.values()]
    monkeypatch.setattr(sparse_product, "CPU_BLOCK", 3 * S)
    monkeypatch.setattr(sparse_product, "LEAST_ROWS", 1)
    parts = [choice(sparse_active, sae, x_ND).x_hats_PND for choice in CHOICES.values()]
    torch.testing.assert_close(parts, whole)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("choice", ["topk", "batch_topk", "matryoshka"])
def test_nothing_dense_is_made_forward_or_backward(
    choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest tensor is a block of pre-activations. The reference, as a check of the test
    itself, creates all of them."""
    monkeypatch.setattr(sparse_product, "CPU_BLOCK", 2**13)
    monkeypatch.setattr(sparse_product, "LEAST_ROWS", 1)
    count, latents = 512, 256
    sae = SAE(4, latents, Sparsity("topk", K), pre_bias=True)
    x_ND = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    for parameter in sae.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    largest: dict[str, int] = {}
    for name, code in (("sparse", sparse_active), ("dense", active)):
        with LargestTensor() as seen:
            if choice == "matryoshka":
                found = code.matryoshka_active(sae, x_ND, K, (16, 64, latents))
            else:
                found = CHOICES[choice](code, sae, x_ND)
            total = (found.x_hats_PND - x_ND).square().sum()
            if choice == "topk" and code is sparse_active:
                dead = torch.arange(0, latents, 2)
                aux_ND = sparse_active.aux_reconstruction(sae, x_ND, dead, 4)
                total = total + (aux_ND - x_ND).square().sum()
            torch.autograd.backward(total)
        largest[name] = seen.elements
    assert largest["sparse"] <= 2**13 < count * latents <= largest["dense"]
