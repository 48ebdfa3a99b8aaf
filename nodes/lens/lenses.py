"""The lenses."""

from __future__ import annotations

import comfy.model_management as mm
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ...lens_models import LayeredLens
from ...lens_models.highlights import compress_highlights, expand_highlights
from ...lens_models.light import image_to_radiance, radiance_to_image
from ...lens_models.taf import taf_pictures
from ..shared.images import picture_size, shape_warning, to_host
from ..shared.inputs import node_schema
from ..shared.messages import messages_ui
from .render import picture_outputs, render, scene_inputs, tilt_inputs

#: Where ComfyUI keeps the nodes that change a picture, among those it shows first.
ESSENTIALS = "Image Tools"
#: float32 planes of a picture that its layers and their blur are expected to hold.
PLANES_HELD_BY_LAYERS = 192


class TAFLensNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusTAFLens",
            display_name="TAF Lens",
            category="fine defocus/lens",
            description="Blurs what is out of focus, as a real lens does. Fast; a blurred foreground keeps a "
            "hard edge, which Dr.Bokeh Lens melts.",
            search_aliases="defocus, bokeh, depth of field, dof, lens blur, blur background, background "
            "blur, shallow depth of field, aperture, f-stop, tilt-shift, tilt, miniature, portrait mode, taf",
            essentials_category=ESSENTIALS,
            inputs=[*scene_inputs(), *tilt_inputs()],
            outputs=picture_outputs(),
        )

    @classmethod
    def execute(cls, image, depth, focus, camera, max_radius_px, depth_resampling, **more) -> io.NodeOutput:
        pictures, summary, warnings = render(
            taf_pictures, image, depth, focus, camera, max_radius_px, depth_resampling, **more
        )
        return io.NodeOutput(*pictures, ui=messages_ui(cls, summary, warnings))


class DrBokehLensNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusDrBokehLens",
            display_name="Dr.Bokeh Lens",
            category="fine defocus/lens",
            description="Blurs what is out of focus, as a real lens does, layer by layer: blurred "
            "foregrounds melt over what is behind them, subjects keep their edges, hair and fences survive.",
            search_aliases="defocus, bokeh, depth of field, dof, lens blur, blur background, background "
            "blur, shallow depth of field, aperture, f-stop, tilt-shift, tilt, miniature, portrait mode, dr "
            "bokeh, occlusion",
            essentials_category=ESSENTIALS,
            inputs=[
                *scene_inputs(),
                io.Mask.Input("subject", optional=True),
                "Matte of the subject, from SAM3, BiRefNet or painted: it becomes a layer of its own, "
                "whatever the depth says at its edge.",
                io.Image.Input("background", optional=True),
                "The farthest layer where others hide it: a clean plate or an inpainted one. Without it "
                "hidden parts are filled from around them.",
                io.Int.Input("max_layers", default=6, min=1, max=16, optional=True, advanced=True),
                "At most so many layers are cut. More only where the depth has more steps.",
                io.Int.Input("rays", default=0, min=0, max=1024, optional=True, advanced=True),
                "0 blurs each layer whole. 128 or 256 trace that many rays per pixel instead: exact where "
                "several blurred layers hide each other, and very slow. Round openings only.",
                *tilt_inputs(),
            ],
            outputs=[
                *picture_outputs(),
                io.Image.Output("layers"),
                "The layers of the first picture, nearest first, with transparency.",
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        *scene,  # and more: as in render
        subject=None,
        background=None,
        max_layers=6,
        rays=0,
        highlight_recovery=0.0,
        **more,
    ) -> io.NodeOutput:
        odd: list[str] = []
        if subject is not None:
            subject = _fitted(subject.reshape(-1, 1, *subject.shape[-2:]), "subject", image, odd)[:, 0]
            if not (subject >= 0.5).any():
                odd.append("The subject mask is empty, so no subject was set apart.")
        if background is not None:
            background = _fitted(image_to_radiance(background), "background", image, odd)
            background = expand_highlights(background, highlight_recovery)
        lens: LayeredLens | None = None
        first: list[Tensor] = []

        def layered(radiance, metres, focus, camera, subject=None, background=None, **settings):
            nonlocal lens
            options = {"subject": subject, "background": background, "max_layers": max_layers}
            lens = LayeredLens(radiance, metres, **options, after=lens)
            for picture in lens.photographs(focus, camera, rays=rays, **settings):
                if not first:
                    planes = [layer.premultiplied()[:, :4] for layer in lens.layers]
                    first.append(torch.cat(planes).to(mm.intermediate_device()))
                yield picture

        pictures, summary, warnings = render(
            layered,
            image,
            *scene,
            highlight_recovery=highlight_recovery,
            planes_held=PLANES_HELD_BY_LAYERS,
            subject=subject,
            background=background,
            **more,
        )
        layers = to_host(radiance_to_image(compress_highlights(first[0], highlight_recovery)))
        summary += f", {len(layers)} layer{'s' if len(layers) > 1 else ''}"
        return io.NodeOutput(*pictures, layers, ui=messages_ui(cls, summary, [*odd, *warnings]))


def _fitted(planes: Tensor, name: str, image: Tensor, warnings: list[str]) -> Tensor:
    """`(B, C, H, W)` planes brought to the size of an IMAGE, with a warning where that stretches them."""
    size, (height, width) = picture_size(image), planes.shape[-2:]
    if 0 in planes.shape:
        raise ValueError(f"The {name} input is empty: it got a batch of shape {tuple(planes.shape)}.")
    if (height, width) == size:
        return planes
    warnings += shape_warning(name, (height, width), size, ", so it was stretched.")
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
