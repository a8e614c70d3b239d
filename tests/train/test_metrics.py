from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.metrics import COLUMNS, append_metrics, begin_metrics, evaluate, fvu


def rows(count: int = 200, width: int = 6) -> torch.Tensor:
    """Far from the origin: FVU against zero would be a hundred times smaller."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0)) + 10


def unexplained(x: np.ndarray, x_hat: np.ndarray) -> float:
    return float(((x - x_hat) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum())


def dictionary() -> SAE:
    sae = SAE(6, 16, Sparsity("topk", 2), pre_bias=True)
    return initialised(sae, torch.Generator().manual_seed(1), bias_D=torch.full((6,), 10.0))


def test_fvu_is_against_the_mean() -> None:
    x_ND = rows()
    x_hat_ND = x_ND + 0.3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    expected = unexplained(x_ND.double().numpy(), x_hat_ND.double().numpy())
    assert fvu(x_ND, x_hat_ND) == pytest.approx(expected, rel=1e-5)
    assert fvu(x_ND, x_ND.mean(dim=0).expand_as(x_ND)) == pytest.approx(1, rel=1e-5)
    assert fvu(x_ND, x_ND) == 0


@pytest.mark.parametrize("batch", [1, 7, 150, 200])
@pytest.mark.parametrize("limit", [150, 1000])
def test_evaluation_equals_numpy_whatever_the_batches(batch: int, limit: int) -> None:
    sae, x_ND = dictionary(), rows()
    found = evaluate(sae, torch.split(x_ND, batch), limit)
    used_ND = x_ND[:limit]
    z = sae.encode(used_ND).detach().numpy()
    x_hat = sae(used_ND).detach().double().numpy()
    assert found.rows == len(used_ND)
    assert found.fvu == pytest.approx(unexplained(used_ND.double().numpy(), x_hat), rel=1e-5)
    assert found.l0 == pytest.approx((z > 0).sum(axis=1).mean())
    np.testing.assert_allclose(found.frequency_S, (z > 0).mean(axis=0), rtol=1e-6)


def test_vectors_that_are_all_the_same_have_no_fvu() -> None:
    with pytest.raises(ConfigError, match=r"all 4 are the same. Raise --held-out"):
        evaluate(dictionary(), [torch.ones(4, 6)], 100)


def line(step: int) -> dict[str, int | float]:
    return dict.fromkeys(COLUMNS, step / 3) | {"step": step}


def test_lines_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    begin_metrics(path, 0)
    for step in (5, 10, 15):
        append_metrics(path, line(step))
    with path.open("a") as file:
        file.write("20,1.0,0.")  # a crash in the middle of a line
    begin_metrics(path, 14)
    append_metrics(path, line(15))
    kept = path.read_text().splitlines()
    assert kept[0] == ",".join(COLUMNS)
    assert [int(text.split(",")[0]) for text in kept[1:]] == [5, 10, 15]
    assert float(kept[1].split(",")[2]) == 5 / 3
    begin_metrics(path, 0)
    assert path.read_text().splitlines() == [",".join(COLUMNS)]
