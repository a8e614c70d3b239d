"""Tensors that are not real, floating and finite are refused by name, wherever they are loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tendril.data.errors import RunDamagedError, SubjectError, TendrilError, WeightsError
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.models.dictionaries.saelens import import_saelens
from tendril.models.subjects.module import subject_from_module
from tendril.models.weights import load_weights

from .test_checkpoint import saved
from .test_exchange import write


def with_value(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan": (with_value(float("nan")), "must be finite; got 1 of"),
    "inf": (with_value(float("inf")), "must be finite; got 1 of"),
    "minus inf": (with_value(-float("inf")), "must be finite; got 1 of"),
    "integers": (lambda t: t.to(torch.int32), "must hold floating-point numbers; got int32"),
    "booleans": (lambda t: t > 0, "must hold floating-point numbers; got bool"),
    "complex": (lambda t: t.to(torch.complex64), "got complex64"),
}


def a_dictionary(folder: Path, change: Callable[[Tensor], Tensor]) -> str:
    saved(folder / "run")
    tensors = load_file(folder / "run" / "dictionary.safetensors")
    tensors["W_dec"] = change(tensors["W_dec"])
    save_file(tensors, folder / "run" / "dictionary.safetensors")
    with pytest.raises(RunDamagedError) as raised:
        load_dictionary(folder / "run")
    return named(raised.value, "W_dec")


def saelens(folder: Path, change: Callable[[Tensor], Tensor]) -> str:
    write(folder / "sae", {"architecture": "standard"})
    tensors = load_file(folder / "sae" / "sae_weights.safetensors")
    tensors["W_enc"] = change(tensors["W_enc"])
    write(folder / "sae", {"architecture": "standard"}, tensors)
    with pytest.raises(RunDamagedError) as raised:
        import_saelens(folder / "sae")
    return named(raised.value, "W_enc")


def a_networks_file(folder: Path, change: Callable[[Tensor], Tensor]) -> str:
    network = nn.Linear(2, 3)
    weights = dict(network.state_dict())
    weights["weight"] = change(weights["weight"])
    with pytest.raises(WeightsError) as raised:
        load_weights(network, weights, "w.pth")
    return named(raised.value, "weight")


def named(error: TendrilError, tensor: str) -> str:
    assert f"the tensor {tensor} in" in str(error)
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("load", [a_dictionary, saelens, a_networks_file])
@pytest.mark.parametrize("kind", CHANGES)
def test_such_tensors_are_refused(
    load: Callable[[Path, Callable[[Tensor], Tensor]], str], kind: str, tmp_path: Path
) -> None:
    change, sentence = CHANGES[kind]
    assert sentence in load(tmp_path, change)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_subject_with_such_parameters_is_refused(value: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    subject_from_module(network)  # an integer buffer (num_batches_tracked) is no fault
    with torch.no_grad():
        network[0].weight.view(-1)[0] = value
    with pytest.raises(SubjectError, match=r"the tensor 0\.weight in module must be finite"):
        subject_from_module(network)
