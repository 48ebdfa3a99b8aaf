"""TAF Lens: the paper's differentiable lens, each pixel gathering with its own circle of confusion."""

from __future__ import annotations

import torch
from torch import Tensor

from . import blur
from .camera import Camera, Focus, broadcast_batch, coc_px
from .exposure import Progress, checked_scene, item, largest_radius_px, progress_within
from .shape import ApertureShape


def taf_lens(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    shape: ApertureShape | None = None,
    max_radius_px: float | None = None,
    engine: str = "auto",
    on_progress: Progress | None = None,
) -> Tensor:
    """Render a sharp picture through a thin lens by gathering (eq. 6 and a disc per pixel).

    Fast, with simple gradients. By construction a blurred foreground keeps its hard edge and a blurred
    background takes in colour of a sharp neighbour; a layered lens does not.

    radiance: `(B, C, H, W)` linear light, C = 3, or 4 with premultiplied alpha, which is blurred along.
    depth_m: `(B, H, W)` metres, +inf = sky; zero, negative and NaN count as 1 cm.
    focus, camera: one setting or a batch. 1 broadcasts with N, so one picture and N cameras is a sweep.
    shape: aperture shape; None is the disc. Lights in front of the focal plane show it point-inverted.
    max_radius_px: blur radii are held at this many pixels; None holds them at the picture's longer side.
    engine: "auto", "reference", "stack" or "cpu", all the same function.
    on_progress: called with (done, total) pieces of work, often enough to interrupt by raising.

    Returns `(B, C, H, W)`. Differentiable with respect to radiance, depth, distance, scale, f-number and
    focal length. NaN in the picture is read as black.
    Raises ValueError when batches or sizes do not go together; the sentence names both numbers.
    """
    radiance, depth_m = checked_scene(radiance, depth_m, max_radius_px)
    height, width = radiance.shape[-2:]
    count = broadcast_batch(
        pictures=radiance.shape[0], depths=depth_m.shape[0], focus_settings=focus.batch, cameras=camera.batch
    )
    cap = largest_radius_px(max_radius_px, height, width)

    pictures = []
    for i in range(count):
        report = progress_within(on_progress, i, i + 1, count)
        coc = coc_px(item(depth_m, i), focus.part(i, i + 1), camera.part(i, i + 1), width)
        if shape is None:
            radius = (coc.abs() / 2.0).clamp_max(cap)
        else:
            radius = (coc / 2.0).clamp(-cap, cap)
        pictures.append(
            blur.gather(item(radiance, i), radius, shape=shape, engine=engine, on_progress=report)
        )
        if report is not None:
            report(1, 1)
    return torch.cat(pictures)
