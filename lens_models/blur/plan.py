"""What the level stack does where: tiles of the picture, and the kernels that the pixels of each tile use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .. import disc

_TRANSFORM_BYTES = 96 << 20
_transforms: OrderedDict[tuple, Tensor] = OrderedDict()


def fft_length(least: int) -> int:
    """An even 2-3-5-smooth length >= least, from a coarse grid so that tiles share plans and transforms."""
    length = max(32, -(-least // 16) * 16)
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 16


def cached(key: tuple, make: Callable[[], Tensor]) -> Tensor:
    """What `make` returns, remembered by the key."""
    if key in _transforms:
        _transforms.move_to_end(key)
        return _transforms[key]
    result = _transforms[key] = make()
    total = sum(t.numel() * t.element_size() for t in _transforms.values())
    while total > _TRANSFORM_BYTES and len(_transforms) > 1:
        _, oldest = _transforms.popitem(last=False)
        total -= oldest.numel() * oldest.element_size()
    return result


def _disc_transform(level: float, length: tuple[int, int], like: Tensor) -> Tensor:
    """Real transform `(ny, nx/2+1)` of the unit-energy kernel of one level, for rfft2 of that length."""
    quadrant = torch.from_numpy(disc.level_quadrant(level))
    offsets = torch.arange(quadrant.shape[0], dtype=torch.float64)
    fold = torch.full_like(offsets, 2.0)
    fold[0] = 1.0

    def cosines(count: int, period: int) -> Tensor:
        frequency = torch.arange(count, dtype=torch.float64) * (2.0 * math.pi / period)
        return torch.cos(frequency[:, None] * offsets[None, :]) * fold

    by_row = cosines(length[0], length[0]) @ quadrant
    result = by_row @ cosines(length[1] // 2 + 1, length[1]).T
    return (result / result[0, 0]).to(device=like.device, dtype=like.dtype)


class Plan(ABC):
    """Which terms each tile uses.

    A term is one kernel; term 0 is the identity. out = Σ_k hat_k · (K_k * picture), and the hats of a pixel
    add up to 1. `reach`: padding of the picture; `shape`: tiles per picture, down and across.
    """

    edge: int
    reach: int
    size: tuple[int, int]
    used: list[list[int]]

    def _lay_tiles(self, radius_px: Tensor, reach: int) -> None:
        """Tiles so large that the halo of kernels that reach so far does not dominate."""
        batch, height, width = radius_px.shape
        self.size = height, width
        self.edge = 128 if reach <= 96 else 256 if reach <= 256 else 512
        if radius_px.device.type != "cpu":
            self.edge = max(self.edge, 512)  # a GPU wants fewer, larger launches
        self.shape = (batch, *(-(-side // self.edge) for side in self.size))

    def _places(self) -> Iterator[tuple[int, slice, slice]]:
        height, width = self.size
        for index in range(self.shape[0]):
            for y in range(0, height, self.edge):
                for x in range(0, width, self.edge):
                    yield index, slice(y, min(y + self.edge, height)), slice(x, min(x + self.edge, width))

    def tiles(self) -> Iterator[tuple[int, slice, slice, list[int]]]:
        """(batch index, rows, columns, terms in use) of every tile."""
        for place, used in zip(self._places(), self.used, strict=True):
            yield *place, used

    def window(
        self, rows: slice, columns: slice, used: list[int]
    ) -> tuple[int, slice, slice, tuple[int, int]]:
        """Halo of a tile, its place in the padded picture, and the FFT length."""
        halo = self.term_reach(used)
        inset = self.reach - halo
        height, width = rows.stop - rows.start + 2 * halo, columns.stop - columns.start + 2 * halo
        place_rows = slice(rows.start + inset, rows.start + inset + height)
        place_columns = slice(columns.start + inset, columns.start + inset + width)
        return halo, place_rows, place_columns, (fft_length(height), fft_length(width))

    @abstractmethod
    def term_reach(self, used: Sequence[int]) -> int:
        """Largest offset that any of these terms touches, px."""

    @abstractmethod
    def hat(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """Weight of term k at each pixel of a tile, `(h, w)`."""

    @abstractmethod
    def slope(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """Derivative of the hat, `(h, w)`, up to the factor that `by_radius` puts in."""

    @abstractmethod
    def by_radius(self, by_slope: Tensor, radius_px: Tensor) -> Tensor:
        """Gradient by the radius out of the gradient along `slope`, `(B, H, W)`."""

    @abstractmethod
    def transform(self, k: int, length: tuple[int, int], like: Tensor, transposed: bool) -> Tensor:
        """Transform of kernel k for rfft2 of that length; transposed: of its point mirror."""


class DiscPlan(Plan):
    """The disc: its terms are its levels. `lo`, `t`: the mixture per pixel; `place`: between which levels."""

    def __init__(self, radius_px: Tensor, wants_slope: bool) -> None:
        self.levels = disc.levels_for(float(radius_px.max()))
        self.lo, self.t = self.levels.mix(radius_px)
        self.place = self.lo + self.t
        upper = radius_px > 0 if wants_slope else self.t > 0
        self._lay_tiles(radius_px, self.levels.reach_px)
        batch, height, width = radius_px.shape
        rows = torch.arange(height, device=radius_px.device)[:, None] // self.edge
        columns = torch.arange(width, device=radius_px.device)[None, :] // self.edge
        tiles = torch.arange(batch, device=radius_px.device)[:, None, None] * self.shape[1] + rows
        tiles = tiles * self.shape[2] + columns
        count = len(self.levels)
        place, least = (tiles * count + self.lo).flatten(), math.prod(self.shape) * count
        used = torch.bincount(place, minlength=least) > 0
        used[1:] |= torch.bincount(place, upper.flatten().to(self.t.dtype), minlength=least)[:-1] > 0
        used = used.view(-1, count)
        self.used = [tile.nonzero().flatten().tolist() for tile in used.cpu()]
        self.reach = self.term_reach([max(tile[-1] for tile in self.used)])

    def term_reach(self, used: Sequence[int]) -> int:
        return disc.reach_px(float(self.levels.size[used[-1]]))

    def hat(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        return (self.place[index, rows, columns] - k).abs_().neg_().add_(1.0).clamp_min_(0.0)

    def slope(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """d hat / dt: -1, 0 or 1."""
        lo = self.lo[index, rows, columns]
        return (lo == k - 1).to(self.t.dtype) - (lo == k).to(self.t.dtype)

    def by_radius(self, by_slope: Tensor, radius_px: Tensor) -> Tensor:
        """dt/dr = r / 2 / (V_hi - V_lo)."""
        variance = torch.as_tensor(self.levels.variance, dtype=by_slope.dtype, device=by_slope.device)
        return by_slope * (0.5 * radius_px / (variance[self.lo + 1] - variance[self.lo]))

    def transform(self, k: int, length: tuple[int, int], like: Tensor, transposed: bool) -> Tensor:
        level = float(self.levels.size[k])
        return cached((level, length, like.dtype, like.device), lambda: _disc_transform(level, length, like))
