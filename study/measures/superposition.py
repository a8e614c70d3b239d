"""Toy models of superposition: n sparse features in m hidden dimensions, many models at once.

    x' = ReLU(W^T W x + b),  W [D, F],  loss = mean over inputs and features of (x - x')^2

A feature is active with probability `density`, the paper's 1 - S, and is then uniform on [0, 1].
All features are equally important. Models of a sweep are trained in one batched product. They share
their random numbers: with one uniform u for each input and feature, x = max(0, 1 - u / density) has
the right distribution at every density, and what differs between models is never the draw.

Adversarial training replaces the second half of each batch by its attack, with the clean input as
target. The attack adds normal noise of standard deviation NOISE, which moves outputs off the flat
side of the ReLU, takes the gradient of the reconstruction error there, and steps along it from the
clean input. Every step has the L2 norm `attack` times the mean norm of the inputs. The noise only
serves to find the direction.

Source: Gorton and Lewis, 2025 (arXiv 2508.17456), after Elhage and others, 2022 (Toy Models of
Superposition). The paper gives neither the values of active features nor the batch, the noise or
the initialisation; these are U[0, 1], BATCH, NOISE and Xavier normal here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

BATCH = 128
"""Inputs of a step. A batch of an adversarially trained model is half attacked."""
NOISE = 0.01
LR = 1e-3
BETAS, EPS = (0.9, 0.999), 1e-8
BLOCK = 6
"""Models of one product: their inputs stay in the cache of a core."""
TINY = 1e-12
MOST_SEEDS, MOST_STEPS = 100, 10_000_000
STRIDE = 4 * MOST_STEPS
STREAMS = ("start", "inputs", "directions")


@final
@dataclass(frozen=True)
class Toys:
    """Models side by side: hidden x features matrices, biases, densities, and which are robust."""

    W_MDF: Float[Tensor, "m d f"]
    b_MF: Float[Tensor, "m f"]
    density_M: Float[Tensor, " m"]
    robust_M: Sequence[bool]

    def part(self, models: slice) -> "Toys":
        """Some of the models; their parameters are views."""
        return Toys(
            self.W_MDF[models], self.b_MF[models], self.density_M[models], self.robust_M[models]
        )


@final
@dataclass(frozen=True)
class Training:
    """How toy models are trained: `attack` is a fraction of the mean norm of the inputs."""

    steps: int
    attack: float = 0.1
    batch: int = BATCH
    lr: float = LR


@final
@dataclass
class State:
    """Toys in training. `moments` are Adam's for W and b; `trace` holds (step, ||W||_F^2 / D)."""

    toys: Toys
    moments: Mapping[str, Tensor]
    step: int
    trace: list[tuple[int, Float[Tensor, " m"]]]


def stream(name: str, seed: int) -> torch.Generator:
    """Random numbers of one of STREAMS, which no training step of any seed draws. The generator
    only reads 32 bits of what it is seeded with."""
    assert 0 <= seed < MOST_SEEDS
    number = len(STREAMS) * seed + STREAMS.index(name)
    return torch.Generator().manual_seed(2**32 - 1 - number)


def start(
    features: int, hidden: int, densities: Sequence[float], robust: Sequence[bool], seed: int
) -> State:
    """Untrained models, one for each density with its training, from one Xavier normal draw."""
    generator = stream("start", seed)
    first_DF = torch.randn(hidden, features, generator=generator) * (2 / (features + hidden)) ** 0.5
    W_MDF = first_DF.repeat(len(densities), 1, 1)
    b_MF = torch.zeros(len(densities), features)
    zero = {f"{n}_{p}": torch.zeros_like(v) for n in "mv" for p, v in (("W", W_MDF), ("b", b_MF))}
    return State(Toys(W_MDF, b_MF, torch.tensor(densities), tuple(robust)), zero, 0, [])


def draw(
    density_M: Float[Tensor, " m"], inputs: int, features: int, generator: torch.Generator
) -> Float[Tensor, "m b f"]:
    """Inputs of every model, from the same uniform numbers."""
    return place(torch.rand(inputs, features, generator=generator), density_M)


def place(u_BF: Float[Tensor, "b f"], density_M: Float[Tensor, " m"]) -> Float[Tensor, "m b f"]:
    """max(0, 1 - u / density), with density 1 kept as 1 - u."""
    density_M11 = density_M[:, None, None]
    return torch.sub(density_M11, u_BF).relu_().div_(density_M11)


def outputs(toys: Toys, x_MBF: Float[Tensor, "m b f"]) -> Float[Tensor, "m b f"]:
    """x' = ReLU(W^T W x + b)."""
    h_MBD = torch.bmm(x_MBF, toys.W_MDF.mT)
    b_MBF = toys.b_MF[:, None].expand(-1, x_MBF.shape[1], -1)
    return torch.baddbmm(b_MBF, h_MBD, toys.W_MDF).relu_()


def radius(x_MBF: Float[Tensor, "m b f"], attack: float) -> Float[Tensor, " m"]:
    """The norm of an attack: `attack` times the mean L2 norm of the inputs."""
    norm_MB: Tensor = x_MBF.norm(dim=-1)
    return norm_MB.mean(-1) * attack


def behind_relu(
    out_MBF: Float[Tensor, "m b f"], target_MBF: Float[Tensor, "m b f"]
) -> Float[Tensor, "m b f"]:
    """Gradient of ||target - out||^2 / 2 before the ReLU. Seven times as fast as a product with
    the mask out > 0."""
    error: Tensor = torch.ops.aten.threshold_backward(out_MBF - target_MBF, out_MBF, 0)
    return error


