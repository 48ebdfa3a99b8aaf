"""Contact Sheet and Focus Overlay."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy_api.latest import io

from ...lens_models import coc_px
from ...lens_models.camera import broadcast_batch, hyperfocal_m, sharp_limits_m
from ...lens_models.labels import metres_label
from ...lens_models.scene import item
from ...lens_models.show.overlay import acceptable_coc_px, focus_overlay
from ...lens_models.show.sheet import captioned, captions, contact_sheet, table
from ..lens.render import tilt_inputs
from ..shared.images import picture_size, to_host
from ..shared.inputs import node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, ANY_FOCUS, CAMERA, as_camera, as_depth, as_focus

UNDER, TABLE = "label under each", "rows and columns"


class ContactSheetNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusContactSheet",
            display_name="Contact Sheet",
            category="fine defocus/output",
            description="Lays a batch out as one picture, labelled with the aperture and focus of each.",
            search_aliases="grid, image grid, labels, comparison, aperture series, montage, xy plot, xy "
            "grid, rows and columns",
            inputs=[
                io.Image.Input("images", tooltip="The pictures, such as a sweep out of a lens."),
                io.Int.Input("columns", default=0, min=0, max=64),
                "Pictures per row; 0 chooses a wide sheet. Not used for 'rows and columns'.",
                io.Int.Input("picture_width", default=0, min=0, max=8192),
                "Width of each picture on the sheet in pixels; 0 keeps its own.",
                io.Int.Input("text_size", default=0, min=0, max=256),
                "Height of the text in pixels; 0 follows the pictures. Text that does not fit is made "
                "smaller.",
                io.String.Input("labels", default="", multiline=True),
                "Your own labels, one line per picture; an empty line keeps the automatic one.",
                CAMERA.Input("camera", optional=True),
                "The camera or sweep the pictures were made with: labels them f/1.8, f/2.8, ...",
                io.MultiType.Input("focus", ANY_FOCUS, optional=True),
                "The focus the pictures were made with, as FOCUS or metres: labels the distance.",
                io.Combo.Input("arrangement", [UNDER, TABLE], default=UNDER, optional=True),
                "'rows and columns': apertures across, labelled above; distances and pictures down, "
                "labelled on the left. For 'every combination' of Batch Sweep, with its camera and focus "
                "connected.",
            ],
            outputs=[io.Image.Output("sheet", tooltip="One picture with everything on it.")],
            has_intermediate_output=False,
        )

    @classmethod
    def execute(
        cls, images, columns, picture_width, text_size, labels, camera=None, focus=None, arrangement=UNDER
    ) -> io.NodeOutput:
        settings = (
            images.shape[0],
            None if camera is None else as_camera(camera),
            None if focus is None else as_focus(focus),
            labels.rstrip().split("\n") if labels.strip() else (),
        )
        layout = {"picture_width": picture_width, "text_px": text_size}
        if arrangement == TABLE:
            grid = table(*settings)
            layout |= {"title": grid.title, "across": grid.across, "down": grid.down}
            sheet = contact_sheet(images, grid.own, **layout)
        else:
            title, texts = captions(*settings)
            sheet = contact_sheet(images, texts, title=title, columns=columns, **layout)
        return io.NodeOutput(sheet.to(mm.intermediate_device()))


class FocusOverlayNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusFocusOverlay",
            display_name="Focus Overlay",
            category="fine defocus/output",
            description="Shows what will be sharp before anything is rendered, with the limits in metres "
            "and the hyperfocal distance.",
            search_aliases="depth of field, dof, focus peaking, hyperfocal, focus zone, in focus",
            inputs=[
                io.Image.Input("image", tooltip="The sharp picture."),
                io.MultiType.Input("depth", ANY_DEPTH),
                "Its depth, or the geometry of MoGe or Depth Anything 3.",
                io.MultiType.Input("focus", ANY_FOCUS),
                "Where the lens is focused: FOCUS, or metres.",
                CAMERA.Input("camera", tooltip="The camera, or a sweep: one overlay each."),
                number("sharp_px", 0.0, 0.0, 1000.0, 0.1, advanced=True),
                "Largest blur diameter that counts as sharp, in pixels. 0 takes the usual 1/1500 of the "
                "diagonal, at least 1 px.",
                *tilt_inputs(),
            ],
            outputs=[
                io.Image.Output("overlay"),
                "What is sharp in its own colours with a green outline, warm in front, cool behind.",
                io.Float.Output("near_m", tooltip="Nearest sharp distance, metres."),
                io.Float.Output("far_m", tooltip="Farthest sharp distance; inf = all."),
                io.Float.Output("hyperfocal_m", tooltip="Focus there or beyond keeps infinity sharp."),
            ],
        )

    @classmethod
    def execute(cls, image, depth, focus, camera, sharp_px, tilt=0.0, swing=0.0) -> io.NodeOutput:
        height, width = picture_size(image)
        focus, camera = as_focus(focus).leaning(tilt, swing), as_camera(camera).framed(width, height)
        converted = as_depth(depth, camera)
        metres = converted.depth.resized(height, width).metres.to(image.device)
        count = broadcast_batch(
            pictures=image.shape[0], depths=metres.shape[0], focus_settings=focus.batch, cameras=camera.batch
        )
        sharp = sharp_px or acceptable_coc_px(width, height)
        near, far = (v.expand(count).tolist() for v in sharp_limits_m(focus, camera, width, sharp))
        hyperfocal = hyperfocal_m(camera, width, sharp, focus.scale).expand(count).tolist()
        distance = torch.as_tensor(focus.distance_m, dtype=torch.float64).reshape(-1).expand(count).tolist()
        where = "" if focus.upright else "in the middle: "
        texts = [
            f"{where}focus {metres_label(d)}   sharp {metres_label(n)} to {metres_label(f)}   "
            f"hyperfocal {metres_label(h)}"
            for d, n, f, h in zip(distance, near, far, hyperfocal, strict=True)
        ]
        overlays = []
        for i in range(count):
            coc = coc_px(item(metres, i), focus.part(i, i + 1), camera.part(i, i + 1), width)
            overlays.append(focus_overlay(item(image, i), coc, sharp))
        overlay = to_host(captioned(torch.cat(overlays), texts))
        ui = messages_ui(cls, "\n".join(texts[:8]), converted.warnings)
        return io.NodeOutput(overlay, near[0], far[0], hyperfocal[0], ui=ui)
