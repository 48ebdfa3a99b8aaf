"""The order of the samples: a pure function of the seed and of how many were drawn before.

Position p of the endless stream is sample `order(seed, p // n, n)[p % n]`; a step takes the next
`global_batch` positions and a rank its slice of them. So 1, 2 or 4 ranks see the same global batches, and a
run goes on where it stopped, on any number of ranks, from one integer: the step. Sets of one size that are
read side by side want different seeds, or they run in step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .packed import CorruptSample

log = logging.getLogger("fine_defocus")

#: The last word of Philox's counter: substitutes are drawn from another stretch than the orders are.
_SUBSTITUTES = 1
_MOST_SUBSTITUTES = 64


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The samples 0..n−1 in this epoch's order, int64 `(n,)`: Philox keyed by seed and epoch."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    permutation = random.permutation(n)
    permutation.flags.writeable = False
    return permutation


class EpochSampler:
    """Which samples a rank takes at a step.

    n: samples in the set. global_batch: samples of all ranks together per step.
    Raises ValueError where the batch does not divide among the ranks.
    """

    def __init__(self, n: int, *, seed: int, global_batch: int, rank: int = 0, world: int = 1):
        if n < 1 or global_batch < 1:
            raise ValueError(f"{n} samples in batches of {global_batch}: both must be at least 1.")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"The seed is {seed}: it must be at least 0 and less than 2⁶⁴.")
        if not 0 <= rank < world:
            raise ValueError(f"Rank {rank} of {world}: ranks count from 0 to {world - 1}.")
        if global_batch % world:
            raise ValueError(
                f"A global batch of {global_batch} does not divide among {world} ranks: use a multiple of "
                f"{world}."
            )
        self.n, self.seed, self.global_batch, self.rank, self.world = n, seed, global_batch, rank, world

    def positions(self, step: int) -> range:
        """This rank's positions in the endless stream."""
        own = self.global_batch // self.world
        first = step * self.global_batch + self.rank * own
        return range(first, first + own)

    def sample(self, position: int) -> int:
        """The sample at a position."""
        epoch, within = divmod(position, self.n)
        return int(order(self.seed, epoch, self.n)[within])

    def indices(self, step: int) -> list[int]:
        """This rank's samples at a step, in order."""
        return [self.sample(position) for position in self.positions(step)]

    def substitutes(self, position: int) -> Iterator[int]:
        """Samples to take, one after the other, where the one at this position cannot be read.

        They depend on seed and position alone, so that every world size finds the same ones.
        """
        key = np.array([self.seed, position], np.uint64)
        counter = np.array([0, 0, 0, _SUBSTITUTES], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=counter))
        for _ in range(_MOST_SUBSTITUTES):
            yield int(random.integers(self.n))


class Batches(Iterator[list[Any]]):
    """A rank's batches, endlessly: lists of what `dataset[i]` gives.

    A sample that raises `CorruptSample` is replaced by another and counted.
    max_corrupt_share: of the set; above it the run stops with RuntimeError. Every rank counts the different
        samples that it met itself since it was started.
    """

    def __init__(
        self, dataset: Sequence[Any], sampler: EpochSampler, *, step: int = 0, max_corrupt_share: float = 1e-3
    ):
        if len(dataset) != sampler.n:
            raise ValueError(f"The sampler is for {sampler.n} samples and the set has {len(dataset)}.")
        if not 0.0 <= max_corrupt_share <= 1.0:
            raise ValueError(f"The share of corrupt samples is {max_corrupt_share}: it must be within 0..1.")
        self._dataset, self._sampler = dataset, sampler
        self._share = max_corrupt_share
        self.step = step
        self.corrupt: set[int] = set()

    def __next__(self) -> list[Any]:
        batch = [self._read(position) for position in self._sampler.positions(self.step)]
        self.step += 1
        return batch

    def _read(self, position: int) -> Any:
        candidates = [self._sampler.sample(position)]
        for attempt in self._sampler.substitutes(position):
            index = candidates[-1]
            if index not in self.corrupt:
                try:
                    return self._dataset[index]
                except CorruptSample as error:
                    self._count(index, error)
            candidates.append(attempt)
        raise RuntimeError(
            f"{len(candidates)} samples in a row cannot be read, the last ones "
            f"{', '.join(map(str, candidates[-3:]))}: check the set with `python -m training verify`."
        )

    def _count(self, index: int, error: CorruptSample) -> None:
        self.corrupt.add(index)
        log.warning("A sample is left out: %s", error)
        if len(self.corrupt) > self._share * self._sampler.n:
            raise RuntimeError(
                f"{len(self.corrupt)} of {self._sampler.n} samples are corrupt, more than the "
                f"{self._share:.2%} that are accepted: check the set with `python -m training verify`. The "
                f"last one: {error}"
            ) from error
