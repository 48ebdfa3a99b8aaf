"""TAF Lens: the paper's differentiable lens, each pixel gathering with its own circle of confusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import blur
from .blur import torch_stack
from .camera import Camera, Focus, broadcast_batch, coc_px
from .memory import blur_in_bands
from .progress import Progress, progress_within
from .scene import LensOptions, checked_scene, item, largest_radius_px
from .shape import ApertureShape

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

#: Pixels blurred together.
PIXELS_TOGETHER = 1 << 23
#: Numbers per pixel that a blur is taken to hold while it works, for the bands: of each channel once, of each
#: channel of each aperture, and of each aperture.
_HELD_ONCE, _HELD_BY_CHANNEL, _HELD_BY_APERTURE = 4, 1, 12


def taf_lens(
    radiance: Tensor, depth_m: Tensor, focus: Focus, camera: Camera, **options: Unpack[LensOptions]
) -> Tensor:
    """Render a sharp picture through a thin lens by gathering (eq. 6 and a disc per pixel).

    Fast, with simple gradients. By construction a blurred foreground keeps its hard edge and a blurred
    background takes in colour of a sharp neighbour; a layered lens does not.

    radiance: `(B, C, H, W)` linear light, C = 3, or 4 with premultiplied alpha, which is blurred along.
    depth_m: `(B, H, W)` metres, +inf = sky; zero, negative and NaN count as 1 cm.
    focus, camera: one setting or a batch. 1 broadcasts with N, so one picture and N cameras is a sweep.
    options, as keywords:
    shape: aperture shape; None is the disc. Lights in front of the focal plane show it point-inverted.
    max_radius_px: blur radii are limited to this many pixels; None limits them to the picture's longer side.
    engine: "auto", "reference", "stack" or "cpu", all the same function.
    on_progress: called with (done, total) pieces of work, often enough to interrupt by raising.
    memory_bytes: what the blur may hold beside picture, depth, radii and result: it then works in bands of
        rows, which leave no seam. None is no limit. When memory runs out bands get narrower either way.
        Gradients, and a shape with a cat's eye, need the whole picture at once.

    Returns `(B, C, H, W)`. Differentiable with respect to radiance, depth, distance, scale, f-number and
    focal length. NaN in the picture is read as black.
    Raises ValueError when batches or sizes do not go together; the sentence names both numbers.
    """
    pictures = list(taf_pictures(radiance, depth_m, focus, camera, **options))
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def taf_pictures(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    shape: ApertureShape | None = None,
    max_radius_px: float | None = None,
    engine: str = "auto",
    on_progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> Iterator[Tensor]:
    """The pictures of `taf_lens` a few at a time, `(n, C, H, W)`, for a sweep too long to hold at once."""
    radiance, depth_m = checked_scene(radiance, depth_m)
    height, width = radiance.shape[-2:]
    count = broadcast_batch(
        pictures=radiance.shape[0], depths=depth_m.shape[0], focus_settings=focus.batch, cameras=camera.batch
    )
    cap = largest_radius_px(max_radius_px, height, width)

    # what the blur of a picture does once for all apertures pays off when it gets several together
    together = max(1, PIXELS_TOGETHER // (height * width)) if len(radiance) == 1 else 1
    for i in range(0, count, together):
        end = min(i + together, count)
        report = progress_within(on_progress, i, end, count)
        depths = depth_m if len(depth_m) == 1 else depth_m[i:end]
        coc = coc_px(depths, focus.part(i, end), camera.part(i, end), width).expand(end - i, -1, -1)
        radius = (coc.abs() / 2.0).clamp_max(cap) if shape is None else (coc / 2.0).clamp(-cap, cap)
        yield _gathered(item(radiance, i), radius, shape, engine, report, memory_bytes)
        if report is not None:
            report(1, 1)


def _gathered(
    radiance: Tensor,
    radius_px: Tensor,
    shape: ApertureShape | None,
    engine: str,
    on_progress: Progress | None,
    memory_bytes: int | None,
) -> Tensor:
    """`blur.gather` in bands of rows."""
    (channels, height, _), apertures = radiance.shape[1:], len(radius_px)

    def work(band: slice, source: slice) -> Tensor:
        # rows of the halo are only read: they stay sharp, which costs nothing
        margin = (0, 0, band.start - source.start, source.stop - band.stop)
        blurred = blur.gather(
            radiance[..., source, :],
            F.pad(radius_px[:, band], margin),
            shape=shape,
            engine=engine,
            on_progress=progress_within(on_progress, band.start / height, band.stop / height),
        )
        return blurred[..., margin[2] : blurred.shape[-2] - margin[3], :]

    floats = _HELD_ONCE * channels + apertures * (_HELD_BY_CHANNEL * channels + _HELD_BY_APERTURE)
    reach = torch_stack.reach_px(radius_px, shape)
    bytes_per_px = floats * radiance.element_size()
    return blur_in_bands(work, radius_px, reach, shape, bytes_per_px, memory_bytes, (radiance, radius_px))
