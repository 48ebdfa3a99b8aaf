"""What leaves the graph for people."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io

from ..lens_models.sheet import captions, contact_sheet
from .sockets import CAMERA, FOCUS, as_camera, as_focus


class ContactSheetNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusContactSheet",
            display_name="Contact Sheet",
            category="fine defocus/output",
            description="Lays a batch out as one picture, labelled with the aperture and focus of each.",
            search_aliases=[
                "grid",
                "image grid",
                "labels",
                "comparison",
                "aperture series",
                "montage",
                "xy plot",
            ],
            inputs=[
                io.Image.Input("images", tooltip="The pictures, such as a sweep out of a lens."),
                io.Int.Input(
                    "columns", default=0, min=0, max=64, tooltip="Pictures per row; 0 chooses a wide sheet."
                ),
                io.Int.Input(
                    "picture_width",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Width of each picture on the sheet in pixels; 0 keeps its own.",
                ),
                io.Int.Input(
                    "text_size",
                    default=0,
                    min=0,
                    max=256,
                    tooltip="Height of the text in pixels; 0 follows the pictures. Text that does not fit is "
                    "made smaller.",
                ),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip="Your own labels, one line per picture; an empty line keeps the automatic one.",
                ),
                CAMERA.Input(
                    "camera",
                    optional=True,
                    tooltip="The camera or sweep the pictures were made with: labels them f/1.8, f/2.8, ...",
                ),
                io.MultiType.Input(
                    "focus",
                    types=[FOCUS, io.Float],
                    optional=True,
                    tooltip="The focus the pictures were made with, as FOCUS or metres: labels the distance.",
                ),
            ],
            outputs=[
                io.Image.Output("sheet", display_name="sheet", tooltip="One picture with everything on it.")
            ],
        )

    @classmethod
    def execute(
        cls, images, columns, picture_width, text_size, labels, camera=None, focus=None
    ) -> io.NodeOutput:
        title, texts = captions(
            images.shape[0],
            None if camera is None else as_camera(camera),
            None if focus is None else as_focus(focus),
            labels.rstrip().split("\n") if labels.strip() else (),
        )
        sheet = contact_sheet(
            images, texts, title=title, columns=columns, picture_width=picture_width, text_px=text_size
        )
        return io.NodeOutput(sheet.to(comfy.model_management.intermediate_device()))