def input_gradient(
    toys: Toys, x_MBF: Float[Tensor, "m b f"], target_MBF: Float[Tensor, "m b f"]
) -> Float[Tensor, "m b f"]:
    """Gradient of ||target - x'(x)||^2 / 2 of each input with respect to x."""
    out_MBF = outputs(toys, x_MBF)
    error_MBF = behind_relu(out_MBF, target_MBF)
    return torch.bmm(torch.bmm(error_MBF, toys.W_MDF.mT), toys.W_MDF)


def gradient_step(
    toys: Toys,
    x_MBF: Float[Tensor, "m b f"],
    noise_BF: Float[Tensor, "b f"],
    radius_M: Float[Tensor, " m"],
) -> Float[Tensor, "m b f"]:
    """The attack: a step of norm radius along the gradient at x + noise; zero where there is no
    gradient."""
    step_MBF = input_gradient(toys, x_MBF + noise_BF, x_MBF)
    norm_MB1 = step_MBF.norm(dim=-1, keepdim=True).clamp_min_(TINY)
    return step_MBF.mul_(radius_M[:, None, None] / norm_MB1)


def gradients(
    toys: Toys, x_MBF: Float[Tensor, "m b f"], target_MBF: Float[Tensor, "m b f"]
) -> tuple[Float[Tensor, "m d f"], Float[Tensor, "m f"]]:
    """Gradients of each model's loss with respect to W and b."""
    h_MBD = torch.bmm(x_MBF, toys.W_MDF.mT)
    b_MBF = toys.b_MF[:, None].expand(-1, x_MBF.shape[1], -1)
    out_MBF = torch.baddbmm(b_MBF, h_MBD, toys.W_MDF).relu_()
    error_MBF = behind_relu(out_MBF, target_MBF).mul_(2 / (x_MBF.shape[1] * x_MBF.shape[2]))
    back_MBD = torch.bmm(error_MBF, toys.W_MDF.mT)
    W_grad_MDF = torch.bmm(h_MBD.mT, error_MBF).baddbmm_(back_MBD.mT, x_MBF)
    return W_grad_MDF, error_MBF.sum(1)


def batch_gradients(
    toys: Toys,
    x_MBF: Float[Tensor, "m b f"],
    noise_HF: Float[Tensor, "h f"],
    attack: float,
) -> tuple[Float[Tensor, "m d f"], Float[Tensor, "m f"]]:
    """Gradients of models that are all robust or all clean, on a batch of the same inputs.

    `noise_HF` has a row for each input of the attacked half.
    """
    if not toys.robust_M[0]:
        return gradients(toys, x_MBF, x_MBF)
    half_MBF = x_MBF[:, -len(noise_HF) :]
    step_MBF = gradient_step(toys, half_MBF, noise_HF, radius(half_MBF, attack))
    given_MBF = x_MBF.clone()
    given_MBF[:, -len(noise_HF) :] += step_MBF
    return gradients(toys, given_MBF, x_MBF)


def blocks(robust_M: Sequence[bool], size: int = BLOCK) -> list[slice]:
    """Models in groups of at most `size`, each all robust or all clean."""
    found, first = [], 0
    for i in range(1, len(robust_M) + 1):
        if i == len(robust_M) or i - first == size or robust_M[i] != robust_M[first]:
            found.append(slice(first, i))
            first = i
    return found


def adam(value: Tensor, grad: Tensor, m: Tensor, v: Tensor, step: int, lr: float) -> None:
    """One step of Adam, in place; `step` begins at 1."""
    m.lerp_(grad, 1 - BETAS[0])
    v.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
    root = (v / (1 - BETAS[1] ** step)).sqrt_().add_(EPS)
    value.addcdiv_(m, root, value=-lr / (1 - BETAS[0] ** step))


def train_toys(
    state: State,
    training: Training,
    seed: int,
    *,
    traced: Sequence[int] = (),
    tell: Callable[[State], Any] = lambda state: None,
) -> State:
    """Train models from where they are to `training.steps`; `tell` is called after each step.

    The inputs of a step follow from seed and step alone, so that a training that was stopped and
    one of fewer models go the same way. At the steps `traced`, ||W||_F^2 / D is kept.
    """
    toys, generator, kept = state.toys, torch.Generator(), frozenset(traced)
    W_grad_MDF, b_grad_MF = torch.empty_like(toys.W_MDF), torch.empty_like(toys.b_MF)
    parts = [(part, toys.part(part)) for part in blocks(toys.robust_M)]
    features = toys.b_MF.shape[1]
    while state.step < training.steps:
        generator.manual_seed(seed * STRIDE + state.step)
        u_BF = torch.rand(training.batch, features, generator=generator)
        noise_BF = torch.randn(training.batch // 2, features, generator=generator) * NOISE
        for part, some in parts:
            x_MBF = place(u_BF, some.density_M)
            W_grad_MDF[part], b_grad_MF[part] = batch_gradients(
                some, x_MBF, noise_BF, training.attack
            )
        state.step += 1
        for name, value, grad in (("W", toys.W_MDF, W_grad_MDF), ("b", toys.b_MF, b_grad_MF)):
            m, v = state.moments[f"m_{name}"], state.moments[f"v_{name}"]
            adam(value, grad, m, v, state.step, training.lr)
        if state.step in kept:
            state.trace.append((state.step, features_per_dimension(toys.W_MDF)))
        tell(state)
    return state


def features_per_dimension(W_MDF: Float[Tensor, "m d f"]) -> Float[Tensor, " m"]:
    """||W||_F^2 / D: above 1, features share dimensions."""
    return W_MDF.square().sum((1, 2)) / W_MDF.shape[1]
