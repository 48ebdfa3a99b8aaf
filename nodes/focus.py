"""Where the lens is focused."""

from __future__ import annotations

from comfy_api.latest import io

from ..lens_models import Focus
from .sockets import FOCUS


class FocusDistanceNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusFocusDistance",
            display_name="Focus Distance",
            category="fine defocus/focus",
            description="Focuses the lens at a distance typed in metres.",
            search_aliases=["focus", "focal plane", "focal distance", "sharp at", "metres"],
            inputs=[
                io.Float.Input(
                    "distance_m",
                    default=2.0,
                    min=0.0,
                    max=100000.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="Distance from the lens to what is sharp, in metres. No lens focuses closer than "
                    "twice its focal length; closer values are rendered there.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    round=0.0001,
                    advanced=True,
                    tooltip="Factor on the focus distance in the lens equation (f_s of the paper); 1 is "
                    "physical. Above 1 blurs less, below 1 more, without moving what is sharp.",
                ),
            ],
            outputs=[FOCUS.Output("focus", display_name="focus", tooltip="The focus, for a lens.")],
        )

    @classmethod
    def execute(cls, distance_m, scale) -> io.NodeOutput:
        return io.NodeOutput(Focus(distance_m, scale))
