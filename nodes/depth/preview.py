"""Depth to look at."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...lens_models.show.depth import depth_preview, inverse_grey
from ..shared.images import to_host
from ..shared.inputs import metres, node_schema
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, as_depth
from .given import depth_summary


class DepthPreviewNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusDepthPreview",
            display_name="Depth Preview",
            category="fine defocus/depth",
            description="Shows depth in colours, warm near and cool far, with a legend in metres.",
            search_aliases="depth map, colour map, color map, view depth, histogram, turbo, legend, "
            "controlnet",
            inputs=[
                io.MultiType.Input("depth", ANY_DEPTH),
                "DEPTH in metres, or the geometry of MoGe or Depth Anything 3.",
                metres("near_m", 0.0),
                "Distance of the warm end in metres; 0 takes the nearest of the batch.",
                metres("far_m", 0.0),
                "Distance of the cool end in metres; 0 takes the farthest of the batch.",
                io.Boolean.Input("legend", default=True),
                "Adds the distribution of the distances and their metres under the picture.",
            ],
            outputs=[
                io.Image.Output("preview", tooltip="Depth in colours."),
                io.Image.Output("grey"),
                "Near is white, evenly in 1/distance, without a legend: for a depth ControlNet.",
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, depth, near_m, far_m, legend) -> io.NodeOutput:
        converted = as_depth(depth)
        picture = depth_preview(converted.depth, near_m=near_m, far_m=far_m, legend=legend)
        grey = inverse_grey(converted.depth, near_m=near_m, far_m=far_m)
        shown = ui.PreviewImage(picture, cls=cls).as_dict()["images"]
        texts = messages_ui(cls, depth_summary(converted.depth), converted.warnings)
        return io.NodeOutput(to_host(picture), to_host(grey), ui={"images": shown, **texts})
