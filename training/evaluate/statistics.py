"""Intervals: of a mean by the bootstrap, of a share by Wilson."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

_CHUNK = 256


def bootstrap(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the mean over samples drawn with replacement; None for fewer than 2 values."""
    found = np.asarray(values, dtype=np.float64)
    if found.size < 2:
        return None
    random = np.random.Generator(np.random.PCG64(seed))
    means = np.concatenate(
        [
            found[random.integers(0, found.size, (min(_CHUNK, resamples - start), found.size))].mean(axis=1)
            for start in range(0, resamples, _CHUNK)
        ]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, 0..1 (Wilson 1927).

    Raises ValueError for no trials and for more hits than trials.
    """
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no share.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share, z2 = hits / count, z * z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    # exact at the ends, where rounding would leave 1e-17
    return 0.0 if hits == 0 else middle - half, 1.0 if hits == count else middle + half
