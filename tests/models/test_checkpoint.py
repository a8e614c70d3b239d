import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tendril.data.errors import RunDamagedError, RunNotFoundError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import (
    load_dictionary,
    load_frequency,
    read_tensors,
    save_dictionary,
    write_tensors,
)
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

ROOT = Path(__file__).parents[2]


def saved(folder: Path, k: int = 2) -> SAE:
    folder.mkdir(parents=True)
    sae = SAE(4, 8, Sparsity("topk", k), pre_bias=True)
    initialised(sae, torch.Generator().manual_seed(k), bias_D=torch.ones(4))
    save_dictionary(folder, sae, {"site": "here"}, torch.full((8,), 0.5))
    return sae


def test_a_dictionary_comes_back_ready_for_use(tmp_path: Path) -> None:
    sae = saved(tmp_path / "run")
    again = load_dictionary(tmp_path / "run")
    x_ND = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.encode(x_ND), sae.encode(x_ND))
    assert not again.training
    assert not again.W_dec.requires_grad
    assert load_frequency(tmp_path / "run").tolist() == [0.5] * 8
    assert json.loads((tmp_path / "run" / "config.json").read_text())["site"] == "here"


def test_a_run_is_found_by_path_name_beginning_and_as_the_latest(tmp_path: Path) -> None:
    first, second = (tmp_path / "runs" / name for name in ("topk-1", "l1-2"))
    saved(first)
    saved(second)
    os.utime(first / "dictionary.safetensors", (2e9, 2e9))
    home = str(tmp_path)
    for wanted, found in ((first, first), ("l1-2", second), ("l1", second), ("latest", first)):
        assert find_run(wanted, home) == found


def test_a_run_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    saved(tmp_path / "runs" / "topk-1")
    with pytest.raises(RunNotFoundError, match=r"no run 'x'.*it holds topk-1.*train"):
        load_dictionary("x", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="it holds none"):
        load_dictionary("latest", str(tmp_path / "elsewhere"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved(run)
    weights = run / "dictionary.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    with pytest.raises(RunDamagedError, match=r"dictionary\.safetensors cannot be read"):
        load_dictionary(run)
    write_tensors(weights, {"W_enc": torch.zeros(2, 2)})
    with pytest.raises(RunDamagedError, match=r"should hold .*'W_dec': \(8, 4\).* and holds"):
        load_dictionary(run)
    weights.write_bytes(whole)
    (run / "config.json").write_text("{")
    with pytest.raises(RunDamagedError, match=r"config\.json is no JSON"):
        load_dictionary(run)
    (run / "config.json").unlink()
    with pytest.raises(RunDamagedError, match=r"config\.json is missing"):
        load_dictionary(run)


def test_tensors_and_their_numbers_are_one_file(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.tensor(1.5)}
    write_tensors(tmp_path / "state.safetensors", tensors, {"step": 3, "reader": {"rows": 9}})
    again, numbers = read_tensors(tmp_path / "state.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert numbers == {"step": 3, "reader": {"rows": 9}}
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Two processes write identical bytes: nothing depends on hash order."""
    saved(tmp_path / "here")
    code = (
        "from tests.models.test_checkpoint import saved; from pathlib import Path; "
        f"saved(Path({str(tmp_path / 'there')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    for name in ("dictionary.safetensors", "latents.safetensors", "config.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
