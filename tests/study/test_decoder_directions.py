"""Promoted tokens and neighbours, against the product with the whole vocabulary and all cosines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tendril.models.subjects.language import language_subject
from tendril.study.measures.decoder_directions import neighbours, promoted

from ..helpers import tiny_language

D = 16


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logit_weights_are_those_of_the_unembedding(tmp_path: Path, kind: str) -> None:
    subject = language_subject(str(tiny_language.save(tmp_path / kind, kind)))
    norm: Any = subject.module.get_submodule(subject.final_norm)
    rng = torch.Generator().manual_seed(3)
    norm.weight.copy_(torch.randn(D, generator=rng))
    if kind == "gpt2":
        norm.bias.copy_(torch.randn(D, generator=rng))
    W_dec = torch.randn(300, D, generator=rng)
    made = promoted(subject, W_dec, 4)
    assert made is not None
    W_VD: Any = subject.module.get_submodule(subject.unembed).weight
    v_SD = W_dec / W_dec.norm(dim=1, keepdim=True) * D**0.5
    if kind == "gpt2":
        v_SD = (v_SD - v_SD.mean(1, keepdim=True)) / v_SD.std(1, keepdim=True, correction=0)
    logits_SV = (v_SD * norm.weight) @ W_VD[: len(subject.tokenizer)].T
    logits_SV -= logits_SV.mean(1, keepdim=True)
    for descending, numbers, weights in (
        (True, made.up_SP, made.up_weight_SP),
        (False, made.down_SP, made.down_weight_SP),
    ):
        ranked = logits_SV.sort(dim=1, descending=descending)
        assert torch.equal(numbers, ranked.indices[:, :4])
        assert torch.allclose(weights, ranked.values[:, :4], rtol=1e-3, atol=1e-5)
    assert promoted(subject, W_dec[:, :8], 4) is None


def test_neighbours_are_those_of_all_cosines() -> None:
    W_dec = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    numbers, cosines = neighbours(W_dec, 3)
    cosine_SS = np.corrcoef(np.c_[W_dec, -W_dec])  # centred by the mirrored half: plain cosines
    np.fill_diagonal(cosine_SS, -2)
    assert np.array_equal(numbers.numpy(), np.argsort(-cosine_SS, 1)[:, :3])
    assert np.allclose(cosines.numpy(), -np.sort(-cosine_SS, 1)[:, :3], atol=1e-5)
    assert neighbours(W_dec[:1], 3)[0].shape == (1, 0)
