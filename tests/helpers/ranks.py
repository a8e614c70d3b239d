"""Training by several processes, on a reader that deals the rows of each batch to the ranks, so
that together they see what one process sees. As a program, under torchrun:
torchrun --nproc-per-node N -m tests.helpers.ranks HOME OBJECTIVE [STOP]."""

import os
import sys
from pathlib import Path
from typing import Any

from tendril.data.store.reader import Store
from tendril.train.config import TrainConfig
from tendril.train.loop import TrainResult, train
from tendril.train.trainer import Trainer

from . import sparse

SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"objective": "topk", "aux_k": 8, "k": 2},
    "relu_l1": {"objective": "relu_l1", "l1": 1.0, "lr": 3e-3, "resample_every": 20},
    "gated": {"objective": "gated", "l1": 1.0},
    "jumprelu": {"objective": "jumprelu"},
    "batch_topk": {"objective": "batch_topk"},
}


class Dealt:
    """This rank's part of each batch of a stream."""

    def __init__(self, stream: Any, rank: int, ranks: int) -> None:
        self._stream, self._rank, self._ranks = stream, rank, ranks
        self.state, self.restore, self.close = stream.state, stream.restore, stream.close

    def __next__(self) -> Any:
        dealt = {}
        for site, rows in next(self._stream).items():
            size = len(rows) // self._ranks
            dealt[site] = rows[self._rank * size : (self._rank + 1) * size]
        return dealt


def deal() -> None:
    """Give the store's reader ranks of this kind."""
    batches = Store.batches

    def dealing(self: Store, site: Any, size: int, *, rank: int = 0, ranks: int = 1, **how: Any):  # type: ignore[no-untyped-def]
        stream = batches(self, site, size * ranks, **how)
        return Dealt(stream, rank, ranks) if ranks > 1 else stream

    Store.batches = dealing  # type: ignore[method-assign, assignment]


def config(home: Path, objective: str) -> TrainConfig:
    """A run in which latents die, and norms are clipped."""
    return sparse.tiny(home, dead_after=128, log_every=1, **SETTINGS[objective])


def run(home: Path, objective: str, stop: int | None = None) -> TrainResult | None:
    """Train; or, at step `stop`, end as a process that is interrupted."""
    advance = Trainer.advance

    def stopping(trainer: Trainer) -> Any:
        if trainer.step == stop:
            raise KeyboardInterrupt
        return advance(trainer)

    Trainer.advance = stopping  # type: ignore[method-assign]
    try:
        return train(config(home, objective))
    except KeyboardInterrupt:
        return None
    finally:
        Trainer.advance = advance  # type: ignore[method-assign]


if __name__ == "__main__":
    deal()
    stop = int(sys.argv[3]) if len(sys.argv) > 3 else None
    for objective in sys.argv[2].split(","):
        made = run(Path(sys.argv[1]), objective, stop)
        print(os.environ["RANK"], made and made.run.name, flush=True)
