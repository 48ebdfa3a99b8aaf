"""Dr.Bokeh Lens: the picture as layers, each blurred whole, laid over one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .camera import Camera, Focus
from .layers.inpaint import Background
from .layers.layered_lens import LayeredLens
from .scene import LensOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on


def dr_bokeh_lens(
    radiance: Tensor,
    depth_m: Tensor,
    focus: Focus,
    camera: Camera,
    *,
    subject: Tensor | None = None,
    background: Tensor | Background | None = None,
    max_layers: int = 6,
    rays: int = 0,
    **options: Unpack[LensOptions],
) -> Tensor:
    """Render a sharp picture through a thin lens with layers that hide one another.

    A blurred foreground melts over what lies behind it, a blurred background takes no colour from a sharp
    subject. Costs a few times `taf_lens`. This is `LayeredLens` for one use: keep one to photograph a scene
    again without splitting it again.

    radiance, depth_m, focus, camera: as in `taf_lens`.
    subject: `(B, H, W)` mask 0..1 that becomes the matte of a layer of its own; depth beside its edge
    follows it.
    background: `(B, C, H, W)` radiance where the farthest layer is hidden, or a `Background` that fills.
    max_layers: at most so many layers.
    rays: 0, or points on the lens per pixel, for exact occlusion between several blurred layers.
    options, as keywords: shape, max_radius_px, on_progress as in `taf_lens`.
    memory_bytes: what the blur of a layer may hold, as in `taf_lens`; splitting into layers needs more.
    engine: "auto", "reference", "stack", "cpu" or "gpu", all the same function; rays have none.

    Returns `(B, C, H, W)`. Differentiable with respect to radiance, depth and every setting; cuts, mattes
    and the sharpening of soft depth edges are constants. Raises ValueError as `taf_lens` does.
    """
    lens = LayeredLens(radiance, depth_m, subject=subject, background=background, max_layers=max_layers)
    return lens.photograph(focus, camera, rays=rays, **options)
