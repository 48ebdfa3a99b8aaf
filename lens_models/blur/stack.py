"""Level stack in pure torch: any device, differentiable in picture and radius.

The disc is linear in its levels, so out = Σ_k h_k(r) · (K_k * x) with hat weights h_k. Each tile convolves
only the levels that its own pixels use, by FFT (the kernels are even, so their transforms are real).
Levels are streamed, never stored, and no autograd graph over taps exists: the backward pass is the same
sum with the hat weights moved before the convolution.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import disc

Progress = Callable[[int, int], None]

_TRANSFORM_BYTES = 96 << 20
_transforms: OrderedDict[tuple, Tensor] = OrderedDict()


def _fft_length(least: int) -> int:
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


def _transform(level: float, length: tuple[int, int], like: Tensor) -> Tensor:
    """Real transform `(ny, nx/2+1)` of the unit-energy kernel of one level, for rfft2 of that length."""
    key = (level, length, like.dtype, like.device)
    if key in _transforms:
        _transforms.move_to_end(key)
        return _transforms[key]
    quadrant = torch.from_numpy(disc.level_quadrant(level))
    offsets = torch.arange(quadrant.shape[0], dtype=torch.float64)
    fold = torch.full_like(offsets, 2.0)
    fold[0] = 1.0

    def cosines(count: int, period: int) -> Tensor:
        frequency = torch.arange(count, dtype=torch.float64) * (2.0 * math.pi / period)
        return torch.cos(frequency[:, None] * offsets[None, :]) * fold

    by_row = cosines(length[0], length[0]) @ quadrant
    result = by_row @ cosines(length[1] // 2 + 1, length[1]).T
    result = (result / result[0, 0]).to(device=like.device, dtype=like.dtype)
    _transforms[key] = result
    held = sum(t.numel() * t.element_size() for t in _transforms.values())
    while held > _TRANSFORM_BYTES and len(_transforms) > 1:
        _, oldest = _transforms.popitem(last=False)
        held -= oldest.numel() * oldest.element_size()
    return result


def _tile_px(reach: int, device: torch.device) -> int:
    """Tile edge: large enough that the halo does not dominate; a GPU wants fewer, larger launches."""
    edge = 128 if reach <= 96 else 256 if reach <= 256 else 512
    return edge if device.type == "cpu" else max(edge, 512)


class _Plan:
    """Which levels each tile uses. `lo`, `t`: the mixture per pixel; `reach`: padding of the picture."""

    def __init__(self, radius_px: Tensor, wants_slope: bool) -> None:
        self.levels = disc.levels_for(float(radius_px.max()))
        self.lo, self.t = self.levels.mix(radius_px)
        upper = radius_px > 0 if wants_slope else self.t > 0
        self.edge = _tile_px(self.levels.reach_px, radius_px.device)
        batch, height, width = radius_px.shape
        self.shape = (batch, -(-height // self.edge), -(-width // self.edge))
        rows = torch.arange(height, device=radius_px.device)[:, None] // self.edge
        columns = torch.arange(width, device=radius_px.device)[None, :] // self.edge
        tiles = torch.arange(batch, device=radius_px.device)[:, None, None] * self.shape[1] + rows
        tiles = tiles * self.shape[2] + columns
        used = torch.zeros(math.prod(self.shape), len(self.levels), dtype=torch.bool, device=radius_px.device)
        used[tiles, self.lo] = True
        used[tiles[upper], self.lo[upper] + 1] = True
        self.used = used.cpu()
        reach = 0
        if bool(self.used.any(0)[1:].any()):
            reach = disc.reach_px(float(self.levels.size[int(self.used.any(0).nonzero().max())]))
        self.reach = reach

    def tiles(self) -> Iterator[tuple[int, slice, slice, list[int]]]:
        """(batch index, rows, columns, levels in use) of every tile."""
        _, height, width = self.lo.shape
        for tile in range(len(self.used)):
            index, column = divmod(tile, self.shape[2])
            index, row = divmod(index, self.shape[1])
            y, x = row * self.edge, column * self.edge
            rows, columns = slice(y, min(y + self.edge, height)), slice(x, min(x + self.edge, width))
            yield index, rows, columns, self.used[tile].nonzero().flatten().tolist()

    def hat(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """Weight of level k at each pixel of a tile, `(h, w)`."""
        lo, t = self.lo[index, rows, columns], self.t[index, rows, columns]
        return torch.where(lo == k, 1.0 - t, 0.0) + torch.where(lo == k - 1, t, 0.0)

    def slope(self, k: int, index: int, rows: slice, columns: slice) -> Tensor:
        """d hat / dt, `(h, w)`: -1, 0 or 1."""
        lo = self.lo[index, rows, columns]
        return (lo == k - 1).to(self.t.dtype) - (lo == k).to(self.t.dtype)

    def window(
        self, rows: slice, columns: slice, used: list[int]
    ) -> tuple[int, slice, slice, tuple[int, int]]:
        """Halo of a tile, its place in the padded picture, and the FFT length."""
        halo = disc.reach_px(float(self.levels.size[used[-1]]))
        inset = self.reach - halo
        height, width = rows.stop - rows.start + 2 * halo, columns.stop - columns.start + 2 * halo
        place_rows = slice(rows.start + inset, rows.start + inset + height)
        place_columns = slice(columns.start + inset, columns.start + inset + width)
        return halo, place_rows, place_columns, (_fft_length(height), _fft_length(width))


def _collect(
    padded: Tensor, plan: _Plan, wants_slope: bool, on_progress: Progress | None = None
) -> tuple[Tensor, Tensor | None]:
    """Σ_k h_k · (K_k * padded) inside the border, `(B, C, H, W)`, and its derivative by t."""
    batch, height, width = plan.lo.shape
    out = padded.new_zeros(batch, padded.shape[1], height, width)
    slope = torch.zeros_like(out) if wants_slope else None
    for done, (index, rows, columns, used) in enumerate(plan.tiles()):
        halo, place_rows, place_columns, length = plan.window(rows, columns, used)
        source = padded[index, :, place_rows, place_columns]
        inside = (
            slice(None),
            slice(halo, halo + rows.stop - rows.start),
            slice(halo, halo + columns.stop - columns.start),
        )
        if used == [0]:  # level 1 is the identity: no round trip, so a sharp pixel stays bit-equal
            out[index, :, rows, columns] = source[inside]
            continue
        spectrum = torch.fft.rfft2(source, s=length)
        total = torch.zeros_like(out[index, :, rows, columns])
        for k in used:
            blurred = source[inside]
            if k > 0:
                otf = _transform(float(plan.levels.size[k]), length, padded)
                blurred = torch.fft.irfft2(spectrum * otf, s=length)[inside]
            total += plan.hat(k, index, rows, columns) * blurred
            if slope is not None:
                slope[index, :, rows, columns] += plan.slope(k, index, rows, columns) * blurred
        out[index, :, rows, columns] = total
        if on_progress is not None:
            on_progress(done + 1, len(plan.used))
    return out, slope


def _spread(image: Tensor, plan: _Plan, on_progress: Progress | None = None) -> Tensor:
    """Σ_k K_k * (h_k · image) with room for what crosses the border: the transpose of `_collect`."""
    batch, channels, height, width = image.shape
    out = image.new_zeros(batch, channels, height + 2 * plan.reach, width + 2 * plan.reach)
    for done, (index, rows, columns, used) in enumerate(plan.tiles()):
        halo, place_rows, place_columns, length = plan.window(rows, columns, used)
        inner = image[index, :, rows, columns]
        place = out[index, :, place_rows, place_columns]
        spectrum = None
        for k in used:
            weighted = F.pad(plan.hat(k, index, rows, columns) * inner, (halo,) * 4)
            if k == 0:
                place += weighted
                continue
            otf = _transform(float(plan.levels.size[k]), length, image)
            term = torch.fft.rfft2(weighted, s=length) * otf
            spectrum = term if spectrum is None else spectrum + term
        if spectrum is not None:
            place += torch.fft.irfft2(spectrum, s=length)[:, : place.shape[1], : place.shape[2]]
        if on_progress is not None:
            on_progress(done + 1, len(plan.used))
    return out


def _by_radius(by_t: Tensor, radius_px: Tensor, plan: _Plan) -> Tensor:
    """Gradient by the radius out of the gradient by t: dt/dr = r / 2 / (V_hi - V_lo)."""
    variance = torch.as_tensor(plan.levels.variance, dtype=by_t.dtype, device=by_t.device)
    return by_t * (0.5 * radius_px / (variance[plan.lo + 1] - variance[plan.lo]))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, padded: Tensor, radius_px: Tensor, plan: _Plan, on_progress: Progress | None) -> Tensor:
        out, slope = _collect(padded, plan, ctx.needs_input_grad[1], on_progress)
        ctx.plan = plan
        ctx.save_for_backward(radius_px, slope)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        radius_px, slope = ctx.saved_tensors
        by_image = _spread(grad, ctx.plan) if ctx.needs_input_grad[0] else None
        by_radius = None
        if ctx.needs_input_grad[1]:
            by_radius = _by_radius((grad * slope).sum(1), radius_px, ctx.plan)
        return by_image, by_radius, None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, radius_px: Tensor, plan: _Plan, on_progress: Progress | None) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, radius_px)
        return _spread(image, plan, on_progress)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        image, radius_px = ctx.saved_tensors
        by_image, slope = _collect(grad, ctx.plan, ctx.needs_input_grad[1])
        by_radius = None
        if ctx.needs_input_grad[1]:
            by_radius = _by_radius((image * slope).sum(1), radius_px, ctx.plan)
        return by_image, by_radius, None, None


def gather(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """Each output pixel averages its neighbourhood with the disc of its own radius.

    image: `(B, C, H, W)`; radius_px: `(B, H, W)` >= 0, both float32 or both float64. Borders replicate.
    Returns `(B, C, H, W)`. First-order gradients for picture and radius. A NaN or inf would spread over
    its tile: callers pass finite pictures.
    """
    wants_slope = torch.is_grad_enabled() and radius_px.requires_grad
    plan = _Plan(radius_px.detach(), wants_slope)
    padded = F.pad(image, (plan.reach,) * 4, mode="replicate") if plan.reach else image
    return _Gather.apply(padded, radius_px, plan, on_progress)


def scatter(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """Each source pixel spreads its light over the disc of its own radius: the transpose of a gather.

    image: `(B, C, H, W)`; radius_px: `(B, H, W)` >= 0, both float32 or both float64. Nothing lies beyond
    the border and light that crosses it is lost; pad the picture to say otherwise.
    Returns `(B, C, H, W)`. First-order gradients for picture and radius.
    """
    wants_slope = torch.is_grad_enabled() and radius_px.requires_grad
    plan = _Plan(radius_px.detach(), wants_slope)
    spread = _Scatter.apply(image, radius_px, plan, on_progress)
    height, width = radius_px.shape[-2:]
    return spread[..., plan.reach : plan.reach + height, plan.reach : plan.reach + width]
