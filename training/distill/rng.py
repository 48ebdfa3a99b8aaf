"""Random numbers as pure functions of seed, step, sample and purpose.

So a run goes on exactly where it stopped, and a sample gets the same noise on any number of ranks and on
any device: everything is drawn on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

#: Stands for the sample in a draw that all samples and all ranks share.
EVERYONE = -1


def generator(seed: int, step: int, sample: int, purpose: str) -> torch.Generator:
    """A fresh generator for one purpose; torch uses 32 bits of its seed."""
    digest = hashlib.blake2b(f"{seed}/{step}/{sample}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(seed: int, step: int, samples: Sequence[int], purpose: str, shape: Sequence[int]) -> Tensor:
    """Unit normal noise `(len(samples), *shape)`, float32; samples: places in the step's global batch."""
    found = [torch.randn(tuple(shape), generator=generator(seed, step, i, purpose)) for i in samples]
    return torch.stack(found)


def integers(seed: int, step: int, samples: Sequence[int], purpose: str, low: int, high: int) -> Tensor:
    """low..high−1 for each sample, `(len(samples),)` int64."""
    found = [torch.randint(low, high, (), generator=generator(seed, step, i, purpose)) for i in samples]
    return torch.stack(found)
