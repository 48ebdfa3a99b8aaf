"""Common to the lens nodes: sockets in, a few pictures at a time through the lens, sockets out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import io
from torch import Tensor

from ...lens_models import Camera, Focus, coc_px
from ...lens_models.camera import STEEPEST_DEG, broadcast_batch, capped_share, macro_limit_m, macro_limited
from ...lens_models.depth import DepthMap
from ...lens_models.highlights import compress_highlights, expand_highlights
from ...lens_models.labels import metres_label, share_label
from ...lens_models.light import image_to_radiance, radiance_to_image
from ...lens_models.memory import is_out_of_memory
from ...lens_models.scene import item, run_stop
from ...lens_models.show.overlay import focus_overlay
from ...lens_models.taf import PIXELS_TOGETHER
from ..shared import sockets
from ..shared.images import picture_size, shape_warning
from ..shared.inputs import number
from ..shared.networks import free_bytes
from ..shared.progress import on_progress

NEAREST, BILINEAR = "nearest (keeps edges)", "bilinear"
#: float32 planes of a picture that rendering is expected to hold.
PLANES_HELD = 64
#: Share of the free memory that a blur may plan with; the rest is for the picture, its layers and the result.
SHARE_OF_MEMORY = 0.5


def scene_inputs() -> list[io.Input | str]:
    """The inputs that every lens has, in the order that makes swapping lenses one drag."""
    return [
        io.Image.Input("image"),
        "Picture that is sharp everywhere. Transparency is kept and blurred.",
        io.MultiType.Input("depth", sockets.ANY_DEPTH),
        "Depth of the picture: DEPTH in metres, or the geometry of MoGe or Depth Anything 3.",
        io.MultiType.Input("focus", sockets.ANY_FOCUS),
        "Where the lens is focused: FOCUS, or a FLOAT in metres.",
        sockets.CAMERA.Input("camera", tooltip="Camera, or Aperture Sweep for one picture per aperture."),
        io.Int.Input("max_radius_px", default=512, min=0, max=8192, advanced=True),
        "Blur radii are limited to this many pixels. The node reports in how much of the picture.",
        io.Combo.Input("depth_resampling", [NEAREST, BILINEAR], default=NEAREST, advanced=True),
        "How depth of another size than the picture is brought to its size. Nearest invents no distances "
        "along edges; bilinear (in 1/distance) is smoother on slopes.",
        sockets.APERTURE_SHAPE.Input("shape", optional=True),
        "Shape of the lens opening, from Aperture Shape. Nothing connected is a disc.",
        number("highlight_recovery", 0.0, 0.0, 8.0, 0.5, optional=True),
        "Stops of light given back to what a photo shows as nearly white, so that lamps open into discs. 0 "
        "is the picture as it is. Nothing below 230 of 255 changes, and nothing in focus.",
    ]


def tilt_inputs() -> list[io.Input | str]:
    """The lean of the plane of sharp focus: the last inputs, as saved workflows hold values by position."""
    return [
        number("tilt", 0.0, -STEEPEST_DEG, STEEPEST_DEG, 1.0, optional=True, advanced=True),
        "Lean of the plane of sharp focus, degrees: the plane itself, not the lens. Above 0 its top leans "
        "away, as a floor does; below 0 towards the camera. 0 is upright.",
        number("swing", 0.0, -STEEPEST_DEG, STEEPEST_DEG, 1.0, optional=True, advanced=True),
        "Turn of the plane of sharp focus, degrees: the plane itself, not the lens. Above 0 its right side "
        "is farther away, below 0 its left side. 0 faces the camera.",
    ]


def picture_outputs() -> list[io.Output | str]:
    """The outputs that every lens has."""
    return [
        io.Image.Output("image", tooltip="The defocused picture."),
        io.Image.Output("coc"),
        "Circle of confusion: signed diameter in pixels, > 0 behind the focus, < 0 in front, the same in "
        "all 3 channels. Not made for looking at; save it as 32-bit EXR.",
        io.Image.Output("overlay"),
        "What is sharp in its own colours with a green outline, warm in front, cool behind.",
    ]


def render(
    lens: Callable[..., Iterable[Tensor]],
    image: Tensor,
    depth: Any,
    focus: Any,
    camera: Any,
    max_radius_px: int,
    depth_resampling: str,
    *,
    shape: Any = None,
    highlight_recovery: float = 0.0,
    tilt: float = 0.0,
    swing: float = 0.0,
    planes_held: int = PLANES_HELD,
    **extras: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], str, list[str]]:
    """Picture, CoC and overlay of every combination asked for, a summary of the run, and warnings.

    lens: gives the pictures of one scene, `(n, C, H, W)` at a time, such as `taf_pictures`.
    planes_held: float32 planes of a picture that the lens may hold.
    extras: further inputs of the lens by name, `(B, ...)` with the picture's height and width last, or None.
    """
    height, width = picture_size(image)
    focus, camera = sockets.as_focus(focus).leaning(tilt, swing), sockets.as_camera(camera)
    converted = sockets.as_depth(depth, camera)
    depth, camera = converted.depth, camera.framed(width, height)
    others = {name: extra for name, extra in extras.items() if extra is not None}
    count = broadcast_batch(
        pictures=image.shape[0],
        depths=depth.batch,
        focus_settings=focus.batch,
        **{f"{name}s": extra.shape[0] for name, extra in others.items()},
        cameras=camera.batch,
    )
    then = ", so the depth was stretched. Is it the depth of this picture?"
    odd = shape_warning("depth", depth.size, (height, width), then)
    warnings = [*converted.warnings, *odd, *_macro_warning(focus, camera)]

    report, device = on_progress(), mm.get_torch_device()
    if device.type != "cpu":
        at_once = min(count, max(1, PIXELS_TOGETHER // (height * width)))
        mm.free_memory(at_once * height * width * 4 * planes_held, device)
    where, kind, size = mm.intermediate_device(), mm.intermediate_dtype(), (count, height, width)
    pictures = torch.empty(*size, 4 if image.shape[-1] == 4 else 3, device=where, dtype=kind)
    cocs = torch.empty(*size, 3, device=where, dtype=torch.float32)  # always float32: it is a measurement
    overlays = torch.empty(*size, 3, device=where, dtype=kind)
    capped = widest = 0.0
    done = end = 0
    while done < count:
        if done == end:  # the items from here on that show the same scene
            end = run_stop(done, count, image, depth.metres, *others.values())

        def advance(part: int, total: int, start: int = done, stop: int = end) -> None:
            report(start * total + (stop - start) * part, count * total)

        try:
            srgb = item(image, done).to(device)
            here = DepthMap(item(depth.metres, done), item(depth.valid, done))
            metres = here.resized(height, width, bilinear=depth_resampling == BILINEAR).metres.to(device)
            rendered = lens(
                expand_highlights(image_to_radiance(srgb), highlight_recovery),
                metres,
                focus.part(done, end),
                camera.part(done, end),
                shape=sockets.as_shape(shape),
                max_radius_px=max_radius_px,
                on_progress=advance,
                memory_bytes=int(SHARE_OF_MEMORY * free_bytes(device)),
                **{name: item(extra, done).to(device) for name, extra in others.items()},
            )
            for radiance in rendered:
                start, done = done, done + len(radiance)
                coc = coc_px(metres, focus.part(start, done), camera.part(start, done), width)
                coc = coc.expand(len(radiance), -1, -1)
                pictures[start:done] = radiance_to_image(compress_highlights(radiance, highlight_recovery))
                cocs[start:done] = coc[..., None]
                overlays[start:done] = focus_overlay(srgb, coc)
                capped += capped_share(coc, max_radius_px) * len(radiance) / count
                widest = max(widest, coc.abs().max().item() / 2.0)
        except Exception as error:
            if device.type == "cpu" or not (mm.is_oom(error) or is_out_of_memory(error)):
                raise
            warnings.append("The GPU ran out of memory, so the rest was rendered on the CPU.")
            mm.soft_empty_cache()
            device = torch.device("cpu")
    if capped > 0:
        warnings.append(
            f"Blur radii were limited to max_radius_px = {max_radius_px} px in {share_label(capped)} of the "
            f"picture; they would have been up to {widest:.0f} px."
        )
    return (pictures, cocs, overlays), f"{count} × blur radius up to {widest:.1f} px", warnings


def _macro_warning(focus: Focus, camera: Camera) -> list[str]:
    limited = macro_limited(focus, camera)
    if not limited.any():
        return []
    distance = torch.as_tensor(focus.distance_m, dtype=torch.float64).min().item()
    closest = macro_limit_m(focus, camera).max().item()
    return [
        f"Focus at {metres_label(distance)} is closer than this lens can focus: {metres_label(closest)}, "
        "which is 1:1. It was rendered there."
    ]
