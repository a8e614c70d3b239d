from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from tendril.data.errors import SubjectError, UnknownSiteError
from tendril.models.sites.hooks import as_grid, describe_sites, recording
from tendril.models.subjects.module import subject_from_module


class Stack(nn.Module):
    """Counts the passes that run to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.inplace = nn.ReLU(inplace=True)
        self.tuple = Pair()
        self.unused = nn.Identity()
        self.ended = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.inplace(self.first(x))
        try:
            x = self.tuple(self.second(x))[0]
        except Exception:  # a network that catches errors must not catch the stop
            self.ended += 1
        x = self.inplace(self.third(x)) if self.training else self.third(x)
        self.ended += 1
        return x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x + 1, 7


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Assert that the network has the same hooks afterwards."""
    before = {name: dict(m._forward_hooks) for name, m in network.named_modules()}
    yield
    assert before == {name: dict(m._forward_hooks) for name, m in network.named_modules()}


def sites(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def test_a_pass_stops_after_the_last_site_wanted() -> None:
    network, image = Stack().eval(), torch.randn(2, 3, 8, 8)
    with untouched(network), recording(network, sites("second", "first")) as forward:
        acts = forward(image)
    assert network.ended == 0
    assert torch.equal(acts["first"], network.first(image))
    assert torch.equal(acts["second"], network.second(network.first(image).relu()))


def test_what_is_recorded_is_not_altered_by_a_later_inplace_operation() -> None:
    network, image = Stack().eval(), torch.randn(1, 3, 8, 8)
    with recording(network, sites("first", "third")) as forward:
        acts = forward(image)
    assert (acts["first"] < 0).any()
    assert torch.equal(acts["first"], network.first(image))


def test_hooks_are_gone_when_the_body_raises_and_others_stay() -> None:
    network = Stack().eval()
    calls: list[int] = []
    theirs = network.first.register_forward_hook(lambda *_: calls.append(1))
    with untouched(network), pytest.raises(RuntimeError, match="body"):  # noqa: SIM117
        with recording(network, sites("first")):
            raise RuntimeError("body")
    with untouched(network), pytest.raises(RuntimeError):  # noqa: SIM117
        with recording(network, sites("third")) as forward:
            forward(torch.randn(1, 5, 8, 8))  # the wrong number of channels
    network(torch.randn(1, 3, 8, 8))
    assert calls
    theirs.remove()


def test_a_site_may_be_several_modules_and_an_output_a_tuple() -> None:
    network, image = Stack().eval(), torch.randn(1, 3, 8, 8)
    with recording(network, {"both": ("first", "tuple")}) as forward:
        both = forward(image)["both"]
    assert both.shape == (1, 6, 8, 8)
    assert torch.equal(both[:, :3], network.first(image))


def test_gradients_flow_through_a_recorded_site() -> None:
    network = Stack().eval()
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    with recording(network, sites("first", "second")) as forward:
        acts = forward(image)
        (acts["first"].sum() + acts["second"].sum()).backward()
    expected = torch.randn_like(image).copy_(image.detach()).requires_grad_()
    (
        network.first(expected).sum() + network.second(network.first(expected).relu()).sum()
    ).backward()
    assert image.grad is not None
    torch.testing.assert_close(image.grad, expected.grad)


def test_a_module_called_twice_or_never_is_refused() -> None:
    network = Stack().train()
    with pytest.raises(SubjectError, match="called twice or more"):  # noqa: SIM117
        with recording(network, sites("inplace", "unused")) as forward:
            forward(torch.randn(1, 3, 8, 8))
    with pytest.raises(SubjectError, match="'unused' is not called"):  # noqa: SIM117
        with recording(network.eval(), sites("unused")) as forward:
            forward(torch.randn(1, 3, 8, 8))
    with pytest.raises(SubjectError, match="no module 'fourth'"):  # noqa: SIM117
        with recording(network, sites("fourth")):
            pass


def test_a_pass_of_its_own_is_left_alone_and_recordings_nest() -> None:
    network, image = Stack().eval(), torch.randn(1, 3, 8, 8)
    with recording(network, sites("first")) as outer, recording(network, sites("third")) as inner:
        assert torch.equal(network(image), inner(image)["third"])
        assert torch.equal(outer(image)["first"], network.first(image))
    assert network.ended == 1


def test_tokens_are_joined_over_their_vectors() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with recording(network, {"both": ("0", "1")}) as forward:
        assert forward(torch.randn(2, 5, 3))["both"].shape == (2, 5, 6)


def test_describing_leaves_nothing_behind_where_it_fails() -> None:
    def wrong(rgb: Tensor) -> Tensor:
        raise RuntimeError("preprocessing")

    network = Stack().eval()
    with untouched(network), pytest.raises(SubjectError, match=r"224 pixels.*preprocessing"):
        describe_sites(subject_from_module(network, preprocess=wrong), ["first"])
    with untouched(network), pytest.raises(SubjectError, match="'unused' is not called"):
        describe_sites(subject_from_module(network, input_size=8), ["first", "unused"])


def test_describing_finds_shapes_and_refuses_a_module_that_a_block_calls_twice() -> None:
    from torchvision.models import resnet18

    from tendril.data import _torchvision  # noqa: F401

    torch.manual_seed(0)
    subject = subject_from_module(resnet18(), input_size=64, name="resnet18")
    with untouched(subject.module):
        shapes = describe_sites(subject, ["layer2", "layer1.0.conv1", "avgpool", "fc"])
    assert (shapes["layer2"].width, shapes["layer2"].grid) == (128, (8, 8))
    assert (shapes["fc"].width, shapes["fc"].grid) == (1000, (1, 1))
    with pytest.raises(SubjectError, match=r"called 2 times.*'layer1\.0'"):
        describe_sites(subject, ["layer1.0.relu"])
    with pytest.raises(UnknownSiteError, match=r"no site 'layer7'; near names are layer"):
        describe_sites(subject, ["layer7"])


def test_maps_tokens_and_vectors_become_grids() -> None:
    assert as_grid(torch.zeros(2, 5, 3, 4)).shape == (2, 3, 4, 5)
    assert as_grid(torch.zeros(2, 7, 5)).shape == (2, 7, 1, 5)
    assert as_grid(torch.zeros(2, 5)).shape == (2, 1, 1, 5)
    with pytest.raises(SubjectError):
        as_grid(torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_records_what_the_cpu_records() -> None:
    network, image = Stack().eval(), torch.randn(2, 3, 8, 8)
    acts = {}
    for device in ("cpu", "cuda"):
        with recording(network.to(device), sites("second")) as forward:
            acts[device] = forward(image.to(device))["second"].cpu()
    torch.testing.assert_close(acts["cpu"], acts["cuda"], rtol=1e-4, atol=1e-5)


def test_threads_record_their_own_pass() -> None:
    network = Stack().eval()
    images = [torch.randn(1, 3, 8, 8) for _ in range(64)]
    with recording(network, sites("first", "third")) as forward, ThreadPoolExecutor(8) as pool:
        recorded = list(pool.map(lambda image: forward(image)["first"], images))
    for image, first in zip(images, recorded, strict=True):
        torch.testing.assert_close(first, network.first(image))
