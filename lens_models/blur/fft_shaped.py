"""Plan of the level stack for aperture shapes other than the disc."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..shape import ApertureShape
from .family import orientations, zones
from .plan import Plan, cached


class ShapedPlan(Plan):
    """Terms are (zone, orientation, level); the identity is level 0 of all of them.

    Radii are signed: < 0 lies in front of the focal plane, where a shape is point-inverted.
    """

    def __init__(self, radius_px: Tensor, shape: ApertureShape, wants_slope: bool, margin: int) -> None:
        self.radius = radius_px
        self.zones = zones(shape, radius_px.shape[-2], radius_px.shape[-1], margin, radius_px)
        largest = float(radius_px.abs().max())
        self.counts = [zone.family.levels_for(largest) for zone in self.zones]
        tops = zip(self.zones, self.counts, strict=True)
        self._lay_tiles(radius_px, max(zone.family.reach(count - 1) for zone, count in tops))
        self.terms: list[tuple[int, bool, int]] = [(-1, False, 0)]
        self._numbers: dict[tuple[int, bool, int], int] = {}
        self._tile: tuple | None = None
        self.used = [self._terms_of(*place, wants_slope) for place in self._places()]
        self.reach = self.term_reach(range(len(self.terms)))

    def _mixtures(self, index: int, rows: slice, columns: slice) -> list[tuple]:
        """(zone number, mirrored, weight, lower level, t) for everything that a tile uses."""
        key = (index, rows.start, columns.start)
        if self._tile is None or self._tile[0] != key:
            self._tile = (key, list(self._mix(self.radius[index, rows, columns], rows, columns)))
        return self._tile[1]

    def _mix(self, radius: Tensor, rows: slice, columns: slice):
        for number, zone in enumerate(self.zones):
            here = zone.weight(rows, columns)
            if here is not None and not bool(here.any()):
                continue
            lo, t = zone.family.mix(radius, self.counts[number])
            for mirrored, which in orientations(zone, radius):
                weight = torch.ones_like(radius) if here is None else here
                if which is not None:
                    weight = torch.where(which, weight, 0.0)
                yield number, mirrored, weight, lo, t

    def _terms_of(self, index: int, rows: slice, columns: slice, wants_slope: bool) -> list[int]:
        numbers = set()
        radius = self.radius[index, rows, columns]
        for number, mirrored, weight, lo, t in self._mixtures(index, rows, columns):
            counts = weight > 0
            upper = counts & ((radius != 0) if wants_slope else (t > 0))
            levels = set(lo[counts].unique().tolist()) | set((lo[upper] + 1).unique().tolist())
            for level in levels:
                numbers.add(self._number(number, mirrored, level))
        return sorted(numbers)

    def _number(self, zone: int, mirrored: bool, level: int) -> int:
        if level == 0:
            return 0
        term = (zone, mirrored, level)
        if term not in self._numbers:
            self._numbers[term] = len(self.terms)
            self.terms.append(term)
        return self._numbers[term]

    def term_reach(self, used: Sequence[int]) -> int:
        reaches = [self.zones[zone].family.reach(level) for zone, _, level in (self.terms[k] for k in used)]
        return max(reaches, default=0)

    def _of_term(self, k: int, index: int, rows: slice, columns: slice):
        """(weight, level, lower level, t, zone) of the mixtures that a term belongs to."""
        zone, mirrored, level = self.terms[k]
        for number, flipped, weight, lo, t in self._mixtures(index, rows, columns):
            if k == 0 or (number, flipped) == (zone, mirrored):
                yield weight, level, lo, t, number

    def hat(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        total = torch.zeros_like(self.radius[index, rows, columns])
        for weight, level, lo, t, _ in self._of_term(k, index, rows, columns):
            share = torch.where(lo == level, 1.0 - t, 0.0) + torch.where(lo == level - 1, t, 0.0)
            total = total + weight * share
        return total

    def slope(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """d hat / d radius: zones have second moments of their own, so this is not by t."""
        radius = self.radius[index, rows, columns]
        total = torch.zeros_like(radius)
        for weight, level, lo, _, number in self._of_term(k, index, rows, columns):
            variance = torch.from_numpy(self.zones[number].family.variance).to(radius)
            by_t = (lo == level - 1).to(radius.dtype) - (lo == level).to(radius.dtype)
            total = total + weight * by_t * (0.5 * radius / (variance[lo + 1] - variance[lo]))
        return total

    def by_radius(self, by_slope: Tensor, radius_px: Tensor) -> Tensor:
        return by_slope

    def transform(self, k: int, length: tuple[int, int], like: Tensor, transposed: bool) -> Tensor:
        """Complex unless the shape is its own point mirror."""
        zone, mirrored, level = self.terms[k]
        family = self.zones[zone].family

        def make() -> Tensor:
            kernel = torch.from_numpy(family.kernel(level))
            height, width = kernel.shape
            # the centre goes to the origin; kernels are smaller than the FFT
            around = torch.zeros(length, dtype=torch.float64)
            around[:height, :width] = kernel
            result = torch.fft.rfft2(around.roll((-(height // 2), -(width // 2)), (0, 1)))
            if family.symmetric:
                return result.real.to(device=like.device, dtype=like.dtype).contiguous()
            return result.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))

        result = cached((family, level, length, like.dtype, like.device), make)
        return result.conj() if mirrored != transposed and not family.symmetric else result
