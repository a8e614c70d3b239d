import numpy as np
import pytest
import torch
from torch import nn

from tendril.train.objectives.base import geometric_median
from tendril.train.trainer import (
    adam_tensors,
    learning_rate,
    make_adam,
    normalise_rows,
    remove_parallel_gradient,
    restore_adam,
)


def test_the_rate_is_constant_and_then_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 0.5, 0.2) for step in range(101)]
    assert rates[:81] == [0.5] * 81
    np.testing.assert_allclose(rates[80:], np.linspace(0.5, 0, 21))
    assert learning_rate(99, 100, 0.5, 0.0) == 0.5


def test_gradients_along_the_rows_are_gone_and_the_rest_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    W = nn.Parameter(nn.functional.normalize(torch.randn(7, 5, generator=generator), dim=1))
    full = torch.randn(7, 5, generator=generator)
    W.grad = full.clone()
    remove_parallel_gradient(W)
    torch.testing.assert_close((W.grad * W).sum(dim=1), torch.zeros(7), atol=1e-6, rtol=0)
    removed = full - W.grad
    along = (removed * W).sum(dim=1, keepdim=True) * W
    torch.testing.assert_close(removed.detach(), along.detach())


def test_rows_get_norm_one_and_keep_their_direction() -> None:
    W = nn.Parameter(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))
    before = W.detach().clone()
    normalise_rows(W)
    torch.testing.assert_close(W.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(torch.cosine_similarity(W, before), torch.ones(7))


def test_from_the_geometric_median_the_vectors_pull_evenly() -> None:
    """The gradient of the sum of distances, a sum of unit vectors, is zero there."""
    x_ND = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    x_ND[:8] += 30

    def pull(point_D: torch.Tensor) -> float:
        return float(nn.functional.normalize(x_ND - point_D, dim=1).mean(dim=0).norm())

    assert pull(geometric_median(x_ND)) < 1e-3
    assert pull(x_ND.mean(dim=0)) > 0.1


def test_the_geometric_median_of_equal_vectors_is_that_vector() -> None:
    torch.testing.assert_close(geometric_median(torch.ones(5, 3)), torch.ones(3))


@pytest.mark.parametrize("before", [0, 3])
def test_adam_goes_on_from_its_tensors_bit_for_bit(before: int) -> None:
    def steps(parameters: list[nn.Parameter], adam: torch.optim.Adam, first: int, n: int) -> None:
        for step in range(first, first + n):
            for number, parameter in enumerate(parameters):
                generator = torch.Generator().manual_seed(10 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            adam.step()

    whole = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5))]
    adam = make_adam(whole, lr=0.1)
    names = ["weight", "bias"]
    steps(whole, adam, 0, before)
    halved = [nn.Parameter(p.detach().clone()) for p in whole]
    other = make_adam(halved, lr=0.1)
    tensors = {name: tensor.clone() for name, tensor in adam_tensors(adam, names).items()}
    assert len(tensors) == (6 if before else 0)
    if before:
        restore_adam(other, names, tensors)
    steps(whole, adam, before, 4)
    steps(halved, other, before, 4)
    for one, two in zip(whole, halved, strict=True):
        assert torch.equal(one, two)
