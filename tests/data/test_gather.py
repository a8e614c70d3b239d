"""`gather` equals `gather_plainly`; `compute_alone` affects only its thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tendril.data.device import compute_alone
from tendril.data.store import batches
from tendril.data.store.batches import gather, gather_plainly
from tendril.data.store.windows import TORCH


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("shape", [(50, 7), (50, 3, 4)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("piece", [1, 100, 2**19])
def test_pieces_are_what_is_gathered_plainly(
    monkeypatch: pytest.MonkeyPatch, dtype: str, shape: tuple[int, ...], scaled: bool, piece: int
) -> None:
    monkeypatch.setattr(batches, "PIECE", piece)
    random = torch.Generator().manual_seed(0)
    rows = (torch.randn(shape, generator=random) * 20).to(TORCH[dtype])
    factor = torch.rand(len(rows), generator=random) if scaled else None
    for count in (0, 1, 33, 50):
        chosen = torch.randperm(len(rows), generator=random)[:count]
        fast, plain = (torch.full((count, *shape[1:]), np.nan) for _ in range(2))
        gather(rows, chosen, factor, fast)
        gather_plainly(rows, chosen, factor, plain)
        assert torch.equal(fast, plain)
        expected = rows[chosen].float()
        if factor is not None:
            expected *= factor[chosen].view(-1, *(1,) * (len(shape) - 1))
        assert torch.equal(fast, expected)


def test_a_thread_alone_leaves_the_others_their_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1, initializer=compute_alone) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)
