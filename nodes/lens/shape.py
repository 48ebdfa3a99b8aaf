"""Aperture Shape."""

from __future__ import annotations

from comfy_api.latest import io

from ...lens_models.shape import ApertureShape
from ..shared.inputs import node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import APERTURE_SHAPE

DISC, POLYGON, RING, PICTURE = "disc", "polygon", "ring (mirror lens)", "picture (kernel input)"
KINDS = {DISC: "disc", POLYGON: "polygon", RING: "ring", PICTURE: "picture"}


class ApertureShapeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusApertureShape",
            display_name="Aperture Shape",
            category="fine defocus/lens",
            description="The shape of the lens opening, and so of every light out of focus: blades, cat's "
            "eye, anamorphic ovals, rings, soap bubbles, hearts.",
            search_aliases="bokeh shape, aperture blades, iris, cat eye bokeh, swirly bokeh, anamorphic, "
            "mirror lens, soap bubble, heart bokeh, kernel",
            inputs=[
                io.Combo.Input("shape", list(KINDS), default=POLYGON),
                "Disc; polygon with blades; ring as of a mirror lens; or a picture of the opening. The blur "
                "of an f-number is equally strong with every shape.",
                io.Int.Input("blades", default=6, min=3, max=12),
                "Number of aperture blades of a polygon.",
                number("curvature", 0.2, 0.0, 1.0, 0.01, round=None),
                "How round the blades of a polygon are: 0 straight, 1 a full circle.",
                number("rotation_deg", 0.0, -360.0, 360.0, 1.0),
                "Turns a polygon or a picture clockwise, in degrees. At 0 a polygon has a corner at the "
                "top. Lights in front of the focus are upside down, as in a real lens.",
                number("squeeze", 1.0, 0.25, 4.0, 0.01, round=None),
                "Height over width of the lights: 1 round, 1.33 to 2 the tall ovals of an anamorphic lens, "
                "below 1 wide.",
                number("inner", 0.4, 0.0, 0.95, 0.01, round=None),
                "Hole of a ring: its radius as a share of the ring's.",
                number("edge", 0.0, -1.0, 1.0, 0.01, round=None),
                "Edge of the lights: -1 fades to nothing (apodised, creamy), 0 even, 1 a bright rim (soap "
                "bubble). Pictures bring their own.",
                number("cats_eye", 0.0, 0.0, 1.0, 0.01, round=None),
                "How far the lens barrel cuts into the lights towards the corners of the picture: 0 not at "
                "all, 1 strongly. Slower.",
                io.Image.Input("kernel", optional=True),
                "Drawing of the opening for 'picture': light passes where it is white. One picture, cropped "
                "to what is white.",
            ],
            outputs=[APERTURE_SHAPE.Output("shape", tooltip="The shape, for a lens.")],
        )

    @classmethod
    def execute(
        cls, shape, blades, curvature, rotation_deg, squeeze, inner, edge, cats_eye, kernel=None
    ) -> io.NodeOutput:
        common = {"rotation_deg": rotation_deg, "squeeze": squeeze, "cats_eye": cats_eye}
        if shape == PICTURE and kernel is not None:
            opening = ApertureShape.from_image(kernel, **common)
            return io.NodeOutput(opening, ui=messages_ui(cls, f"{kernel.shape[2]} × {kernel.shape[1]} px"))
        opening = ApertureShape(
            KINDS[shape], blades=blades, curvature=curvature, inner=inner, edge=edge, **common
        )
        unused = ["The kernel picture is not used: set shape to picture."] if kernel is not None else []
        return io.NodeOutput(
            opening, ui=messages_ui(cls, f"{blades} blades" if shape == POLYGON else shape, unused)
        )
