"""A network whose modules return activations in many layouts; channels differ from all sizes."""

import torch
from torch import Tensor, nn

import tendril
from tendril.models.subjects.subject import Subject

SIZE, MAP, CHANNELS = 32, 8, 6  # 8 x 8 map of 6 channels


class Reorder(nn.Module):
    """Returns a map [B, C, H, W] in another layout."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        tokens_BTD = x.flatten(2).transpose(1, 2)
        windows = x.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 3, 5, 1)
        return {
            "channels_first": lambda: x * 2,
            "channels_last": lambda: (x * 2).permute(0, 2, 3, 1).contiguous(),
            "windows": lambda: windows.reshape(-1, 16, CHANNELS),
            "tokens": lambda: tokens_BTD.contiguous(),
            "sequence_first": lambda: tokens_BTD.transpose(0, 1).contiguous(),
            "channels_then_cells": lambda: x.flatten(2),
            "class_token": lambda: torch.cat([tokens_BTD.mean(1, keepdim=True), tokens_BTD], 1),
            "cells_then_half": lambda: torch.cat([tokens_BTD, tokens_BTD], 2),
            "alike": lambda: tokens_BTD[:, :CHANNELS],
            "nested": lambda: ([x * 3], None),
            "five": lambda: x[:, :, None],
            "flat": lambda: tokens_BTD.reshape(-1, CHANNELS),
            "pair": lambda: (x * 2, 1),
            "named": lambda: {"x": x},
            "vector": lambda: x.mean((2, 3)),
            "strided": lambda: torch.cat([x, x], 3)[:, :, :, ::2],
            "scrambled": lambda: tokens_BTD.transpose(0, 1).reshape(tokens_BTD.shape),
            "cut": lambda: windows.reshape(-1, 16, CHANNELS)[: len(x)],
            "mixed": lambda: x - x.mean(0),
            "no_batch": lambda: x[:1],
            "scalar": lambda: x.mean((1, 2, 3)),
        }[self.kind]()


KINDS = (
    *("channels_first", "channels_last", "windows", "tokens", "sequence_first", "flat", "pair"),
    *("channels_then_cells", "class_token", "cells_then_half", "alike", "nested", "five"),
    *("named", "vector", "strided", "mixed", "no_batch", "scalar", "scrambled", "cut"),
)


class Layouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 4, stride=4)
        self.kinds = nn.ModuleDict({kind: Reorder(kind) for kind in KINDS})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind in self.kinds.values():
            kind(x)
        return x


def network() -> Subject:
    torch.manual_seed(0)
    return tendril.subject_from_module(Layouts(), input_size=SIZE)


DECLARED = {"sequence_first": "LNC", "cells_then_half": "NLC", "alike": "NLC"}


def declared() -> Subject:
    """The network with declared sites whose layout cannot be told."""
    torch.manual_seed(0)
    layout = {f"kinds.{kind}": letters for kind, letters in DECLARED.items()}
    return tendril.subject_from_module(Layouts(), input_size=SIZE, layout=layout)
