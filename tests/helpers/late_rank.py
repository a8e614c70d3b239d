"""Two ranks that meet, one of them late; each prints the seconds it waited.
torchrun --nproc-per-node 2 -m tests.helpers.late_rank."""

import sys
import time

import torch

from tendril.train.distributed import launched

if __name__ == "__main__":
    ranks = launched(torch.device("cpu"))
    ranks.each(None)  # both are connected
    time.sleep(2 * ranks.rank)
    began = time.monotonic()
    ranks.wait()
    sys.stdout.write(f"{ranks.rank} {time.monotonic() - began}\n")  # at once: they share a pipe
