"""What a lens makes of a stack of layers."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from .. import blur
from ..blur import torch_stack
from ..camera import Camera, Focus, coc_px
from ..memory import blur_in_bands
from ..progress import Progress, progress_within
from ..scene import largest_radius_px
from ..shape import ApertureShape
from .layer import Layer

#: Numbers per pixel that the blur of a layer is taken to hold while it works, for the bands.
_HELD_PER_PIXEL = 36


def composite(
    layers: list[Layer],
    focus: Focus,
    camera: Camera,
    *,
    shape: ApertureShape | None = None,
    rays: int = 0,
    max_radius_px: float | None = None,
    engine: str = "auto",
    on_progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> Tensor:
    """What the lens records of a stack of layers, `(B, C, H, W)`.

    layers: front to back. Each pixel of a layer spreads its premultiplied light and coverage over the disc
    of its own radius; the blurred layers are laid over one another, farthest first. Borders replicate.
    focus, camera: single settings. shape: aperture shape, None is the disc.
    rays: 0, or that many points on the lens per pixel, traced through the layers front to back: exact where
    several blurred layers hide one another, and much slower.
    engine: as in `blur.scatter`; rays have none.
    on_progress: called with (done, total) pieces of work; may raise to interrupt.
    memory_bytes: what the blur of a layer may hold, as in `taf_lens`; rays trace whole pictures.
    Differentiable with respect to radiance, alpha, depth and every setting.
    """
    if rays and shape is not None and not shape.is_disc:
        raise ValueError("Rays are traced through a round opening only: set rays to 0, or use no shape.")
    if rays:
        from .rays import trace_layers

        return trace_layers(
            layers, focus, camera, rays=rays, max_radius_px=max_radius_px, on_progress=on_progress
        )
    inputs = [value for part in (*layers, focus, camera) for value in vars(part).values()]
    result: Tensor | None = None
    for done, layer in enumerate(reversed(layers)):
        height, width = layer.depth_m.shape[-2:]
        cap = largest_radius_px(max_radius_px, height, width)
        radius = (coc_px(layer.depth_m, focus, camera, width) / 2.0).clamp(-cap, cap)
        radius = radius if shape else radius.abs()
        reach = torch_stack.reach_px(radius, shape)
        report = progress_within(on_progress, done, done + 1, len(layers))
        work = partial(_laid_over, result, layer, radius, shape, engine, reach, report)
        bytes_per_px = _HELD_PER_PIXEL * radius.shape[0] * radius.element_size()
        result = blur_in_bands(work, radius, reach, shape, bytes_per_px, memory_bytes, inputs)
    if result is None:
        raise ValueError("There are 0 layers: composite needs at least 1.")
    return result


def _laid_over(
    behind: Tensor | None,
    layer: Layer,
    radius: Tensor,
    shape: ApertureShape | None,
    engine: str,
    reach: int,
    on_progress: Progress | None,
    band: slice,
    source: slice,
) -> Tensor:
    """Rows of a layer after the lens over what is behind it; `source`: the rows whose light reaches them."""
    height, width = radius.shape[-2:]
    part = Layer(layer.radiance[..., source, :], layer.alpha[..., source, :], layer.depth_m[..., source, :])
    planes = part.premultiplied()
    radius = radius[..., source, :].expand(planes.shape[0], -1, -1)
    report = progress_within(on_progress, band.start / height, band.stop / height)
    first, left = band.start - source.start, 0
    if bool((radius.detach() != 0.0).any()):
        above, below = reach if source.start == 0 else 0, reach if source.stop == height else 0
        around = (reach, reach, above, below)
        planes = F.pad(planes, around, mode="replicate")
        radius = F.pad(radius[:, None], around, mode="replicate")[:, 0]
        planes = blur.scatter(planes, radius, shape=shape, margin_px=reach, engine=engine, on_progress=report)
        first, left = first + above, reach
    planes = planes[..., first : first + band.stop - band.start, left : left + width]
    light, cover = planes[:, :-1], planes[:, -1:]
    if report is not None:
        report(1, 1)
    if behind is None:
        return light / cover.clamp_min(1e-4)
    # where radii change within a layer discs can pile up above full coverage
    return light / cover.clamp_min(1.0) + (1.0 - cover.clamp(0.0, 1.0)) * behind[..., band, :]
