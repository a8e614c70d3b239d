"""Networks with quantised modules and with extra state are subjects like others."""

import io
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tendril.data.errors import SubjectError
from tendril.models.sites.hooks import describe_sites
from tendril.models.subjects.module import subject_from_file, subject_from_module
from tendril.models.subjects.subject import weights_digest


class Integers(nn.Module):
    """A layer with integer weights and float scales, as GPTQ keeps them: in buffers."""

    def __init__(self, change: int = 0, *, parameter: bool = False) -> None:
        super().__init__()
        weight = torch.arange(12, dtype=torch.int8).reshape(4, 3) + change
        if parameter:  # as bitsandbytes does
            self.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self.register_buffer("weight", weight)
        self.register_buffer("scales", torch.full((4,), 0.5, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() * self.scales.float()[:, None]
        return torch.einsum("dc,bchw->bdhw", weight, x)


class Extra(nn.Module):
    """A layer with extra state."""

    def __init__(self, state: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.state = state

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x).mean((2, 3)))


def dynamic() -> nn.Module:
    """torch's dynamic quantisation: the weights are packed."""
    quantised: nn.Module = torch.ao.quantization.quantize_dynamic(
        Pooled().eval(), {nn.Linear}, dtype=torch.qint8
    )
    return quantised


def static() -> nn.Module:
    """torch's static quantisation: quantised tensors, per tensor and per channel."""
    network = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3)).eval()
    network.append(torch.ao.quantization.DeQuantStub())
    network.qconfig = torch.ao.quantization.get_default_qconfig()  # type: ignore[assignment]
    torch.ao.quantization.prepare(network, inplace=True)
    network(torch.rand(2, 3, 8, 8))
    converted: nn.Module = torch.ao.quantization.convert(network)
    return converted


def halves() -> nn.Module:
    return Pooled().half()


STATES: dict[str, Callable[[int], object]] = {
    "none": lambda _: None,
    "number": lambda i: i,
    "text": lambda i: f"state {i}",
    "bytes": lambda i: bytes([i]),
    "file": lambda i: io.BytesIO(bytes([i])),
    "tensor": lambda i: torch.tensor([i]),
    "array": lambda i: np.array([i]),
    "dict": lambda i: {"b": [i, {"c": torch.tensor(i)}], 1: (1.5, None, torch.float16)},
}


@pytest.mark.parametrize("kind", STATES)
def test_extra_state_is_part_of_the_identity(kind: str) -> None:
    def network(i: int) -> nn.Module:
        torch.manual_seed(0)
        return Extra(STATES[kind](i))

    subject = subject_from_module(network(1), input_size=16)
    assert describe_sites(subject, ["conv"])["conv"].width == 4
    assert weights_digest(network(1)) == subject.identity["weights"]
    assert (weights_digest(network(2)) == subject.identity["weights"]) == (kind == "none")


def test_extra_state_without_content_is_refused_without_blame(tmp_path: Path) -> None:
    reason = r"_extra_state is a socket\. Let get_extra_state"
    with socket.socket() as opened, pytest.raises(SubjectError, match=reason):
        subject_from_module(Extra(opened))
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "class Net(torch.nn.Conv2d):\n"
        "    def get_extra_state(self): return object()\n"
        "    def set_extra_state(self, state): pass\n"
        "def network(): return Net(3, 4, 3)\n"
    )
    with pytest.raises(SubjectError, match="_extra_state is a object") as raised:
        subject_from_file(f"{file}:network")
    assert "could not be run" not in str(raised.value)


@pytest.mark.filterwarnings("ignore")  # torch announces that its quantisation moves elsewhere
@pytest.mark.parametrize("make", [dynamic, static, halves])
def test_networks_that_torch_quantised(make: Callable[[], nn.Module]) -> None:
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    subject = subject_from_module(network(0), input_size=16)
    site = "stem" if make is not static else "2"
    assert describe_sites(subject, [site])[site].width == 4
    digests = [weights_digest(network(seed).float()) for seed in (0, 0, 1)]
    assert subject.identity["weights"] == digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("parameter", [False, True])
def test_modules_of_integers_with_scales(parameter: bool) -> None:
    subject = subject_from_module(
        nn.Sequential(Integers(parameter=parameter), nn.ReLU()), input_size=16
    )
    assert describe_sites(subject, ["0"])["0"].width == 4
    other = nn.Sequential(Integers(1, parameter=parameter), nn.ReLU())
    assert weights_digest(other.float()) != subject.identity["weights"]


def test_integers_in_a_layer_of_torch_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network[0].weight = nn.Parameter(torch.ones(4, 3, 3, 3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(SubjectError, match=r"tensor 0\.weight in module must hold floating-point"):
        subject_from_module(network)


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        network = nn.Conv2d(3, 4, 3)
    with pytest.raises(SubjectError, match=r"must be loaded; .* meta device"):
        subject_from_module(network)


def test_the_digest_of_plain_tensors_has_not_changed() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape))
    assert weights_digest(network) == (
        "f125edae217911edb915b7858f588ce93161b30a1793464f11af9247fbbdebe5"
    )
