"""Dr.Bokeh Lens: the picture as layers, each blurred whole, laid over one another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .camera import Camera, Focus, broadcast_batch, radius_px_per_inverse_m, usable_depth
from .exposure import PIECES, checked_scene, item
from .fill import Background
from .layers import Layer, composite, split_layers
from .shape import ApertureShape
from .sharpen import sharpened


def dr_bokeh_lens(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    shape: ApertureShape | None = None,
    subject: Tensor | None = None,
    background: Tensor | Background | None = None,
    max_layers: int = 6,
    rays: int = 0,
    max_radius_px: float | None = None,
    engine: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Render a sharp picture through a thin lens with layers that hide one another.

    A blurred foreground melts over what lies behind it, a blurred background takes no colour from a sharp
    subject. Costs a few times `taf_lens`. Layers are made once per picture, depth and focus, not per
    aperture, at the widest aperture asked for.

    radiance, depth_m, focus, camera, shape, max_radius_px, on_progress: as in `taf_lens`.
    subject: `(B, H, W)` mask 0..1 that becomes the matte of a layer of its own.
    background: `(B, C, H, W)` radiance seen where the farthest layer is hidden, or a `Background` that fills.
    max_layers: at most so many layers.
    rays: 0, or points on the lens per pixel, for exact occlusion between several blurred layers.
    engine: "auto" or "stack": layers need a scatter, which the stack alone has so far.

    Returns `(B, C, H, W)`. Differentiable with respect to radiance, depth and every setting; cuts, mattes
    and the sharpening of soft depth edges are constants. Raises ValueError as `taf_lens` does.
    """
    if engine not in ("auto", "stack"):
        raise ValueError(f'dr_bokeh_lens runs on the "stack" engine, not on "{engine}": use "auto".')
    if max_layers < 1:
        raise ValueError(f"max_layers is {max_layers}: use at least 1.")
    radiance, depth_m = checked_scene(radiance, depth_m, max_radius_px)
    height, width = radiance.shape[-2:]
    parts = {"subject": subject, "background": background}
    for name, part in parts.items():
        if isinstance(part, Tensor) and part.shape[-2:] != (height, width):
            raise ValueError(
                f"{name} is {tuple(part.shape)} and the picture {tuple(radiance.shape)}: same size, please."
            )
    sizes = {f"{name}s": part.shape[0] for name, part in parts.items() if isinstance(part, Tensor)}
    pictures = broadcast_batch(
        pictures=radiance.shape[0], depths=depth_m.shape[0], **sizes, focus_settings=focus.batch
    )
    count = broadcast_batch(pictures=pictures, cameras=camera.batch)

    def extra(part: Tensor | Background | None, i: int) -> Tensor | Background | None:
        return item(part, i) if isinstance(part, Tensor) else part

    results: list[Tensor] = []
    layers: list[Layer] = []
    for i in range(count):
        if i < pictures:
            here = focus.part(i, i + 1)
            shots = _widest(camera if pictures == 1 else camera.part(i, i + 1), here, width)
            layers = _layers_of(
                item(radiance, i),
                item(depth_m, i),
                here,
                shots,
                extra(subject, i),
                extra(background, i),
                max_layers,
            )
        results.append(
            composite(
                layers,
                focus.part(i, i + 1),
                camera.part(i, i + 1),
                shape=shape,
                rays=rays,
                max_radius_px=max_radius_px,
            )
        )
        if on_progress is not None:
            on_progress((i + 1) * PIECES, count * PIECES)
    return torch.cat(results)


def _widest(camera: Camera, focus: Focus, width_px: int) -> Camera:
    """The camera of a sweep that blurs most: its layers serve all the others."""
    strongest = int(radius_px_per_inverse_m(focus, camera, width_px).argmax())
    return camera.part(strongest, strongest + 1)


def _layers_of(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    subject: Tensor | None,
    background: Tensor | Background | None,
    max_layers: int,
) -> list[Layer]:
    """Layers of one picture, its depth edges sharpened first."""
    depth_m = usable_depth(depth_m)
    inverse = 1.0 / depth_m[0].detach()
    scale = radius_px_per_inverse_m(focus, camera, radiance.shape[-1]).item()
    hard = sharpened(radiance[0, :3], inverse, scale)
    # the edge moves, the gradient stays with the depth that was given
    depth_m = torch.where(hard == inverse, depth_m, 1.0 / hard)
    return split_layers(
        radiance, depth_m, focus, camera, subject=subject, background=background, max_layers=max_layers
    )
