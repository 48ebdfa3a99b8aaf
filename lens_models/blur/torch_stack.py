"""Level stack in pure torch: any device, differentiable in picture and radius.

The disc is linear in its levels, so out = Σ_k h_k(r) · (K_k * x) with hat weights h_k. Each tile convolves
only the levels that its own pixels use, by FFT (the disc is even, so its transforms are real). Other
aperture shapes are level families of their own (`family.py`), of both orientations, per zone of the field.
Levels are streamed, never stored, and no autograd graph over taps exists: the backward pass is the same
sum with the hat weights moved before the convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import disc
from ..progress import Progress
from ..shape import ApertureShape
from .family import zones
from .fft_shaped import ShapedPlan
from .plan import DiscPlan, Plan


def _collect(
    padded: Tensor,
    plan: Plan,
    wants_slope: bool = False,
    on_progress: Progress | None = None,
    transposed: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Σ_k h_k · (K_k * padded) inside the border, `(B, C, H, W)`, and its derivative along the slopes.

    padded: a picture for each of the plan's, or one for all, of which each tile then meets a kernel once.
    transposed: with the point mirrors of the kernels.
    """
    out = padded.new_zeros(plan.shape[0], padded.shape[1], *plan.size)
    slope = torch.zeros_like(out) if wants_slope else None
    tiles = list(plan.tiles())
    count = len(tiles) // plan.shape[0]
    shared = len(padded) < plan.shape[0]
    together = [tiles[i::count] for i in range(count)] if shared else [[tile] for tile in tiles]
    unions = [sorted(set().union(*(used for *_, used in alike))) for alike in together]
    done, pieces = 0, sum(map(len, unions))
    for alike, union in zip(together, unions, strict=True):
        first, rows, columns, _ = alike[0]
        halo, place_rows, place_columns, length = plan.window(rows, columns, union)
        source = padded[0 if shared else first, :, place_rows, place_columns]
        inside = (..., *(slice(halo, side - halo) for side in source.shape[1:]))
        spectrum = source if union == [0] else torch.fft.rfft2(source, s=length)
        for k in union:
            blurred = source[inside]
            if k > 0:
                otf = plan.transform(k, length, padded, transposed)
                blurred = torch.fft.irfft2(spectrum * otf, s=length)[inside]
            for index, _, _, used in alike:
                if k not in used:
                    continue
                if used == [0]:  # level 1 is the identity: a sharp pixel stays bit-equal
                    out[index, :, rows, columns] = blurred
                    continue
                out[index, :, rows, columns].addcmul_(plan.hat(k, index, rows, columns), blurred)
                if slope is not None:
                    slope[index, :, rows, columns].addcmul_(plan.slope(k, index, rows, columns), blurred)
            done += 1
            if on_progress is not None:
                on_progress(done, pieces)
    return out, slope


