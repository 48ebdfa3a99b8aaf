"""Intervals: of a mean by the bootstrap, of a share by Wilson."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def bootstrap(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the mean over samples drawn with replacement; None for fewer than 2 values."""
    from scipy import stats

    if len(values) < 2:
        return None
    settings: Any = {"confidence_level": confidence, "method": "percentile", "batch": 256}
    data, rng = (np.asarray(values, dtype=np.float64),), np.random.default_rng(seed)
    interval = stats.bootstrap(data, np.mean, n_resamples=resamples, rng=rng, **settings).confidence_interval
    return float(interval.low), float(interval.high)


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, 0..1. Raises ValueError for no trials and more hits than trials."""
    from scipy import stats

    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no share.")
    interval = stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
