"""Splicing in networks so small that the results can be computed by hand."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.errors import SubjectError
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.sites.splice import (
    Reconstruction,
    ablating,
    recovered,
    site_mean,
    splice_answers,
    splicing,
    to_parts,
    to_vectors,
)

CLASSES = 7


class Small(nn.Module):
    """Two branches that are concatenated, an in-place ReLU on one of them, and seven classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.left_relu, self.right_relu = nn.ReLU(inplace=True), nn.ReLU()
        self.last = nn.Linear(10, CLASSES)
        self.last.weight.data *= 30  # so that predictions differ between images
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        right = self.right_relu(self.right(x))  # called before the first branch
        left = self.left_relu(self.left(x))
        pooled = torch.cat([left, right], dim=1).mean(dim=(2, 3))
        return self.softmax(self.last(pooled))


class Words(nn.Module):
    """A language model of one block, whose output is a tuple."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.block = nn.Embedding(11, 5), Doubled()
        self.unembed = nn.Linear(5, 11)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return self.unembed(self.block(self.embed(x))[0]), "more"


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return 2 * x, 3


SITE, PRE_RELU = ("left_relu", "right_relu"), ("left", "right")


@pytest.fixture
def network() -> Small:
    return Small().eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(24, 3, 5, 5, generator=torch.Generator().manual_seed(2))


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    before = {name: dict(m._forward_hooks) for name, m in network.named_modules()}
    yield
    assert before == {name: dict(m._forward_hooks) for name, m in network.named_modules()}


def identity(width: int) -> SAE:
    """A dictionary that reconstructs exactly: two latents per channel, for positive and negative
    values."""
    sae = SAE(width, 2 * width, Sparsity("relu"), pre_bias=False).requires_grad_(False)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    sae.W_enc.copy_(both.T)
    sae.W_dec.copy_(both)
    return sae


def zero(width: int) -> SAE:
    return SAE(width, 3, Sparsity("relu"), pre_bias=False).requires_grad_(False)


@pytest.mark.parametrize("names", [SITE, PRE_RELU, ("left",), ("right_relu",)])
def test_identity_recovers_all_and_zero_is_zero_ablation(
    network: Small, images: Tensor, names: tuple[str, ...]
) -> None:
    labels = torch.arange(len(images)) % CLASSES
    with splicing(network, names) as splice:
        width = to_vectors(splice.read(images)).shape[1]
    substitutes = {
        "identity": Reconstruction(identity(width)),
        "nothing": Reconstruction(zero(width)),
        "zero": ablating(),
    }
    with untouched(network):
        sums = splice_answers(
            network, names, substitutes, [(images[:10], labels[:10]), (images[10:], labels[10:])],
            logits="last",
        )  # fmt: skip
    assert sums["identity"] == sums["clean"]
    assert sums["nothing"] == sums["zero"]
    assert sums["zero"].loss != sums["clean"].loss
    losses = {name: answers.figures()["cross_entropy"] for name, answers in sums.items()}
    assert recovered(losses["clean"], losses["identity"], losses["zero"]) == 1.0
    assert recovered(losses["clean"], losses["nothing"], losses["zero"]) == 0.0


def test_answers_are_those_of_the_network_by_hand(network: Small, images: Tensor) -> None:
    labels = torch.arange(len(images)) % CLASSES
    sums = splice_answers(network, SITE, {}, [(images, labels)], logits="last")
    probability = network(images)
    by_hand = -probability[torch.arange(24), labels].log().mean()
    figures = sums["clean"].figures()
    assert figures["cross_entropy"] == pytest.approx(float(by_hand), rel=1e-5)
    assert figures["top1"] == float((probability.argmax(dim=1) == labels).double().mean())
    rank = (probability > probability[torch.arange(24), labels][:, None]).sum(dim=1)
    assert figures["top5"] == float((rank < 5).double().mean())
    assert sums["clean"].missed == 0


def test_mean_ablation_sets_the_mean_and_misses_the_variance(
    network: Small, images: Tensor
) -> None:
    mean_D = site_mean(network, SITE, [images[:7], images[7:]])
    left, right = network.left(images).relu(), network.right(images).relu()
    maps = torch.cat([left, right], dim=1)
    torch.testing.assert_close(mean_D, maps.mean(dim=(0, 2, 3)))
    sums = splice_answers(network, SITE, {"mean": ablating(mean_D)}, [(images, None)], "last")
    logits = network.last(mean_D)
    own = network(images).argmax(dim=1)
    assert sums["mean"].loss == pytest.approx(
        float(functional.cross_entropy(logits.expand(24, -1), own, reduction="sum")), rel=1e-5
    )
    spread = (maps - maps.mean(dim=(0, 2, 3), keepdim=True)).square().sum()
    assert sums["mean"].missed == pytest.approx(float(spread), rel=1e-5)


def test_without_labels_the_networks_own_answer_is_right(network: Small, images: Tensor) -> None:
    sums = splice_answers(network, SITE, {"zero": ablating()}, [(images, None)], "last")
    assert sums["clean"].figures()["top1"] == 1.0
    assert sums["zero"].figures()["top1"] < 1.0


def test_a_language_model_counts_each_next_token_that_is_asked_for() -> None:
    network = Words().eval().requires_grad_(False)
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(3))
    labels = torch.cat([tokens[:, 1:], torch.full((3, 1), -100)], dim=1)
    substitutes = {"same": Reconstruction(identity(5)), "zero": ablating()}
    with untouched(network):
        sums = splice_answers(network, ("block",), substitutes, [(tokens, labels)])
    assert sums["clean"].count == 15
    assert sums["same"] == sums["clean"]
    logits = network(tokens)[0][:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert sums["clean"].figures()["cross_entropy"] == pytest.approx(float(expected), rel=1e-5)
    bare = functional.cross_entropy(network.unembed.bias.expand(15, -1), tokens[:, 1:].flatten())
    assert sums["zero"].figures()["cross_entropy"] == pytest.approx(float(bare), rel=1e-5)


def test_hooks_are_gone_after_an_exception_and_others_stay(network: Small, images: Tensor) -> None:
    calls: list[int] = []
    theirs = network.left.register_forward_hook(lambda *_: calls.append(1))

    def broken(_x_ND: Tensor) -> Tensor:
        raise RuntimeError("dictionary")

    with untouched(network), pytest.raises(RuntimeError, match="dictionary"):
        splice_answers(network, PRE_RELU, {"broken": broken}, [(images, None)], "last")
    with untouched(network), pytest.raises(RuntimeError):  # noqa: SIM117
        with splicing(network, SITE) as splice:
            splice.run(torch.randn(2, 9, 5, 5), {})  # the wrong number of channels
    with untouched(network), pytest.raises(SubjectError, match="no module 'middle'"):  # noqa: SIM117
        with splicing(network, ("middle",)):
            pass
    calls.clear()
    network(images)
    assert calls
    theirs.remove()


def test_a_pass_of_its_own_is_left_alone(network: Small, images: Tensor) -> None:
    clean = network(images)
    with splicing(network, SITE, "last") as splice:
        parts = {name: torch.zeros_like(part) for name, part in splice.read(images).items()}
        assert not torch.equal(splice.run(images, parts), splice.run(images, {}))
        assert torch.equal(network(images), clean)


def test_what_is_given_is_not_altered_by_a_later_operation_in_place(
    network: Small, images: Tensor
) -> None:
    with splicing(network, PRE_RELU) as splice:
        parts = {name: -torch.ones_like(part) for name, part in splice.read(images).items()}
        splice.run(images, parts)
    assert all((part == -1).all() for part in parts.values())


def test_vectors_and_parts_are_each_others_way_back() -> None:
    parts = {"a": torch.randn(2, 3, 4, 5), "b": torch.randn(2, 6, 4, 5)}
    vectors_ND = to_vectors(parts)
    assert vectors_ND.shape == (2 * 4 * 5, 9)
    assert torch.equal(vectors_ND[7, :3], parts["a"][0, :, 1, 2])
    for name, part in to_parts(vectors_ND, parts).items():
        assert torch.equal(part, parts[name])
    tokens = {"t": torch.randn(2, 7, 3)}
    assert torch.equal(to_parts(to_vectors(tokens), tokens)["t"], tokens["t"])


def test_a_network_without_classes_is_told(images: Tensor) -> None:
    with pytest.raises(SubjectError, match=r"must have shape \[24, 'classes'\]"):
        splice_answers(
            nn.Sequential(nn.ReLU()), ("0",), {}, [(images, torch.zeros(24, dtype=torch.int64))]
        )


def test_nothing_lost_is_nothing_to_recover() -> None:
    assert recovered(1.0, 0.7, 1.0) is None
    assert recovered(0.9, 0.6, 0.1) == pytest.approx(5 / 8)
    assert math.isclose(recovered(1.0, 2.0, 5.0) or 0, 0.75)
