"""Focus predicted by a trained network, or guessed without weights."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.camera import broadcast_batch
from ...lens_models.focus.distance import STRATEGIES, focus_distance_m
from ...lens_models.focus.guess import contrast_guess
from ...lens_models.focus.predictor import load_predictor
from ...lens_models.focus.rack import smoothed_m
from ...lens_models.labels import distances_label, metres_label
from ...lens_models.light import image_to_radiance, linear_to_srgb
from ...lens_models.show.overlay import saliency_overlay
from ...lens_models.show.sheet import captioned
from ..shared.images import picture_size, to_host
from ..shared.inputs import node_schema, number
from ..shared.messages import messages_ui
from ..shared.networks import ModelFolder, loaded, wrapped
from ..shared.progress import each
from ..shared.sockets import ANY_DEPTH, FOCUS, FOCUS_MODEL, as_depth, as_focus_model, focus_at

FOLDER = ModelFolder("focus")
FILE_NEEDED = (
    "There is no focus model in models/focus. Put a .safetensors of the training or RGBD_VST.pth "
    "there and press R, or use Predict Focus without a model: it has a guess of its own."
)
#: Pictures that the network gets in one go.
AT_ONCE = 8


class LoadFocusModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusLoadFocusModel",
            display_name="Load Focus Model",
            category="fine defocus/focus",
            description="Loads a network that predicts what a photographer would focus on: a file of this "
            "project's training, or RGBD_VST.pth.",
            search_aliases="saliency, vst, focus predictor, autofocus",
            inputs=[
                io.Combo.Input("file", FOLDER.files()),
                "A .safetensors written by the training, or the saliency network alone (RGBD_VST.pth), in "
                "models/focus.",
            ],
            outputs=[FOCUS_MODEL.Output("focus_model", tooltip="For Predict Focus.")],
        )

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        predictor = load_predictor(FOLDER.path(file, FILE_NEEDED))
        millions = sum(p.numel() for p in predictor.parameters()) / 1e6
        ui = messages_ui(cls, f"{file}: {millions:.1f} M parameters", predictor.notes)
        return io.NodeOutput(wrapped(predictor), ui=ui)


class PredictFocusNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusPredictFocus",
            display_name="Predict Focus",
            category="fine defocus/focus",
            description="Focuses where a photographer would: on what stands out in picture and depth.",
            search_aliases="autofocus, auto focus, auto-focus, saliency, subject, focus distance",
            inputs=[
                io.Image.Input("image", tooltip="The sharp picture."),
                io.MultiType.Input("depth", ANY_DEPTH),
                "Its depth: DEPTH in metres, or the geometry of MoGe or Depth Anything 3.",
                io.Combo.Input("strategy", list(STRATEGIES), default=STRATEGIES[0]),
                "Weighted mean is the paper's: the average distance of what stands out. The median of the "
                "most salient region is always on something, also with two subjects.",
                number("scale", 0.0, 0.0, 100.0, 0.01, round=0.0001, advanced=True),
                "Factor on the focus distance in the lens equation (f_s of the paper). 0 takes the model's "
                "own; without a model that is 1.",
                number("smooth_frames", 0.0, 0.0, 240.0, 0.5, advanced=True),
                "For the frames of a video: calms the focus over about so many frames. 0 for pictures that "
                "have nothing to do with each other.",
                FOCUS_MODEL.Input("focus_model", optional=True),
                "From Load Focus Model. Nothing connected: a guess from contrast and depth.",
            ],
            outputs=[
                FOCUS.Output("focus", tooltip="The focus, for a lens."),
                io.Float.Output("distance_m", tooltip="Of the first picture, metres."),
                io.Float.Output("scale", tooltip="f_s of the first picture."),
                io.Mask.Output("saliency", tooltip="Where the eye goes, 0 to 1."),
                io.Image.Output("overlay", tooltip="What stands out in its own colours, outlined."),
            ],
        )

    @classmethod
    def execute(cls, image, depth, strategy, scale, smooth_frames, focus_model=None) -> io.NodeOutput:
        size, converted = picture_size(image), as_depth(depth)
        metres = converted.depth.resized(*size).metres
        count = broadcast_batch(pictures=image.shape[0], depths=metres.shape[0])
        opaque = image_to_radiance(image)[:, :3]
        srgb, metres = linear_to_srgb(opaque).expand(count, -1, -1, -1), metres.expand(count, -1, -1)
        if focus_model is None:
            singles = list(zip(srgb.split(1), metres.split(1), strict=True))
            saliency = torch.cat([contrast_guess(*single).cpu() for single in each(singles)])
            source, scales = "guess from contrast", torch.ones(count)
        else:
            source, (saliency, scales) = "model", _predicted(as_focus_model(focus_model), srgb, metres)
        measured = focus_distance_m(metres.cpu(), saliency, strategy)
        distance = smoothed_m(measured.metres, smooth_frames)
        if scale > 0:
            scales = torch.full((count,), float(scale))
        labels = [f"focus {metres_label(d)}" for d in distance.tolist()]
        overlay = captioned(saliency_overlay(image.cpu(), saliency), labels)
        warnings = [*converted.warnings, *measured.warnings]
        return io.NodeOutput(
            focus_at(distance, scales),
            distance[0].item(),
            scales[0].item(),
            saliency.to(mm.intermediate_device()),
            to_host(overlay),
            ui=messages_ui(cls, _summary(source, distance, scales), warnings),
        )


def _summary(source: str, distance: Tensor, scales: Tensor) -> str:
    text = f"{distances_label(distance.tolist())} by {source}"
    return text if len(scales) > 1 or scales.item() == 1 else f"{text}, scale {scales.item():.3g}"


def _predicted(patcher: ModelPatcher, srgb: Tensor, metres: Tensor) -> tuple[Tensor, Tensor]:
    """Saliency `(B, H, W)` and scale `(B,)` of the network, on the CPU."""
    side = patcher.model.vst.config.image_px
    # the first attention holds a token for every 4 x 4 px, in float32
    device = loaded(patcher, AT_ONCE * (side / 4) ** 4 * 4)
    saliency, scales = [], []
    with torch.inference_mode():
        for part in each(list(zip(srgb.split(AT_ONCE), metres.split(AT_ONCE), strict=True))):
            focus, salient = patcher.model(*(planes.to(device) for planes in part))
            saliency.append(salient.cpu())
            scales.append(focus.scale.cpu())
    return torch.cat(saliency), torch.cat(scales)
