import numpy as np
import pytest
import torch
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.baselines import ica, neurons, nmf, pca, random
from tendril.train.metrics import evaluate

R, D = 4000, 8


def mixed() -> tuple[Tensor, np.ndarray]:
    """A mixture of independent Laplace sources with non-zero mean, and the mixing directions."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((D, D))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sources = generator.laplace(size=(R, D)) * np.linspace(1, 3, D)
    return torch.from_numpy(sources @ rows + 2).float(), rows


@pytest.mark.parametrize("make", [pca, ica])
def test_all_directions_of_a_basis_reconstruct_exactly(make: object) -> None:
    x_RD, _ = mixed()
    sae = make(x_RD, D)  # type: ignore[operator]
    assert sae.latents == 2 * D
    torch.testing.assert_close(sae(x_RD), x_RD, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(2 * D))


def test_k_components_leave_what_the_largest_projections_leave() -> None:
    x_RD, _ = mixed()
    x = x_RD.double().numpy()
    centred = x - x.mean(axis=0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    projection = centred @ rows.T
    projection[np.abs(projection) < np.sort(np.abs(projection), axis=1)[:, -3, None]] = 0
    missed = ((centred - projection @ rows) ** 2).sum() / (centred**2).sum()
    found = evaluate(pca(x_RD, 3), [x_RD], R)
    assert found.fvu == pytest.approx(missed, rel=1e-4)
    assert found.l0 == pytest.approx(3)


def test_ica_finds_the_directions_that_were_mixed() -> None:
    x_RD, rows = mixed()
    cosine = np.abs(rows @ ica(x_RD, 2).W_dec.double().numpy().T).max(axis=1)
    assert cosine.min() > 0.98
    found = np.abs(rows @ pca(x_RD, 2).W_dec.double().numpy().T).max(axis=1)
    assert found.min() < 0.9, "principal directions are not these"


def test_random_directions_are_unit_rows_read_with_themselves() -> None:
    x_RD, _ = mixed()
    sae = random(x_RD, 4, 32, seed=3)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.equal(random(x_RD, 4, 32, seed=3).W_dec, sae.W_dec)
    assert not torch.equal(random(x_RD, 4, 32, seed=4).W_dec, sae.W_dec)
    torch.testing.assert_close(sae.b_dec, x_RD.mean(dim=0))


def test_neurons_keep_the_largest_numbers_of_a_vector() -> None:
    x_ND = torch.tensor([[3.0, -5.0, 1.0], [0.5, 0.2, -0.1]])
    assert neurons(x_ND, 1)(x_ND).tolist() == [[0, -5, 0], [0.5, 0, 0]]
    positive = neurons(x_ND.abs(), 2)
    assert positive.latents == 3
    assert positive(x_ND.abs())[0].tolist() == [3, 5, 0]


def test_nmf_is_nearer_to_the_parts_of_vectors_than_pca() -> None:
    rng = np.random.default_rng(0)
    parts_CD = np.zeros((12, 12))
    for number in range(12):
        parts_CD[number, [number, (number + 1) % 12, (number + 3) % 12]] = (1.0, 0.7, 0.4)
    unit_CD = parts_CD / np.linalg.norm(parts_CD, axis=1, keepdims=True)
    z_RC = rng.exponential(size=(3000, 12)) * (rng.random((3000, 12)) < 0.15)
    x_RD = torch.from_numpy(z_RC @ parts_CD).float()
    sae = nmf(x_RD, k=12, seed=0)
    assert sae.W_dec.shape == (12, 12) and (sae.W_dec >= 0).all()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(12))
    near = [
        float((torch.from_numpy(unit_CD).float() @ one.W_dec.T).max(dim=1).values.mean())
        for one in (sae, pca(x_RD, 12))
    ]
    assert near[0] > near[1] + 0.1, near
    fvu = (sae(x_RD) - x_RD).square().sum() / (x_RD - x_RD.mean(dim=0)).square().sum()
    assert fvu < 0.05
    few = nmf(x_RD, k=2, seed=0)
    assert torch.equal(few.W_dec, sae.W_dec) and (few.encode(x_RD) > 0).sum(dim=1).max() == 2
    with pytest.raises(ConfigError, match="NMF needs vectors without negative values; got -1"):
        nmf(x_RD - 1, k=2)
