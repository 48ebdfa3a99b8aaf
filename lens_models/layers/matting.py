"""Closed-form matting (Levin, Lischinski and Weiss, 2008): how much of a pixel belongs to the nearer layer.

In any small window the matte is taken to be linear in colour. Summed over all windows that gives a
quadratic form; its product with a matte needs only box means, so no matrix is ever built.
Only a band along edges is in doubt: where that is narrow, means are taken over a list of its pixels, else in
the tiles of the picture that the band meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import Progress
from .morphology import dilate

_WINDOW = 3
#: Certain pixels around the doubtful ones that take part: two windows' reach and one to spare.
_RIM_SIDE = 7
#: How far from a pixel the product with its matte looks: two windows.
_REACH = 2
#: Below this share of the picture a list of pixels is faster than tiles that are mostly certain.
_LISTED_SHARE = 0.12
#: Sides of a tile: on a CPU its planes stay in the cache, a GPU wants few and large launches.
_TILE_ON_CPU, _TILE = (64, 256), (2048, 2048)
#: So many tiles are worked on before somebody is asked whether to go on.
_TILES_BETWEEN = 16

Mean = Callable[[Tensor], Tensor]


def _sliding_mean(planes: Tensor) -> Tensor:
    """Means over 3 x 3 windows of `(C, H, W)`: sums along one axis, then the other, faster than pooling."""
    padded = F.pad(planes[None], (1,) * 4, mode="replicate")[0]
    rows = padded[:, :-2] + padded[:, 1:-1]
    rows += padded[:, 2:]
    total = rows[..., :-2] + rows[..., 1:-1]
    total += rows[..., 2:]
    return total.mul_(1.0 / _WINDOW**2)


def _listed_mean(chosen: Tensor) -> Mean:
    """The same for `(C, N)` values of the pixels of a mask; a neighbour outside it counts as the centre."""
    number = torch.full(chosen.shape, -1, dtype=torch.long, device=chosen.device)
    count = int(chosen.sum())
    number[chosen] = torch.arange(count, device=chosen.device)
    height, width = chosen.shape
    rows, columns = (torch.arange(-1, side + 1, device=chosen.device) for side in chosen.shape)
    around = number[rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)]  # borders replicate
    neighbours = torch.stack(
        [around[dy : dy + height, dx : dx + width][chosen] for dy in range(3) for dx in range(3)]
    )
    neighbours = torch.where(neighbours < 0, torch.arange(count, device=chosen.device), neighbours)

    def mean(values: Tensor) -> Tensor:
        total = values.index_select(1, neighbours[0])
        for index in neighbours[1:]:
            total += values.index_select(1, index)
        return total.mul_(1.0 / len(neighbours))

    return mean


class _Laplacian:
    """The matting Laplacian of colours `(3, ...)`, divided by the window's 9 pixels."""

    def __init__(self, picture: Tensor, smoothness: float, mean: Mean) -> None:
        self.picture, self.window, self.mean = picture, mean, mean(picture)
        # a window of one hue is nearly singular: float32 would lose the inverse
        exact = picture.double()
        means = mean(exact)
        ridge = smoothness / _WINDOW**2
        (rr, rg, rb), (_, gg, gb), (_, _, bb) = (
            mean(exact[i : i + 1] * exact) - means[i : i + 1] * means for i in range(3)
        )
        rr, gg, bb = rr + ridge, gg + ridge, bb + ridge
        cofactors = (
            gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb,
            rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg,
        )  # fmt: skip
        determinant = (rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]).clamp_min_(1e-24)
        self.inverse = [(c / determinant).to(picture.dtype) for c in cofactors]

    def __call__(self, matte: Tensor) -> Tensor:
        """The product with a matte, of the shape of one colour."""
        means = self.window(torch.cat([matte[None], self.picture * matte]))
        mean, (r, g, b) = means[0], means[1:].addcmul_(self.mean, means[:1], value=-1.0)
        i = self.inverse
        # slope of the window's line in each colour, and where it begins
        line = torch.stack(
            [
                (i[0] * r).addcmul_(i[1], g).addcmul_(i[2], b),
                (i[1] * r).addcmul_(i[3], g).addcmul_(i[4], b),
                (i[2] * r).addcmul_(i[4], g).addcmul_(i[5], b),
                mean,
            ]
        )
        line[3] -= (line[:3] * self.mean).sum(0)
        line = self.window(line)
        return (matte - line[3]).sub_((line[:3] * self.picture).sum(0))


