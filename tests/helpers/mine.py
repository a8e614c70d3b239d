"""A network of the tests' own, given as FILE.py:FUNCTION: small enough to run in a moment."""

import torch
from torch import nn

from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject


def network() -> Subject:
    """Two convolutions on 32 pixels: `early` has a map of 16 x 16, `late` of 8 x 8."""
    generator = torch.Generator().manual_seed(0)
    stack = nn.Sequential()
    stack.add_module("early", nn.Conv2d(3, 6, 3, stride=2, padding=1))
    stack.add_module("relu", nn.ReLU(inplace=True))
    stack.add_module("late", nn.Conv2d(6, 10, 3, stride=2, padding=1))
    stack.add_module("after", nn.Flatten())
    for parameter in stack.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return subject_from_module(stack, input_size=32, name="small")


def huge() -> Subject:
    """Its activations overflow float16."""
    subject = network()
    for parameter in subject.module.parameters():
        parameter.mul_(1e4)
    return subject


def loud(times: float = 60.0) -> Subject:
    """One channel of `late` is 60 times as large as the others."""
    subject = network()
    late = subject.module.get_submodule("late")
    assert isinstance(late, nn.Conv2d)
    with torch.no_grad():
        late.weight[0] *= times
    return subject


def loudest() -> Subject:
    """One channel of `late` is 300 times as large as the others."""
    return loud(300.0)
