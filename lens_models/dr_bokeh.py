"""Dr.Bokeh Lens: the picture as layers, each blurred whole, laid over one another."""

from __future__ import annotations

import torch
from torch import Tensor

from . import blur
from .camera import Camera, Focus, broadcast_batch, radius_px_per_inverse_m, usable_depth
from .layers.composite import composite
from .layers.fill import Background
from .layers.layer import Layer
from .layers.sharpen import sharpened
from .layers.split import split_layers
from .layers.steady import SteadyCuts
from .layers.subject import along_the_mask
from .progress import Progress, progress_within
from .scene import checked_scene, item
from .shape import ApertureShape

#: Share of the work of a picture that goes into its layers, for the progress.
SPLITTING = 0.7
#: Share of that which goes into sharpening the depth.
SHARPENING = 0.1


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
    on_progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> Tensor:
    """Render a sharp picture through a thin lens with layers that hide one another.

    A blurred foreground melts over what lies behind it, a blurred background takes no colour from a sharp
    subject. Costs a few times `taf_lens`. Layers are made once per picture, depth and focus, not per
    aperture, at the widest aperture asked for.

    radiance, depth_m, focus, camera, shape, max_radius_px, on_progress: as in `taf_lens`.
    memory_bytes: what the blur of a layer may hold, as in `taf_lens`; finding the layers needs more.
    subject: `(B, H, W)` mask 0..1 that becomes the matte of a layer of its own; depth beside its edge
    follows it.
    background: `(B, C, H, W)` radiance seen where the farthest layer is hidden, or a `Background` that fills.
    max_layers: at most so many layers.
    rays: 0, or points on the lens per pixel, for exact occlusion between several blurred layers.
    engine: "auto", "reference", "stack", "cpu" or "gpu", all the same function; rays have none.

    Returns `(B, C, H, W)`. Differentiable with respect to radiance, depth and every setting; cuts, mattes
    and the sharpening of soft depth edges are constants. Raises ValueError as `taf_lens` does.
    """
    blur.check_engine(engine)
    radiance, depth_m = checked_scene(radiance, depth_m, max_radius_px)
    parts = {"subjects": subject, "backgrounds": background}
    sizes = {name: part.shape[0] for name, part in parts.items() if isinstance(part, Tensor)}
    pictures = broadcast_batch(
        pictures=radiance.shape[0], depths=depth_m.shape[0], **sizes, focus_settings=focus.batch
    )
    count = broadcast_batch(pictures=pictures, cameras=camera.batch)

    results: list[Tensor] = []
    layers: list[Layer] = []
    steady = SteadyCuts()
    for i in range(count):
        splitting = SPLITTING if i < pictures else 0.0
        if i < pictures:
            layers = scene_layers(
                item(radiance, i),
                item(depth_m, i),
                focus.part(i, i + 1),
                camera if pictures == 1 else camera.part(i, i + 1),
                subject=item(subject, i) if isinstance(subject, Tensor) else None,
                background=item(background, i) if isinstance(background, Tensor) else background,
                max_layers=max_layers,
                steady=steady,
                on_progress=progress_within(on_progress, i, i + splitting, count),
            )
        picture = composite(
            layers,
            focus.part(i, i + 1),
            camera.part(i, i + 1),
            shape=shape,
            rays=rays,
            max_radius_px=max_radius_px,
            engine=engine,
            on_progress=progress_within(on_progress, i + splitting, i + 1, count),
            memory_bytes=memory_bytes,
        )
        results.append(picture)
    return torch.cat(results)


def scene_layers(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    subject: Tensor | None = None,
    background: Tensor | Background | None = None,
    max_layers: int = 6,
    steady: SteadyCuts | None = None,
    on_progress: Progress | None = None,
) -> list[Layer]:
    """Layers of one picture for a whole sweep of cameras: `split_layers` at the widest, soft edges sharpened.

    radiance: `(1, C, H, W)`; depth_m: `(1, H, W)`; focus: single; camera: one or many. steady: as in
    `split_layers`. The rest as in `dr_bokeh_lens`, which is this and then `composite` per camera.
    """
    if max_layers < 1:
        raise ValueError(f"max_layers is {max_layers}: use at least 1.")
    radiance, depth_m = checked_scene(radiance, depth_m, None)
    for name, part in {"subject": subject, "background": background}.items():
        if isinstance(part, Tensor) and part.shape[-2:] != radiance.shape[-2:]:
            raise ValueError(
                f"{name} is {tuple(part.shape)} and the picture {tuple(radiance.shape)}: same size, please."
            )
    if isinstance(background, Tensor):
        background = _with_channels(background.to(radiance), radiance.shape[1])
    width = radiance.shape[-1]
    scales = radius_px_per_inverse_m(focus, camera, width)
    widest = camera.part(int(scales.argmax()), int(scales.argmax()) + 1)
    depth_m = usable_depth(depth_m)
    inverse = 1.0 / depth_m[0].detach()
    px_per_inverse_m = scales.max().item()
    hard = inverse
    if subject is not None:
        hard = along_the_mask(hard, subject[0].detach().to(hard), px_per_inverse_m)
    sharpening = progress_within(on_progress, 0.0, SHARPENING)
    hard = sharpened(radiance[0, :3], hard, px_per_inverse_m, sharpening)
    # the edge moves, the gradient stays with the depth that was given
    depth_m = torch.where(hard == inverse, depth_m, 1.0 / hard)
    return split_layers(
        radiance,
        depth_m,
        focus,
        widest,
        subject=subject,
        background=background,
        max_layers=max_layers,
        steady=steady,
        on_progress=progress_within(on_progress, SHARPENING, 1.0),
    )


def _with_channels(plate: Tensor, channels: int) -> Tensor:
    """A plate with the picture's channels: opaque where the picture has transparency and the plate none."""
    if plate.shape[1] == channels:
        return plate
    return plate[:, :3] if channels == 3 else torch.cat([plate, torch.ones_like(plate[:, :1])], dim=1)
