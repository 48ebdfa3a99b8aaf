"""TAF Lens: the paper's differentiable lens, each pixel gathering with its own circle of confusion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import blur
from .camera import Camera, Focus, broadcast_batch, coc_px
from .shape import ApertureShape

#: What an infinite radiance is read as: the largest half float, brighter than any light in a picture.
BRIGHTEST = 65504.0
#: Progress is reported in so many pieces per picture.
PIECES = 100


def taf_lens(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    shape: ApertureShape | None = None,
    max_radius_px: float | None = None,
    engine: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
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
    if radiance.ndim != 4 or radiance.shape[1] not in (3, 4):
        raise ValueError(f"radiance must be (batch, 3 or 4, height, width), not {tuple(radiance.shape)}.")
    if depth_m.ndim != 3 or depth_m.shape[-2:] != radiance.shape[-2:]:
        raise ValueError(
            f"depth is {tuple(depth_m.shape)} and the picture {tuple(radiance.shape)}: depth must be "
            "(batch, height, width) with the picture's height and width."
        )
    if max_radius_px is not None and not max_radius_px >= 0:
        raise ValueError(f"max_radius_px is {max_radius_px}: it must be 0 or more.")
    height, width = radiance.shape[-2:]
    count = broadcast_batch(
        pictures=radiance.shape[0], depths=depth_m.shape[0], focus_settings=focus.batch, cameras=camera.batch
    )
    dtype = torch.float64 if torch.float64 in (radiance.dtype, depth_m.dtype) else torch.float32
    radiance = torch.nan_to_num(radiance.to(dtype), nan=0.0, posinf=BRIGHTEST, neginf=0.0)
    depth_m = depth_m.to(device=radiance.device, dtype=dtype)
    cap = float(max(height, width) if max_radius_px is None else max_radius_px)

    def one(batch: Tensor, i: int) -> Tensor:
        return batch[i : i + 1] if batch.shape[0] > 1 else batch

    pictures = []
    for i in range(count):

        def report(done: int, pieces: int, i: int = i) -> None:
            if on_progress is not None:
                on_progress(i * PIECES + done * PIECES // pieces, count * PIECES)

        coc = coc_px(one(depth_m, i), focus.part(i, i + 1), camera.part(i, i + 1), width)
        if shape is None:
            radius = (coc.abs() / 2.0).clamp_max(cap)
        else:
            radius = (coc / 2.0).clamp(-cap, cap)
        pictures.append(blur.gather(one(radiance, i), radius, shape=shape, engine=engine, on_progress=report))
        report(1, 1)
    return torch.cat(pictures)
