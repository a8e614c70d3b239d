"""Training on vectors without a span: what the dictionary sees, and what its run is named by."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae, write_tensors
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.config import TrainConfig
from tendril.train.left import ignoring, orthonormal
from tendril.train.loop import train
from tendril.train.vectors import source_of, store_of

from ..helpers import sparse


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("left")
    sparse.make_store(home, {"here": sparse.vectors(4000, sparse.directions())})
    return home


def config(home: Path, **fields: object) -> TrainConfig:
    return replace(
        TrainConfig(store=str(next((home / "store").iterdir())), site="here", latents=24, k=2,
                    steps=30, batch_size=128, device="cpu", threads=1, home=str(home)),
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("pre_bias", [True, False])
def test_a_dictionary_that_ignores_a_span(pre_bias: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    sae = SAE(8, 12, Sparsity("topk", 3), pre_bias=pre_bias)
    initialised(sae, draws, bias_D=torch.randn(8, generator=draws))
    basis_RD = orthonormal(torch.randn(3, 8, generator=draws).repeat(2, 1))
    assert basis_RD.shape == (3, 8)
    torch.testing.assert_close(basis_RD @ basis_RD.T, torch.eye(3))
    x_ND = torch.randn(40, 8, generator=draws)
    left_ND = x_ND - x_ND @ basis_RD.T @ basis_RD
    found = ignoring(sae.requires_grad_(False), basis_RD)
    torch.testing.assert_close(found.encode(x_ND), sae.encode(left_ND), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.encode(left_ND), sae.encode(left_ND), atol=1e-5, rtol=1e-4)


def test_a_span_is_removed_before_training(home: Path, tmp_path: Path) -> None:
    whole = train(config(home))
    W_SD = load_sae(whole.run).W_dec
    path = tmp_path / "dense.safetensors"
    write_tensors(path, {"directions": W_SD[:4]})
    source = source_of(config(home, remove_span=str(path)), store_of(config(home)))
    rows_ND = next(source.once(config(home), torch.device("cpu")))
    assert float((rows_ND @ W_SD[:4].T).abs().max()) < 1e-4
    assert source.scales()["here"] > source_of(config(home), source.store).scales()["here"]
    made = train(config(home, remove_span=str(path)))
    assert made.run.name != whole.run.name and made.fvu < 1
    other = tmp_path / "elsewhere.safetensors"
    other.write_bytes(path.read_bytes())
    assert train(config(home, remove_span=str(other))).reused, "named by what the file holds"
    write_tensors(path, {"directions": W_SD[4:8]})
    assert not train(config(home, remove_span=str(path))).reused
    x_ND = torch.from_numpy(open_store(source.store.path).read("here", slice(0, 50)))
    found, turned_ND = load_sae(made.run), x_ND + 3 * W_SD[0]
    torch.testing.assert_close(found.encode(turned_ND), found.encode(x_ND), atol=1e-3, rtol=1e-3)


def test_what_is_no_span_is_refused(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(ConfigError, match=r"there is no .*`tendril study dense` writes"):
        train(config(home, remove_span=str(path)))
    for tensors, said in (
        ({"other": torch.ones(2, 3)}, "has none"),
        ({"directions": torch.ones(2, 3)}, r"has \[2, 3\]"),
        ({"directions": torch.zeros(2, load_width(home))}, "not all zero"),
    ):
        write_tensors(path, tensors)
        with pytest.raises(ConfigError, match=said):
            train(config(home, remove_span=str(path)))
    path.write_bytes(b"no tensors")
    with pytest.raises(RunDamagedError):
        train(config(home, remove_span=str(path)))
    with pytest.raises(ConfigError, match="a trained objective on single vectors"):
        train(config(home, remove_span=str(path), objective="pca"))


def load_width(home: Path) -> int:
    return open_store(next((home / "store").iterdir())).width("here")
