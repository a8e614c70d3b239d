import pytest
import torch
from torch import nn

from tendril.models.sites.fused import fused
from tendril.models.sites.hooks import recording
from tendril.models.subjects.inception import InceptionV1, inception_sites


@pytest.fixture(scope="module")
def network() -> InceptionV1:
    torch.manual_seed(0)
    return InceptionV1(until="mixed3a").eval().requires_grad_(False)


def at_sites(module: nn.Module, sites: dict[str, tuple[str, ...]], x: torch.Tensor):  # type: ignore[no-untyped-def]
    with recording(module, sites) as forward, torch.inference_mode():
        return forward(x)


@pytest.mark.parametrize(
    "names", [("mixed3a",), ("conv2d0", "mixed3a_5x5"), ("mixed3a_3x3_pre_relu", "conv2d2")]
)
def test_the_values_of_every_site_stay_as_they_were(
    network: InceptionV1, names: tuple[str, ...]
) -> None:
    known = inception_sites("mixed3a")
    sites = {name: known[name] for name in names}
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255 - 117
    plain = at_sites(network, sites, x)
    with fused(network, sites, x[:1], batch=3) as done:
        assert done
        assert "forward" in vars(network.conv2d1_pre_relu_conv)
        together = at_sites(network, sites, x)
    for name in names:
        torch.testing.assert_close(together[name], plain[name], rtol=1e-6, atol=1e-5)
    assert not any("forward" in vars(part) for part in network.modules())


def test_nothing_is_left_when_the_body_raises(network: InceptionV1) -> None:
    sites = {"conv2d0": ("conv2d0",)}
    with (
        pytest.raises(KeyError),
        fused(network, sites, torch.rand(1, 3, 64, 64), batch=1),
    ):
        raise KeyError
    assert not any("forward" in vars(part) for part in network.modules())


class Twice(nn.Module):
    """The convolution's output is used twice, so fusing its ReLU would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.last(self.relu(y) - y)


def test_a_network_that_fusing_would_change_stays_as_it_is() -> None:
    network, x = Twice().eval().requires_grad_(False), torch.randn(2, 3, 9, 9)
    sites = {"last": ("last",)}
    plain = at_sites(network, sites, x)
    with fused(network, sites, x[:1], batch=2) as done:
        assert not done
        assert torch.equal(at_sites(network, sites, x)["last"], plain["last"])


def test_a_watched_convolution_is_seen_before_its_relu(network: InceptionV1) -> None:
    seen = []
    handle = network.conv2d1_pre_relu_conv.register_forward_hook(
        lambda _module, _args, output: seen.append(float(output.min()))
    )
    sites, x = {"mixed3a": ("mixed3a",)}, torch.rand(1, 3, 64, 64) * 255 - 117
    with fused(network, sites, x, batch=1):
        seen.clear()
        at_sites(network, sites, x)
    handle.remove()
    assert seen[-1] < 0
