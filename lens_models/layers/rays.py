"""Rays through a stack of layers: exact where several blurred layers hide one another."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera, Focus, coc_px, lean_px
from ..progress import Progress
from ..scene import largest_radius_px
from .layer import Layer

_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
_STEPS = 3
#: A layer whose signed radius varies less than this over the picture is one plane: its hit needs no search.
_FLAT_PX = 1e-3


def _at(planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear `(B, C, H, W)` at pixel coordinates `(B, H, W)`; borders replicate."""
    height, width = planes.shape[-2:]
    grid = torch.stack([(2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0], dim=-1)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


def trace_layers(
    layers: list[Layer],
    focus: Focus,
    camera: Camera,
    *,
    rays: int,
    max_radius_px: float | None = None,
    on_progress: Progress | None = None,
) -> Tensor:
    """What the lens records of layers, front to back, by `rays` points on the lens per pixel.

    A ray through lens point u (unit disc) meets inverse depth q at x' = x + u ρ(q), ρ the signed blur radius
    there; where the depth of a layer varies the meeting point is found by a few fixed-point steps. What the
    lean of the plane of sharp focus adds to ρ is taken at x, where the ray ends. The points are a Vogel
    spiral, turned by an angle of its own at every pixel, the same on every run.
    Returns `(B, C, H, W)`; differentiable like `composite`.
    """
    first = layers[0].radiance
    height, width = first.shape[-2:]
    planes = [layer.premultiplied() for layer in layers]
    cap = largest_radius_px(max_radius_px, height, width)
    radii = [coc_px(layer.depth_m, focus, camera, width)[:, None] / 2.0 for layer in layers]
    lean = lean_px(radii[0][:, 0], focus, camera, width)
    if lean is None:
        radii = [radius.clamp(-cap, cap) for radius in radii]
    else:
        lean = lean / 2.0
        radii = [radius - lean[:, None] for radius in radii]
    batch = max(p.shape[0] for p in (*planes, *radii))
    planes = [p.expand(batch, -1, -1, -1) for p in planes]
    radii = [r.expand(batch, -1, -1, -1) for r in radii]
    flat = [bool((r.amax() - r.amin()) < _FLAT_PX) for r in radii]

    noise = torch.Generator().manual_seed(0)
    turn = 2.0 * math.pi * torch.rand(height, width, generator=noise).to(first)
    y, x = torch.meshgrid(
        torch.arange(height, device=first.device, dtype=first.dtype),
        torch.arange(width, device=first.device, dtype=first.dtype),
        indexing="ij",
    )

    def leaned(radius: Tensor) -> Tensor:
        return radius[:, 0] if lean is None else (radius[:, 0] + lean).clamp(-cap, cap)

    total = torch.zeros_like(planes[0][:, :-1])
    for ray in range(rays):
        distance, angle = math.sqrt((ray + 0.5) / rays), turn + ray * _GOLDEN_ANGLE
        across, down = distance * torch.cos(angle), distance * torch.sin(angle)
        through = torch.ones_like(total[:, :1])
        for rgba, radius, is_flat in zip(planes, radii, flat, strict=True):
            rho = leaned(radius)
            if not is_flat:
                for _ in range(_STEPS):
                    rho = leaned(_at(radius, x + across * rho, y + down * rho))
            hit = _at(rgba, x + across * rho, y + down * rho)
            total = total + through * hit[:, :-1]
            through = through * (1.0 - hit[:, -1:])
        if on_progress is not None:
            on_progress(ray + 1, rays)
    return total / rays
