"""The calibrated soft disc: one kernel family, the same function in every engine.

A *level* L is the kernel k_L(δ) = clamp(L - δ, 0, 1) on the distance δ of pixel centres, divided by its
sum S_L; V_L is its second moment per axis. A disc of radius r is the mixture of the two neighbouring
levels whose second moment is that of a uniform disc, r²/4:

    w_r = (1 - t) k_lo / S_lo + t k_hi / S_hi,     t = (r²/4 - V_lo) / (V_hi - V_lo)

So energy falls strictly with every stop (there is no dead zone below a pixel), L = 1 is the identity, and
the result is linear in the levels: taps, prefix sums and FFTs compute the same numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def _next_level(level: float) -> float:
    """Step 1/4 to 4, 1/2 to 12, then max(1, L/32)."""
    if level < 4.0:
        return level + 0.25
    if level < 12.0:
        return level + 0.5
    return level + max(1.0, level / 32.0)


def reach_px(level: float) -> int:
    """Largest whole offset at which the kernel of `level` is not zero, px."""
    return int(np.ceil(level)) - 1


def level_quadrant(level: float) -> np.ndarray:
    """k_L on offsets 0..reach in both axes, float64, not normalised: the kernel is even in x and y."""
    offsets = np.arange(reach_px(level) + 1, dtype=np.float64)
    return np.clip(level - np.hypot(offsets[:, None], offsets[None, :]), 0.0, 1.0)


@functools.cache
def _moments(level: float) -> tuple[float, float]:
    """(S_L, V_L): sum and second moment per axis on the lattice."""
    quadrant = level_quadrant(level)
    fold = np.full(quadrant.shape[0], 2.0)
    fold[0] = 1.0
    by_column = (quadrant * fold[:, None]).sum(axis=0) * fold
    total = by_column.sum()
    offsets = np.arange(quadrant.shape[0], dtype=np.float64)
    return float(total), float((by_column * offsets**2).sum() / total)


def mix(variance: np.ndarray, radius_px: Tensor) -> tuple[Tensor, Tensor]:
    """Lower level and mixing weight of each radius for levels with second moments `variance`, rising from 0.

    The mixture's second moment is r²/4. Returns (lo, t): int64 index and 0 <= t <= 1, differentiable.
    """
    table = torch.as_tensor(variance, dtype=radius_px.dtype, device=radius_px.device)
    wanted = radius_px * radius_px / 4.0
    lo = torch.searchsorted(table, wanted.detach().contiguous(), right=True) - 1
    lo = lo.clamp(0, len(table) - 2)
    t = (wanted - table[lo]) / (table[lo + 1] - table[lo])
    return lo, t.clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels of the disc up to some radius, float64: `size[k]` = L, `total[k]` = S_L, `variance[k]` = V_L."""

    size: np.ndarray
    total: np.ndarray
    variance: np.ndarray

    def __len__(self) -> int:
        return len(self.size)

    @property
    def reach_px(self) -> int:
        """Largest offset that any of the levels touches, px."""
        return reach_px(float(self.size[-1]))

    def mix(self, radius_px: Tensor) -> tuple[Tensor, Tensor]:
        """`mix` for radii of any shape, 0 <= r <= the radius the levels were made for."""
        return mix(self.variance, radius_px)


@functools.cache
def levels_of(count: int) -> Levels:
    """The first `count` levels."""
    sizes = [1.0]
    while len(sizes) < count:
        sizes.append(_next_level(sizes[-1]))
    total, variance = np.array([_moments(size) for size in sizes]).T.copy()
    return Levels(np.array(sizes), total, variance)


def levels_for(max_radius_px: float) -> Levels:
    """The shortest table of levels that reaches `max_radius_px`; at least two levels."""
    count, level = 2, _next_level(1.0)
    while _moments(level)[1] < max_radius_px * max_radius_px / 4.0:
        level = _next_level(level)
        count += 1
    return levels_of(count)


def disc_kernel(radius_px: float) -> np.ndarray:
    """The disc of one radius as a square float64 kernel that sums to 1, odd side; for tests and pictures."""
    levels = levels_for(radius_px)
    lo, t = levels.mix(torch.tensor([float(radius_px)], dtype=torch.float64))
    reach = reach_px(float(levels.size[int(lo) + 1]))
    axis = np.arange(-reach, reach + 1, dtype=np.float64)
    distance = np.hypot(axis[:, None], axis[None, :])
    kernel = np.zeros_like(distance)
    for k, weight in ((int(lo), 1.0 - float(t)), (int(lo) + 1, float(t))):
        kernel += weight / levels.total[k] * np.clip(levels.size[k] - distance, 0.0, 1.0)
    return kernel
