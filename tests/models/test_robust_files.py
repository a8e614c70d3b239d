"""Checkpoints of torchvision's networks as other tools save them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from tendril.data import _torchvision  # noqa: F401  before torchvision is imported

# isort: split
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from tendril.data.errors import WeightsError
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.robust_files import read_checkpoint

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = torchvision.models.shufflenet_v2_x0_5().eval()
    return made


def of_robustness(network: torch.nn.Module) -> dict[str, Tensor]:
    """A state dict as the robustness library writes it: the network twice, and the pixels."""
    state = network.state_dict()
    pixels = {"new_mean": torch.tensor(MEAN), "new_std": torch.tensor(STD)}
    pixels = {n: t.view(3, 1, 1) for n, t in pixels.items()}
    found = {f"module.normalizer.{n}": t for n, t in pixels.items()}
    found |= {f"module.model.{n}": t for n, t in state.items()}
    found |= {f"module.attacker.normalize.{n}": t for n, t in pixels.items()}
    return found | {f"module.attacker.model.{n}": t.clone() for n, t in state.items()}


@pytest.mark.parametrize("layout", ["plain", "parallel", "robustness", "safetensors"])
def test_every_layout_gives_the_network(
    layout: str, network: torch.nn.Module, tmp_path: Path
) -> None:
    state: Any = network.state_dict()
    path = tmp_path / "weights.pt"
    robust = layout in ("robustness", "safetensors")
    if layout == "parallel":
        state = {"state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 90}
    if layout == "robustness":
        state = {"model": OrderedDict(of_robustness(network)), "epoch": 89, "nat_prec1": 0.5}
    if layout == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({n: t.clone().contiguous() for n, t in of_robustness(network).items()}, path)
    else:
        torch.save(state, path)
    subject = load_subject("torchvision:shufflenet_v2_x0_5", weights=str(path))
    x = torch.rand(1, 3, 224, 224)
    usual = load_subject("torchvision:shufflenet_v2_x0_5", weights="random").preprocess
    if robust:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        assert torch.allclose(subject.preprocess(x), (x - mean) / std)
    else:
        assert torch.equal(subject.preprocess(x), usual(x))
    with torch.no_grad():
        wanted = network(subject.preprocess(x))
        assert torch.equal(subject.module(subject.preprocess(x)), wanted)


def test_a_checkpoint_of_another_network_is_a_sentence(
    network: torch.nn.Module, tmp_path: Path
) -> None:
    torch.save({"model": of_robustness(network)}, tmp_path / "other.pt")
    with pytest.raises(
        WeightsError, match=r"other\.pt must .*Give the weights of this network"
    ) as e:
        load_subject("torchvision:squeezenet1_1", weights=str(tmp_path / "other.pt"))
    assert "\n" not in str(e.value)


def test_objects_of_other_kinds_are_never_loaded_and_the_way_out_is_said(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2), "epoch": 1}, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match=r"save its tensors: safetensors\.torch\.save_file"):
        read_checkpoint(tmp_path / "whole.pt")