class _Listed:
    """The product for mattes of a mask's pixels alone, `(N,)` to `(N,)`."""

    def __init__(self, picture: Tensor, chosen: Tensor, smoothness: float) -> None:
        self.index = chosen.flatten().nonzero()[:, 0]
        self.product = _Laplacian(picture[:, chosen], smoothness, _listed_mean(chosen))

    def whole(self, matte: Tensor) -> Tensor:
        """The product with a whole matte `(H, W)` at those pixels."""
        return self.product(matte.reshape(-1)[self.index])

    def __call__(self, matte: Tensor) -> Tensor:
        return self.product(matte)


class _Tiled:
    """The same, by sliding windows in the tiles that hold such pixels; `go_on` is called between them."""

    def __init__(self, picture: Tensor, chosen: Tensor, smoothness: float, go_on: Callable[[], None]) -> None:
        self.index = chosen.flatten().nonzero()[:, 0]
        self.matte, self.product = torch.zeros_like(picture[0]), torch.zeros_like(picture[0])
        self.tiles, self.go_on = [], go_on
        for place in _tiles_of(chosen):
            source, inner = zip(*map(_widened, place, chosen.shape), strict=True)
            product = _Laplacian(picture[(slice(None), *source)], smoothness, _sliding_mean)
            self.tiles.append((source, inner, place, product))
            go_on()

    def whole(self, matte: Tensor) -> Tensor:
        for number, (source, inner, place, product) in enumerate(self.tiles, start=1):
            self.product[place] = product(matte[source])[inner]
            if number % _TILES_BETWEEN == 0:
                self.go_on()
        return self.product.view(-1)[self.index]

    def __call__(self, matte: Tensor) -> Tensor:
        self.matte.view(-1)[self.index] = matte
        return self.whole(self.matte)


def _tiles_of(chosen: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles that hold a chosen pixel."""
    height, width = chosen.shape
    down, across = _TILE_ON_CPU if chosen.device.type == "cpu" else _TILE
    for y in range(0, height, down):
        for x in range(0, width, across):
            place = slice(y, min(y + down, height)), slice(x, min(x + across, width))
            if chosen[place].any():
                yield place


def _widened(side: slice, length: int) -> tuple[slice, slice]:
    """A side of a tile with what its product depends on, and where the tile lies in that."""
    source = slice(max(0, side.start - _REACH), min(length, side.stop + _REACH))
    return source, slice(side.start - source.start, side.stop - source.start)


@torch.no_grad()
def closed_form_matte(
    picture: Tensor,
    guess: Tensor,
    trust: Tensor,
    *,
    iterations: int = 60,
    smoothness: float = 1e-4,
    on_progress: Progress | None = None,
) -> Tensor:
    """The matte that follows the picture's edges and stays near a guess where that is trusted.

    picture: `(3, H, W)` sRGB 0..1; guess: `(H, W)` 0..1; trust: `(H, W)` >= 0, 1 = certain.
    on_progress: called with (done, total); may raise to interrupt.
    Returns `(H, W)` 0..1 after some steps of preconditioned conjugate gradients, without gradients; away
    from pixels in doubt it is the guess.
    """
    done = 0

    def go_on() -> None:
        if on_progress is not None:
            on_progress(done, iterations)

    chosen = dilate(trust < 1.0, _RIM_SIDE)
    if not chosen.any():
        return guess.clone()
    go_on()
    if chosen.double().mean() < _LISTED_SHARE:
        laplacian = _Listed(picture, chosen, smoothness)
    else:
        laplacian = _Tiled(picture, chosen, smoothness, go_on)
    index = laplacian.index
    pull = 10.0 * trust.reshape(-1)[index]  # certain pixels weigh ten times the picture's own evidence
    matte = guess.reshape(-1)[index]
    residual = -laplacian.whole(guess)
    scale = 1.0 / (pull + 0.3)
    scaled = scale * residual
    step = scaled.clone()
    power = start = (residual * scaled).sum()
    go_on()
    while done < iterations and power > 1e-10 * start:
        pushed = laplacian(step).addcmul_(pull, step)
        length = power / (step * pushed).sum()
        matte.addcmul_(length, step)
        residual.addcmul_(length, pushed, value=-1.0)
        torch.mul(scale, residual, out=scaled)
        previous, power = power, (residual * scaled).sum()
        step.mul_(power / previous).add_(scaled)
        done += 1
        go_on()
    result = guess.clone()
    result.view(-1)[index] = torch.where(torch.isfinite(matte), matte, guess.reshape(-1)[index])
    return result.clamp_(0.0, 1.0)
