"""Focus where the picture is clicked. What is drawn in the browser is in `web/js/focus`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from comfy_api.latest import ui as previews
from torch import Tensor

from ...lens_models import Camera
from ...lens_models.camera import broadcast_batch
from ...lens_models.depth import DepthMap
from ...lens_models.focus import point
from ...lens_models.labels import distances_label, metres_label
from ...lens_models.light import image_to_radiance, radiance_to_image
from ...lens_models.show.overlay import acceptable_coc_px
from ...lens_models.stops import label as f_label
from ..shared.images import picture_size, shape_warning
from ..shared.inputs import node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, CAMERA, FOCUS, as_camera, as_depth, focus_at

UNSET = -1.0
PREVIEW_LONGEST_PX = 768


class FocusPointNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusFocusPoint",
            display_name="Focus Point",
            category="fine defocus/focus",
            description="Focuses where you click the picture, and shows the blur at once.",
            search_aliases="click to focus, tap to focus, focus picker, point, autofocus, preview, depth of "
            "field",
            inputs=[
                io.Image.Input("image", tooltip="Picture that is sharp everywhere; it is passed through."),
                io.MultiType.Input("depth", ANY_DEPTH),
                "Depth of the picture, or the geometry of MoGe or Depth Anything 3.",
                number("focus_x", 0.5, 0.0, 1.0, 0.0001, round=0.0001),
                "What shall be sharp, from left (0) to right (1). A click sets it.",
                number("focus_y", 0.5, 0.0, 1.0, 0.0001, round=0.0001),
                "What shall be sharp, from top (0) to bottom (1). A click sets it.",
                io.Combo.Input("sample", list(point.SAMPLES), default=point.PATCH),
                "What is measured: the pixel, the median of a small patch around it (calm on noisy depth), "
                "or the median of what the subject mask covers.",
                number("range_x", UNSET, UNSET, 1.0, 0.0001, round=0.0001),
                "Second point: what lies between the two distances is kept as sharp as possible. -1 is "
                "none. Shift-click sets it.",
                number("range_y", UNSET, UNSET, 1.0, 0.0001, round=0.0001),
                "Second point, from top to bottom. -1 is none.",
                CAMERA.Input("camera", optional=True),
                "The camera of the lens: the preview blurs like it, and its f-number can be changed on the "
                "picture.",
                io.Mask.Input("subject", optional=True),
                "White on the subject, from SAM3 or BiRefNet, for sample = subject. One mask per frame "
                "follows it.",
            ],
            outputs=[
                FOCUS.Output("focus", tooltip="The focus, for a lens."),
                io.Float.Output("distance_m", tooltip="Of the first picture, metres."),
                io.Image.Output("image", tooltip="The picture, unchanged."),
                io.String.Output("points"),
                'The point in pixels, [{"x": 320, "y": 240}], as SAM3 Detect takes it.',
            ],
        )

    @classmethod
    def execute(
        cls, image, depth, focus_x, focus_y, sample, range_x=UNSET, range_y=UNSET, camera=None, subject=None
    ) -> io.NodeOutput:
        height, width = picture_size(image)
        camera = None if camera is None else as_camera(camera).framed(width, height).part(0, 1)
        converted = as_depth(depth, camera)
        depth = converted.depth
        masks = 1 if subject is None else subject.reshape(-1, *subject.shape[-2:]).shape[0]
        broadcast_batch(pictures=image.shape[0], depths=depth.batch, masks=masks)
        clicked = point.distance_at(depth, focus_x, focus_y, sample, subject)
        distance, rest, second_point = clicked.metres.double(), "", None
        odd = shape_warning("depth", depth.size, (height, width), ". Is it the depth of this picture?")
        warnings = [*converted.warnings, *clicked.warnings, *odd]
        if range_x >= 0.0 and range_y >= 0.0:
            there = point.PATCH if sample == point.SUBJECT else sample  # the mask is of the first point
            other = point.distance_at(depth, range_x, range_y, there)
            near, far = sorted(end[0].item() for end in (distance, other.metres.double()))
            distance, second_point = point.range_focus_m(distance, other.metres.double()), [range_x, range_y]
            warnings += other.warnings
            rest = f" for {metres_label(near)} to {metres_label(far)}"
            rest += _aperture_for(near, far, camera, width, height)
        elif range_x >= 0.0 or range_y >= 0.0:
            warnings.append("Only one of range_x and range_y is set, so there is no second point.")
        info = {
            "range": second_point,
            "point": [focus_x, focus_y],
            "distance_m": distance[0].item(),
            "sample": sample,
            "pictures": image.shape[0],
        }
        ui = _preview(cls, image, depth, camera, info)
        ui |= messages_ui(cls, distances_label(distance.tolist()) + rest, warnings)
        points = point.points_json([(focus_x, focus_y)], width, height)
        return io.NodeOutput(focus_at(distance), distance[0].item(), image, points, ui=ui)


def _aperture_for(near_m: float, far_m: float, camera: Camera | None, width: int, height: int) -> str:
    """The aperture that keeps a range sharp, as the end of a sentence."""
    if camera is None:
        return ""
    sharp = acceptable_coc_px(width, height)
    blur = point.range_coc_px(near_m, far_m, camera, width)
    if blur <= sharp:
        return f", all within {sharp:.1f} px of blur"
    needed = f_label(point.f_number_for_range(near_m, far_m, camera, width, sharp))
    return f", blurred {blur:.1f} px at both ends; from {needed} on all is sharp"


def _preview(
    cls: type[io.ComfyNode], image: Tensor, depth: DepthMap, camera: Camera | None, info: dict
) -> dict[str, list]:
    """The first picture and its depth as temporary files, and what the browser needs to know about them."""
    height, width = image.shape[1:3]
    wide, high = point.fitted_size(width, height, PREVIEW_LONGEST_PX)
    radiance = image_to_radiance(image[:1].cpu())[:, :3]  # transparency over black
    if (wide, high) != (width, height):
        radiance = F.interpolate(radiance, size=(high, wide), mode="area")
    codes, near, far = point.packed_depth(
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
    return previews.PreviewImage((levels.float() + 0.5) / 255.0, cls=cls).as_dict()["images"]
