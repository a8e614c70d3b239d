"""A network that mixes its curve detectors: a site no unit of which detects curves, though eight
directions do, and a layer after it that takes them apart and answers."""

import torch
from torch import nn

from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject
from tests.helpers.study_subject import Templates

CURVES = 8


def mixing(width: int = 10) -> torch.Tensor:
    """An orthogonal matrix [D, D]; row i is the direction of template i at the site `mixed`."""
    generator = torch.Generator().manual_seed(143)
    mixed, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    return mixed


class Mixed(nn.Module):
    """Templates, mixed by an orthogonal matrix (`mixed`), taken apart again (`apart`), answered."""

    def __init__(self) -> None:
        super().__init__()
        self.templates = Templates()
        width = len(self.templates.match.weight)
        self.mixed, self.back = (nn.Conv2d(width, width, 1, bias=False) for _ in range(2))
        mixed = mixing(width)
        self.mixed.weight.data = mixed.T[:, :, None, None].clone()
        self.back.weight.data = mixed[:, :, None, None].clone()
        self.apart = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apart = self.apart(self.back(self.mixed(self.templates(x))))
        return 20 * apart[:, :CURVES].amax(dim=(2, 3))


def make() -> Subject:
    """The subject, for `--subject tests/helpers/mixed_subject.py:make`."""
    return subject_from_module(Mixed(), input_size=64, name="mixed")