def _spread(
    image: Tensor, plan: Plan, on_progress: Progress | None = None, transposed: bool = False
) -> Tensor:
    """Σ_k K_k * (h_k · image) with room for what crosses the border.

    With `transposed` switched, this is the transpose of `_collect`.
    """
    batch, channels, height, width = image.shape
    out = image.new_zeros(batch, channels, height + 2 * plan.reach, width + 2 * plan.reach)
    for done, (index, rows, columns, used) in enumerate(plan.tiles()):
        halo, place_rows, place_columns, length = plan.window(rows, columns, used)
        inner = image[index, :, rows, columns]
        place = out[index, :, place_rows, place_columns]
        spectrum = None
        # layers are mostly empty; a GPU would have to be waited for
        empty = inner.device.type == "cpu" and not inner.any()
        for k in () if empty else used:
            weighted = F.pad(plan.hat(k, index, rows, columns) * inner, (halo,) * 4)
            if k == 0:
                place += weighted
                continue
            otf = plan.transform(k, length, image, transposed)
            term = torch.fft.rfft2(weighted, s=length) * otf
            spectrum = term if spectrum is None else spectrum + term
        if spectrum is not None:
            place += torch.fft.irfft2(spectrum, s=length)[:, : place.shape[1], : place.shape[2]]
        if on_progress is not None:
            on_progress(done + 1, len(plan.used))
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, padded: Tensor, radius_px: Tensor, plan: Plan, on_progress: Progress | None) -> Tensor:
        out, slope = _collect(padded, plan, ctx.needs_input_grad[1], on_progress)
        ctx.plan = plan
        ctx.save_for_backward(radius_px, slope)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        radius_px, slope = ctx.saved_tensors
        by_image = _spread(grad, ctx.plan, transposed=True) if ctx.needs_input_grad[0] else None
        by_radius = None
        if ctx.needs_input_grad[1]:
            by_radius = ctx.plan.by_radius((grad * slope).sum(1), radius_px)
        return by_image, by_radius, None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, radius_px: Tensor, plan: Plan, on_progress: Progress | None) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, radius_px)
        return _spread(image, plan, on_progress)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        image, radius_px = ctx.saved_tensors
        by_image, slope = _collect(grad, ctx.plan, ctx.needs_input_grad[1], transposed=True)
        by_radius = None
        if ctx.needs_input_grad[1]:
            by_radius = ctx.plan.by_radius((image * slope).sum(1), radius_px)
        return by_image, by_radius, None, None


def gather(
    image: Tensor,
    radius_px: Tensor,
    on_progress: Progress | None = None,
    *,
    shape: ApertureShape | None = None,
) -> Tensor:
    """`blur.gather` with first-order gradients for picture and radius.

    Lights behind the focal plane show a shape upright: where all radii are equal, this is `scatter`.
    A NaN or inf would spread over its tile: callers pass finite pictures.
    """
    plan = _plan(radius_px, shape, 0)
    padded = F.pad(image, (plan.reach,) * 4, mode="replicate") if plan.reach else image
    if len(image) < len(radius_px):
        if not (torch.is_grad_enabled() and (image.requires_grad or radius_px.requires_grad)):
            return _collect(padded, plan, on_progress=on_progress)[0]
        padded = padded.expand(len(radius_px), -1, -1, -1)
    return _Gather.apply(padded, radius_px, plan, on_progress)


def scatter(
    image: Tensor,
    radius_px: Tensor,
    on_progress: Progress | None = None,
    *,
    shape: ApertureShape | None = None,
    margin_px: int = 0,
) -> Tensor:
    """`blur.scatter` with first-order gradients for picture and radius; a picture for each of the radii.

    Nothing lies beyond the border and light that crosses it is lost; pad the picture to say otherwise.
    This is the transpose of `gather` with the signs of the radii changed.
    margin_px: how much of the picture was padded on each side, so that a cat's eye finds its centre.
    """
    plan = _plan(radius_px, shape, margin_px)
    spread = _Scatter.apply(image, radius_px, plan, on_progress)
    height, width = radius_px.shape[-2:]
    return spread[..., plan.reach : plan.reach + height, plan.reach : plan.reach + width]


def reach_px(radius_px: Tensor, shape: ApertureShape | None = None, margin_px: int = 0) -> int:
    """How far light spreads at most, px: the padding a picture needs before `scatter`."""
    largest = float(radius_px.detach().abs().max())
    if shape is None or shape.is_disc:
        return disc.levels_for(largest).reach_px
    height, width = radius_px.shape[-2:]
    families = [zone.family for zone in zones(shape, height, width, margin_px, radius_px)]
    return max(family.reach(family.levels_for(largest) - 1) for family in families)


def _plan(radius_px: Tensor, shape: ApertureShape | None, margin_px: int) -> Plan:
    wants_slope = torch.is_grad_enabled() and radius_px.requires_grad
    if shape is None or shape.is_disc:
        radius_px = radius_px.detach()
        return DiscPlan(radius_px if shape is None else radius_px.abs(), wants_slope)
    return ShapedPlan(radius_px.detach(), shape, wants_slope, margin_px)
