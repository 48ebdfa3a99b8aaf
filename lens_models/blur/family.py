"""Level families of aperture shapes: the disc's rule for any kernel.

A level is the shape's drawing, area-sampled on the lattice at some scale, of unit energy, its centroid at
the source. V is its second moment (mean of both axes); area sampling makes V grow with the scale for any
shape. A radius r mixes the two neighbouring levels so that the second moment is r²/4: an f-number means
the same with every shape. Level 0 is the identity, so below a pixel the shape fades into it.

A cat's eye varies over the field: a grid of zones, each a family of its own, blended bilinearly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import disc
from ..shape import ApertureShape, drawing, is_symmetric, moments

#: Zones of a cat's eye along each side of the picture.
ZONES = 7
#: Levels that are not wider than the one before by this much (px²) are left out.
_LEAST_STEP = 0.02
#: Weights below this are rounding of the running sums, whose total is 1.
_ROUNDING = 1e-14


class Family:
    """Levels of one drawing: `variance[k]` = V_k, `kernel(k)` and `reach(k)`. Grows when asked for more."""

    def __init__(self, drawn: np.ndarray, squeeze: float) -> None:
        self._drawn = drawn
        self._centre, (vx, vy) = moments(drawn)
        self._stretch = (squeeze**-0.5, squeeze**0.5)
        self._unit = (vx / squeeze + vy * squeeze) / 2.0
        self.symmetric = is_symmetric(drawn)
        self._table = np.pad(drawn, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
        self._sums = tuple(np.pad(drawn.sum(axis=axis), (1, 0)).cumsum() for axis in (0, 1))
        self._scales, self._variances = [0.0], [0.0]
        self._tried = 1

    def _edges(self, scale: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the edges of the pixels fall in the running sums of one axis: index and fraction."""
        scale, side = scale * self._stretch[axis], self._drawn.shape[0]
        reach = max(0, math.ceil((1.0 + abs(self._centre[axis])) * scale - 0.5))
        at = (np.arange(-reach, reach + 2) - 0.5) / scale + self._centre[axis]
        at = np.clip((at + 1.0) * side / 2.0, 0.0, side)
        index = np.minimum(at.astype(int), side - 1)
        return index, at - index

    def _variance(self, scale: float) -> float:
        result = 0.0
        for axis in (0, 1):
            index, part = self._edges(scale, axis)
            sums = self._sums[axis]
            marginal = np.diff(sums[index] + part * (sums[index + 1] - sums[index]))
            offset = np.arange(len(marginal)) - len(marginal) // 2
            result += float(marginal @ offset**2.0) / 2.0
        return result

    def levels_for(self, max_radius_px: float) -> int:
        """How many levels reach `max_radius_px`; at least two. `variance` is that long or longer."""
        wanted = max_radius_px * max_radius_px / 4.0
        while len(self._variances) < 2 or self._variances[-1] < wanted:
            self._tried += 1
            step = disc.levels_of(self._tried)
            # as wide as the disc's level, less what area sampling adds
            scale = math.sqrt((step.variance[-1] - 1.0 / 12.0) / self._unit)
            variance = self._variance(scale)
            if variance > self._variances[-1] + _LEAST_STEP:
                self._scales.append(scale)
                self._variances.append(variance)
        return max(2, int(np.searchsorted(self._variances, wanted)) + 1)

    @property
    def variance(self) -> np.ndarray:
        return np.array(self._variances)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - families live in a bounded cache themselves
    def kernel(self, k: int) -> np.ndarray:
        """Level k, odd sides `(2 Ry + 1, 2 Rx + 1)`, float64, sum 1, upright (lights behind the focus)."""
        if k == 0:
            return np.ones((1, 1))
        (column, x), (row, y) = (self._edges(self._scales[k], axis) for axis in (0, 1))
        across = self._table[:, column] * (1.0 - x) + self._table[:, column + 1] * x
        both = across[row] * (1.0 - y)[:, None] + across[row + 1] * y[:, None]
        kernel = np.diff(np.diff(both, axis=0), axis=1)
        if self.symmetric:
            kernel = (kernel + kernel[::-1, ::-1]) / 2.0
        kernel[kernel < _ROUNDING] = 0.0
        used = kernel > 0.0
        for axis in (0, 1):
            lines = np.flatnonzero(used.any(axis=1 - axis))
            empty = min(lines[0], kernel.shape[axis] - 1 - lines[-1])
            kernel = np.take(kernel, range(empty, kernel.shape[axis] - empty), axis)
            used = kernel > 0.0
        return kernel / kernel.sum()

    def reach(self, k: int) -> int:
        """No offset of level k is larger, px."""
        if k == 0:
            return 0
        return max((len(self._edges(self._scales[k], axis)[0]) - 2) // 2 for axis in (0, 1))

    def mix(self, radius_px: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Lower level and mixing weight of each radius, as `disc.Levels.mix`; the sign does not matter."""
        return disc.mix(self.variance[:count], radius_px)


@functools.lru_cache(maxsize=2 * ZONES * ZONES)
def family(shape: ApertureShape, cut: tuple[float, float] = (0.0, 0.0)) -> Family:
    """The family of a shape, or of one zone of a cat's eye."""
    return Family(drawing(shape, cut), shape.squeeze)


@dataclass(frozen=True, eq=False)
class Zone:
    """One family, and how much it counts at each row and column of a picture (None: everywhere fully)."""

    family: Family
    by_row: Tensor | None = None
    by_column: Tensor | None = None

    def weight(self, rows: slice, columns: slice) -> Tensor | None:
        """`(h, w)` in a window; None for 1 everywhere."""
        if self.by_row is None or self.by_column is None:
            return None
        return self.by_row[rows, None] * self.by_column[None, columns]


def zones(shape: ApertureShape, height: int, width: int, margin: int, like: Tensor) -> list[Zone]:
    """Families of a shape over a picture, the outer `margin` px of which lie beyond the frame."""
    if shape.cats_eye == 0.0:
        return [Zone(family(shape))]
    (rows, row_weights), (columns, column_weights) = (_hats(n, margin) for n in (height, width))
    sides = np.array([max(1, width - 2 * margin), max(1, height - 2 * margin)])
    half = sides / math.hypot(*sides)
    result = []
    for i, by_row in zip(rows, row_weights, strict=True):
        for j, by_column in zip(columns, column_weights, strict=True):
            toward_centre = -shape.cats_eye * half * (j, i)
            cut = (round(float(toward_centre[0]), 4) + 0.0, round(float(toward_centre[1]), 4) + 0.0)
            weights = (torch.from_numpy(w).to(like) for w in (by_row, by_column))
            result.append(Zone(family(shape, cut), *weights))
    return result


def _hats(count: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the zones along a side, -1..1, and their weights `(zones, count)`, which add up to 1."""
    inner = max(1, count - 2 * margin)
    at = (np.arange(count) - margin + 0.5) * 2.0 / inner - 1.0
    middles = np.linspace(-1.0, 1.0, ZONES)
    away = np.abs(np.clip(at, -1.0, 1.0)[None, :] - middles[:, None])
    weights = np.clip(1.0 - away * (ZONES - 1) / 2.0, 0.0, 1.0)
    used = weights.any(axis=1)
    return middles[used], weights[used]


def orientations(zone: Zone, radius_px: Tensor) -> Iterator[tuple[bool, Tensor | None]]:
    """(mirrored, which radii), None for all: a shape is point-inverted in front of the focal plane."""
    if zone.family.symmetric:
        yield False, None
        return
    front = radius_px < 0
    if not bool(front.all()):
        yield False, ~front
    if bool(front.any()):
        yield True, front
