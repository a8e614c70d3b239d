"""A network whose units are templates of curves, so that what a study must find is known."""

import torch
from torch import nn

from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject
from tendril.study.measures.curve_stimuli import draw_curve

ORIENTATIONS = tuple(45.0 * i for i in range(8))
KERNEL = 31
THRESHOLD = 0.5


class Templates(nn.Module):
    """Eight units that match a curve of radius 10 drawn in one direction, zero-mean, so that
    even surfaces leave them silent; one that matches a straight line, one that is light."""

    def __init__(self) -> None:
        super().__init__()
        middle = (KERNEL // 2, KERNEL // 2)
        drawn = [draw_curve(o, 10.0, "line", KERNEL, middle) for o in ORIENTATIONS]
        drawn.append(draw_curve(0.0, 1e6, "line", KERNEL, middle))
        grey = torch.stack([torch.from_numpy(image) for image in drawn])
        kernels = grey - grey.mean(dim=(1, 2), keepdim=True)
        kernels = kernels / kernels.square().sum(dim=(1, 2), keepdim=True)
        kernels = torch.cat([kernels, torch.full((1, KERNEL, KERNEL), 0.5 / KERNEL**2)])
        self.match = nn.Conv2d(3, len(kernels), KERNEL, stride=4, padding=KERNEL // 2)
        self.match.weight.data = kernels[:, None].repeat(1, 3, 1, 1) / 3
        self.match.bias.data = torch.tensor([-THRESHOLD] * len(drawn) + [0.0])
        self.units = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.units(self.match(x))


def make() -> Subject:
    """The subject, for `--subject tests/study_subject.py:make`."""
    return subject_from_module(Templates(), input_size=64, name="templates")
