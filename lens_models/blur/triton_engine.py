"""The disc's blur on a GPU, forward and backward, in Triton: each tile goes over its own taps alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import disc
from ..progress import Progress
from .triton_kernels import TILE_X, TILE_Y, WARPS, collect, spread

#: Discs of this reach and more are summed by runs of their rows, px: below, their ring is most of them.
RUNS_FROM_PX = 12


class _Discs(NamedTuple):
    """All pixels' discs as the kernels take them, `(B, H, W)` each. gain: dt/dr. pad: their reach, px."""

    lo: Tensor
    hi: Tensor
    a: Tensor
    b: Tensor
    slope_a: Tensor
    slope_b: Tensor
    gain: Tensor
    pad: int

    @property
    def mixture(self) -> tuple[Tensor, ...]:
        return self.lo, self.hi, self.a, self.b

    @property
    def slope(self) -> tuple[Tensor, ...]:
        """The mixture's derivative by t."""
        return self.lo, self.hi, self.slope_a, self.slope_b

    @property
    def touched(self) -> Tensor:
        """The larger of the levels that a pixel uses, `(B, H, W)`."""
        return torch.where(self.b > 0.0, self.hi, self.lo)


def _discs(radius_px: Tensor) -> _Discs:
    levels = disc.levels_for(float(radius_px.max()))
    lo, t = levels.mix(radius_px)
    size, total, variance = (
        torch.as_tensor(part, dtype=radius_px.dtype, device=radius_px.device)
        for part in (levels.size, 1.0 / levels.total, levels.variance)
    )
    parts = (
        size[lo], size[lo + 1], (1.0 - t) * total[lo], t * total[lo + 1], -total[lo], total[lo + 1],
        0.5 * radius_px / (variance[lo + 1] - variance[lo]),
    )  # fmt: skip
    return _Discs(*(part.contiguous() for part in parts), pad=levels.reach_px)


def _largest(levels: Tensor, around_px: int = 0) -> Tensor:
    """Largest level in and around each tile of the frame that has as many pixels around it as well."""
    levels = F.pad(levels, (2 * around_px,) * 4, value=-torch.inf)[:, None]
    tall, wide = TILE_Y + 2 * around_px, TILE_X + 2 * around_px
    by_row = F.max_pool2d(levels, (tall, 1), (TILE_Y, 1), ceil_mode=True)
    return F.max_pool2d(by_row, (1, wide), (1, TILE_X), ceil_mode=True)[:, 0].contiguous()


def _running_sums(light: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of a row before each place, `(..., W + 1)`: rounded to float32, and what that took away.

    A difference of two large sums of float32 would have lost the dark pixels between them.
    """
    exact = F.pad(light.double().cumsum(-1), (1, 0))
    rounded = exact.float()
    return rounded, (exact - rounded).float()


def _grid(height: int, width: int, batch: int) -> tuple[int, int, int]:
    return triton.cdiv(width, TILE_X), triton.cdiv(height, TILE_Y), batch


def _collected(
    padded: Tensor, discs: tuple[Tensor, ...], touched: Tensor, pad: int, other: Tensor | None = None
) -> Tensor:
    """`collect` of a contiguous padded picture; with `other` its dot product over the channels."""
    batch, height, width = touched.shape
    channels, runs = padded.shape[1], pad >= RUNS_FROM_PX
    shape = (batch, height, width) if other is not None else (batch, channels, height, width)
    out = padded.new_empty(shape)
    sums = _running_sums(padded) if runs else (padded, padded)
    kernel: Any = collect[_grid(height, width, batch)]  # its stated type lacks the launch options
    kernel(
        padded, *sums, *discs, _largest(touched), out if other is None else other, out,
        height, width, pad, int(len(padded) == batch),
        CHANNELS=channels, PLANES=triton.next_power_of_2(channels), DOT=other is not None, RUNS=runs,
        TILE_Y=TILE_Y, TILE_X=TILE_X, num_warps=WARPS,
    )  # fmt: skip
    return out


def _spread(image: Tensor, discs: tuple[Tensor, ...], touched: Tensor, pad: int) -> Tensor:
    """`spread` of a contiguous picture, with `pad` pixels around it."""
    batch, channels, height, width = image.shape
    high, wide, runs = height + 2 * pad, width + 2 * pad, pad >= RUNS_FROM_PX
    out = image.new_empty(batch, channels, high, wide)
    lo, _, a, b = discs
    sums = _running_sums(image * (a + b)[:, None]) if runs else (image, image)
    kernel: Any = spread[_grid(high, wide, batch)]
    kernel(
        image, *sums, *discs, _largest(touched, pad), -_largest(-lo, pad), out, height, width, pad,
        CHANNELS=channels, PLANES=triton.next_power_of_2(channels), RUNS=runs,
        TILE_Y=TILE_Y, TILE_X=TILE_X, num_warps=WARPS,
    )  # fmt: skip
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, padded: Tensor, radius_px: Tensor, pad: int) -> Tensor:
        discs = _discs(radius_px)
        ctx.save_for_backward(padded, radius_px)
        ctx.pad = pad
        return _collected(padded, discs.mixture, discs.touched, pad)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        padded, radius_px = ctx.saved_tensors
        discs, grad, by_image, by_radius = _discs(radius_px), grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            by_image = _spread(grad, discs.mixture, discs.touched, ctx.pad)
            if len(padded) < len(grad):
                by_image = by_image.sum(0, keepdim=True)
        if ctx.needs_input_grad[1]:
            by_radius = discs.gain * _collected(padded, discs.slope, discs.hi, ctx.pad, grad)
        return by_image, by_radius, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, radius_px: Tensor) -> Tensor:
        discs = _discs(radius_px)
        ctx.save_for_backward(image, radius_px)
        return _spread(image, discs.mixture, discs.touched, discs.pad)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        image, radius_px = ctx.saved_tensors
        discs, grad, by_image, by_radius = _discs(radius_px), grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            by_image = _collected(grad, discs.mixture, discs.touched, discs.pad)
        if ctx.needs_input_grad[1]:
            by_radius = discs.gain * _collected(grad, discs.slope, discs.hi, discs.pad, image)
        return by_image, by_radius


def gather(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """`blur.gather` with discs, float32, with first-order gradients; no tap is stored."""
    pad = disc.levels_for(float(radius_px.detach().max())).reach_px
    padded = F.pad(image, (pad,) * 4, mode="replicate").contiguous()
    out = _Gather.apply(padded, radius_px.contiguous(), pad)
    if on_progress is not None:
        on_progress(1, 1)
    return out


def scatter(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """`blur.scatter` with discs, float32, with first-order gradients; a picture for each of the radii."""
    height, width = radius_px.shape[-2:]
    out = _Scatter.apply(image.contiguous(), radius_px.contiguous())
    pad = (out.shape[-1] - width) // 2
    if on_progress is not None:
        on_progress(1, 1)
    return out[..., pad : pad + height, pad : pad + width]
