"""Pictures, distances and apertures as one batch."""

from __future__ import annotations

from comfy_api.latest import io

from ...lens_models.batch import EVERY, ORDERS, item_labels, planned, taken
from ...lens_models.camera import broadcast_batch
from ..shared.images import picture_size
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, ANY_FOCUS, CAMERA, DEPTH, FOCUS, as_camera, as_depth, as_focus


class BatchSweepNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusBatchSweep",
            display_name="Batch Sweep",
            category="fine defocus/camera",
            description="Combines pictures, focus distances and apertures into one labelled batch, which a "
            "lens renders in one run.",
            search_aliases="xy plot, xyz plot, grid, batch, combinations, product, cross, zip, focus "
            "bracketing, aperture series, repeat batch",
            inputs=[
                io.Image.Input("image", tooltip="One sharp picture or several."),
                io.MultiType.Input("depth", ANY_DEPTH),
                "Their depth: one, or one per picture. DEPTH, or the geometry of MoGe or Depth Anything 3.",
                CAMERA.Input("camera", tooltip="Camera, or Aperture Sweep for several apertures."),
                io.MultiType.Input("focus", ANY_FOCUS),
                "Focus Sweep for several distances, any other focus, or a FLOAT in metres.",
                io.Combo.Input("order", list(ORDERS), default=EVERY),
                "'every combination': each picture at each distance at each aperture; apertures change "
                "fastest, pictures slowest. 'side by side': the first with the first, the second with the "
                "second; a single one goes with all.",
            ],
            outputs=[
                io.Image.Output("image"),
                "Pictures for a lens, one per item. A single picture stays single: it goes with all.",
                DEPTH.Output("depth", tooltip="Depth for a lens."),
                CAMERA.Output("camera", tooltip="Camera for a lens, Contact Sheet and Save Photo."),
                FOCUS.Output("focus", tooltip="Focus for a lens, Contact Sheet and Save Photo."),
                io.String.Output("labels"),
                "What changes along the batch, one line per item, as Contact Sheet takes labels.",
                io.Int.Output("count", tooltip="How many items there are."),
            ],
        )

    @classmethod
    def execute(cls, image, depth, camera, focus, order) -> io.NodeOutput:
        picture_size(image)
        camera, focus = as_camera(camera), as_focus(focus)
        converted = as_depth(depth, camera)
        scenes = broadcast_batch(pictures=image.shape[0], depths=converted.depth.batch)
        word = "picture" if image.shape[0] == scenes else "depth"
        plan = planned(order, scenes, focus.batch, camera.batch)
        image, depth = taken(image, plan.picture), taken(converted.depth, plan.picture)
        camera, focus = taken(camera, plan.aperture), taken(focus, plan.distance)
        labels = "\n".join(item_labels(plan, camera, focus, word))
        ui = messages_ui(cls, plan.summary(word), converted.warnings)
        return io.NodeOutput(image, depth, camera, focus, labels, plan.count, ui=ui)
