"""Focus where the picture is clicked. What is drawn in the browser is in `web/js/focus`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui
from torch import Tensor

from ...lens_models import Camera, Focus
from ...lens_models.camera import broadcast_batch
from ...lens_models.depth import DepthMap
from ...lens_models.focus.point import (
    PATCH,
    SAMPLES,
    distance_at,
    f_number_for_range,
    fitted_size,
    packed_depth,
    points_json,
    range_coc_px,
    range_focus_m,
)
from ...lens_models.labels import distances_label, metres_label
from ...lens_models.light import image_to_radiance, radiance_to_image
from ...lens_models.show.overlay import acceptable_coc_px
from ...lens_models.stops import label as f_label
from ..shared.images import picture_size, shape_warning
from ..shared.inputs import aliases, with_tooltips
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, CAMERA, FOCUS, as_camera, as_depth

UNSET = -1.0
PREVIEW_LONGEST_PX = 768


class FocusPointNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusFocusPoint",
            display_name="Focus Point",
            category="fine defocus/focus",
            description="Focuses where you click the picture, and shows the blur at once.",
            search_aliases=aliases(
                "click to focus, tap to focus, focus picker, point, autofocus, preview, depth of field"
            ),
            inputs=with_tooltips(
                io.Image.Input("image", tooltip="Picture that is sharp everywhere; it is passed through."),
                io.MultiType.Input("depth", ANY_DEPTH),
                "Depth of the picture, or the geometry of MoGe or Depth Anything 3.",
                _coordinate(
                    "focus_x", 0.5, "What shall be sharp, from left (0) to right (1). A click sets it."
                ),
                _coordinate(
                    "focus_y", 0.5, "What shall be sharp, from top (0) to bottom (1). A click sets it."
                ),
                io.Combo.Input("sample", list(SAMPLES), default=PATCH),
                "What is measured: the pixel, the median of a small patch around it (calm on noisy depth), "
                "or the median of what the subject mask covers.",
                _coordinate(
                    "range_x",
                    UNSET,
                    "Second point: what lies between the two distances is kept as sharp as possible. -1 is "
                    "none. Shift-click sets it.",
                ),
                _coordinate("range_y", UNSET, "Second point, from top to bottom. -1 is none."),
                CAMERA.Input("camera", optional=True),
                "The camera of the lens: the preview blurs like it, and its f-number can be changed on the "
                "picture.",
                io.Mask.Input("subject", optional=True),
                "White on the subject, from SAM3 or BiRefNet, for sample = subject. One mask per frame "
                "follows it.",
            ),
            outputs=with_tooltips(
                FOCUS.Output("focus", tooltip="The focus, for a lens."),
                io.Float.Output("distance_m", tooltip="Of the first picture, metres."),
                io.Image.Output("image", tooltip="The picture, unchanged."),
                io.String.Output("points"),
                'The point in pixels, [{"x": 320, "y": 240}], as SAM3 Detect takes it.',
            ),
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls, image, depth, focus_x, focus_y, sample, range_x=UNSET, range_y=UNSET, camera=None, subject=None
    ) -> io.NodeOutput:
        height, width = picture_size(image)
        camera = None if camera is None else as_camera(camera).framed(width, height).part(0, 1)
        found = as_depth(depth, camera)
        masks = 1 if subject is None else subject.reshape(-1, *subject.shape[-2:]).shape[0]
        broadcast_batch(pictures=image.shape[0], depths=found.depth.batch, masks=masks)
        seen = distance_at(found.depth, focus_x, focus_y, sample, subject)
        distance, points = seen.metres.double(), [(focus_x, focus_y)]
        odd = shape_warning("depth", found.depth.size, (height, width), ". Is it the depth of this picture?")
        warnings = [*found.warnings, *seen.warnings, *odd]
        summary, info = distances_label(distance.tolist()), {"range": None}
        if range_x >= 0.0 and range_y >= 0.0:
            other = distance_at(found.depth, range_x, range_y, sample if sample != SAMPLES[-1] else PATCH)
            ends, distance = (distance, other.metres.double()), range_focus_m(distance, other.metres.double())
            warnings += other.warnings
            ends = sorted(end[0].item() for end in ends)
            summary = (
                f"{distances_label(distance.tolist())} for {metres_label(ends[0])} to {metres_label(ends[1])}"
            )
            summary += _aperture_for(ends, camera, width, height)
            info["range"] = [range_x, range_y]
        elif range_x >= 0.0 or range_y >= 0.0:
            warnings.append("Only one of range_x and range_y is set, so there is no second point.")
        focus = Focus(distance) if len(distance) > 1 else Focus(distance.item())
        info |= {
            "point": [focus_x, focus_y],
            "distance_m": distance[0].item(),
            "sample": sample,
            "pictures": image.shape[0],
        }
        shown = _preview(cls, image, found.depth, camera, info)
        return io.NodeOutput(
            focus,
            distance[0].item(),
            image,
            points_json(points, width, height),
            ui={**shown, **messages_ui(cls, summary, warnings)},
        )


def _coordinate(name: str, default: float, tooltip: str) -> io.Input:
    least = min(default, 0.0)
    return io.Float.Input(
        name, default=default, min=least, max=1.0, step=0.0001, round=0.0001, tooltip=tooltip
    )


def _aperture_for(ends: list[float], camera: Camera | None, width: int, height: int) -> str:
    """What keeps a range sharp, as words that go on after the distances."""
    if camera is None:
        return ""
    sharp = acceptable_coc_px(width, height)
    blur = range_coc_px(*ends, camera, width)
    if blur <= sharp:
        return f", all within {sharp:.1f} px of blur"
    needed = f_label(f_number_for_range(*ends, camera, width, sharp))
    return f", blurred {blur:.1f} px at both ends; from {needed} on all is sharp"


def _preview(
    cls: type[io.ComfyNode], image: Tensor, depth: DepthMap, camera: Camera | None, info: dict
) -> dict[str, list]:
    """The first picture and its depth as temporary files, and what the browser must know about them."""
    height, width = image.shape[1:3]
    wide, high = fitted_size(width, height, PREVIEW_LONGEST_PX)
    radiance = image_to_radiance(image[:1].cpu())[:, :3]  # transparency over black
    if (wide, high) != (width, height):
        radiance = F.interpolate(radiance, size=(high, wide), mode="area")
    codes, near, far = packed_depth(
        DepthMap(depth.metres[:1].cpu(), depth.valid[:1].cpu()).resized(high, wide)
    )
    info |= {
        "width": width,
        "height": height,
        "near_m": near,
        "far_m": far,
        "fx_px": None if depth.fx_px is None else depth.fx_px[0].item() * width / depth.size[1],
        "sky": bool(torch.isinf(depth.metres[0]).any()),
        "camera": None
        if camera is None
        else {
            name: torch.as_tensor(getattr(camera, name)).reshape(-1)[0].item()
            for name in ("f_number", "focal_mm", "sensor_mm")
        },
    }
    return {
        "focus_preview": _temporary(radiance_to_image(radiance) * 255.0, cls),
        "focus_depth": _temporary(codes[None].float(), cls),
        "focus_info": [info],
    }


def _temporary(levels: Tensor, cls: type[io.ComfyNode]) -> list[dict]:
    """`(1, H, W, 3)` levels 0..255 as a temporary PNG; the host cuts fractions off, so a half is added."""
    return ui.PreviewImage((levels.float() + 0.5) / 255.0, cls=cls).as_dict()["images"]
