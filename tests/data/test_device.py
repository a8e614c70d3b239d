"""Names of devices, and the sentences where a device is absent."""

import pytest
import torch

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, DeviceError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("cuda") == torch.device("cuda", 1)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)  # the number counts
    with pytest.raises(DeviceError, match="from 0 to 1, as this machine has 2 GPUs; got 'cuda:2'"):
        resolve_device("cuda:2")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="LOCAL_RANK must be"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    "name", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "cuda:1:2", "²"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="--device must be auto, cpu, cuda, cuda:N or mps; got"):
        resolve_device(name)


def test_absent_devices_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"--device {name} needs a GPU; torch sees no CUDA"):
            resolve_device(name)
    with pytest.raises(DeviceError, match="--device mps needs the GPU of an Apple computer"):
        resolve_device("mps")


def test_a_gpu_of_apple_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")
