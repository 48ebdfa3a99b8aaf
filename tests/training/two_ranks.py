"""Run a function in two processes that talk over gloo, and give back what rank 0 returns.

The functions live in modules of their own kind: torch starts fresh interpreters, which import them by name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank: int, world: int, meeting: str, folder: str, function, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        found = function(*arguments)
        if rank == 0:
            torch.save(found, Path(folder) / "found.pt")
    finally:
        dist.destroy_process_group()


def run(function, *arguments, folder: Path, world: int = 2):
    """`function(*arguments)` on every rank; what rank 0 returned (tensors, numbers, strings, containers)."""
    with tempfile.TemporaryDirectory() as place:  # a file to meet at, as a free port may be taken meanwhile
        meeting = str(Path(place) / "meeting")
        mp.spawn(_rank, (world, meeting, str(folder), function, arguments), nprocs=world)
    return torch.load(Path(folder) / "found.pt", weights_only=True)
