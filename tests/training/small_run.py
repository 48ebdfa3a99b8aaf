"""A small training to save and resume, and a disk that is full."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import torch
from torch import nn

from training.data.sampler import EpochSampler

CONFIG = {"optimiser": {"lr": 5e-7, "betas": [0.9, 0.999]}, "seed": 3, "log": {"every": 10}}
DATA = torch.randn(40, 6, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """A layer, a norm with a buffer that changes, and a layer that is never trained."""

    def __init__(self, seed: int, width: int = 7):
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.norm = nn.Linear(6, width), nn.BatchNorm1d(width)
        self.outer, self.frozen = nn.Linear(width, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.frozen(self.outer(torch.tanh(self.norm(self.inner(x)))))


class Run:
    """A small training whose batches follow from the step."""

    def __init__(self, seed: int = 0, width: int = 7):
        self.models = {"generator": Net(seed, width), "focus": Net(seed + 1, width)}
        for net in self.models.values():
            net.frozen.requires_grad_(False)
        both = [p for net in self.models.values() for p in net.parameters()]
        decayed, plain = [p for p in both if p.ndim > 1], [p for p in both if p.ndim == 1]
        groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.optimisers = {"both": torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)}
        self.sampler = EpochSampler(len(DATA), seed=1, global_batch=8)

    def train(self, first: int, end: int) -> None:
        optimiser = self.optimisers["both"]
        for step in range(first, end):
            x = DATA[self.sampler.indices(step)]
            out = self.models["focus"](self.models["generator"](x))
            optimiser.zero_grad()
            (out - x).square().mean().backward()
            for group in optimiser.param_groups:
                group["lr"] = 1e-2 / (1 + step)  # a schedule, which is part of the state
            optimiser.step()

    def tensors(self) -> list[torch.Tensor]:
        found = [t for net in self.models.values() for t in net.state_dict().values()]
        optimiser = self.optimisers["both"]
        for group in optimiser.param_groups:
            found += [t for p in group["params"] for _, t in sorted(optimiser.state.get(p, {}).items())]
        return [t.clone() for t in found]


def equal(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class FullDisk(io.FileIO):
    """A file on a disk that has room for a few bytes more."""

    def write(self, content):
        if self.tell() + len(memoryview(content).cast("B")) > 2000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


def fill_the_disk(monkeypatch, name: str) -> None:
    """Let one file of those that are written meet the end of the disk, through torch's own writing."""
    whole = Path.open

    def opened(path, mode="r", *rest, **more):
        if name in path.name and mode == "wb":
            return FullDisk(path, "w")  # without a buffer, as large tensors pass one by
        return whole(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", opened)
