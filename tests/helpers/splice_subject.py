"""A network that tells three colours apart, for `--subject tests/splice_subject.py:make`."""

import torch
from torch import Tensor, nn

from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject


class Colours(nn.Module):
    """Class 0, 1, 2: the mean of red, green or blue is the highest. Two sites: `relu` holds
    red and green on a map, `blue_relu` blue."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.blue = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
        self.two.weight.data = torch.eye(3)[:2, :, None, None].clone()
        self.blue.weight.data = torch.eye(3)[2:, :, None, None].clone()
        self.relu, self.blue_relu = nn.ReLU(inplace=True), nn.ReLU()
        self.scale = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([self.relu(self.two(x)), self.blue_relu(self.blue(x))], dim=1)
        return self.scale(10 * maps.mean(dim=(2, 3)))


def make() -> Subject:
    """The subject; its site `relu` is red and green."""
    return subject_from_module(Colours(), input_size=8, name="colours")
