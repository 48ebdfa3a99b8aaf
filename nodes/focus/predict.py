"""Focus that is found: by a trained network, or by a guess that needs no weights."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models import Focus
from ...lens_models.camera import broadcast_batch
from ...lens_models.focus import contrast_guess, focus_distance_m, load_predictor
from ...lens_models.focus.distance import STRATEGIES
from ...lens_models.focus.rack import smoothed_m
from ...lens_models.labels import distances_label, metres_label
from ...lens_models.light import image_to_radiance, linear_to_srgb
from ...lens_models.show.overlay import saliency_overlay
from ...lens_models.show.sheet import captioned
from ..shared.images import picture_size
from ..shared.inputs import number, with_tooltips
from ..shared.messages import say
from ..shared.sockets import (
    ANY_DEPTH,
    FOCUS,
    FOCUS_MODEL,
    as_depth,
    as_focus_model,
)

FOLDER = "focus"
SUFFIXES = {".safetensors", ".pth", ".pt"}
NO_FILE = "no file in models/focus yet"
#: Pictures that the network sees in one go.
AT_ONCE = 8

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def _files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).suffix in SUFFIXES]


class LoadFocusModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusLoadFocusModel",
            display_name="Load Focus Model",
            category="fine defocus/focus",
            description="Loads a network that knows what a photographer would focus on: a file of our "
            "training, or RGBD_VST.pth.",
            search_aliases=["saliency", "vst", "focus predictor", "autofocus"],
            inputs=with_tooltips(
                io.Combo.Input("file", _files() or [NO_FILE]),
                "A .safetensors written by the training, or the saliency network alone (RGBD_VST.pth), in "
                "models/focus.",
            ),
            outputs=[
                FOCUS_MODEL.Output("focus_model", tooltip="For Predict Focus."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        if file == NO_FILE:
            raise ValueError(
                "There is no focus model in models/focus. Put a .safetensors of the training or RGBD_VST.pth "
                "there and press R, or use Predict Focus without a model: it has a guess of its own."
            )
        predictor = load_predictor(folder_paths.get_full_path_or_raise(FOLDER, file))
        patcher = ModelPatcher(
            predictor, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        millions = sum(p.numel() for p in predictor.parameters()) / 1e6
        return io.NodeOutput(patcher, ui=say(cls, f"{file}: {millions:.1f} M parameters", predictor.notes))


class PredictFocusNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusPredictFocus",
            display_name="Predict Focus",
            category="fine defocus/focus",
            description="Focuses where a photographer would: on what stands out in picture and depth.",
            search_aliases=["autofocus", "auto focus", "auto-focus", "saliency", "subject", "focus distance"],
            inputs=with_tooltips(
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
            ),
            outputs=[
                FOCUS.Output("focus", tooltip="The focus, for a lens."),
                io.Float.Output("distance_m", tooltip="Of the first picture, metres."),
                io.Float.Output("scale", tooltip="f_s of the first picture."),
                io.Mask.Output("saliency", tooltip="Where the eye goes, 0 to 1."),
                io.Image.Output("overlay", tooltip="What stands out in its own colours, outlined."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, image, depth, strategy, scale, smooth_frames, focus_model=None) -> io.NodeOutput:
        size, found = picture_size(image), as_depth(depth)
        metres = found.depth.resized(*size).metres
        count = broadcast_batch(pictures=image.shape[0], depths=metres.shape[0])
        opaque = image_to_radiance(image)[:, :3]
        srgb, metres = linear_to_srgb(opaque).expand(count, -1, -1, -1), metres.expand(count, -1, -1)
        if focus_model is None:
            source, saliency, scales = "guess from contrast", _guessed(srgb, metres), torch.ones(count)
        else:
            source, (saliency, scales) = "model", _predicted(as_focus_model(focus_model), srgb, metres)
        seen = focus_distance_m(metres.cpu(), saliency, strategy)
        distance = smoothed_m(seen.metres, smooth_frames)
        if scale > 0:
            scales = torch.full((count,), float(scale))
        labels = [f"focus {metres_label(d)}" for d in distance.tolist()]
        overlay = captioned(saliency_overlay(image.cpu(), saliency), labels)
        where, kind = mm.intermediate_device(), mm.intermediate_dtype()
        return io.NodeOutput(
            Focus(distance, scales) if count > 1 else Focus(distance.item(), scales.item()),
            distance[0].item(),
            scales[0].item(),
            saliency.to(where),
            overlay.to(where, kind),
            ui=say(cls, _summary(source, distance, scales), [*found.warnings, *seen.warnings]),
        )


def _summary(source: str, distance: Tensor, scales: Tensor) -> str:
    text = f"{distances_label(distance.tolist())} by {source}"
    return text if len(scales) > 1 or scales.item() == 1 else f"{text}, scale {scales.item():.3g}"


def _guessed(srgb: Tensor, metres: Tensor) -> Tensor:
    progress, saliency = comfy.utils.ProgressBar(len(srgb)), []
    for i in range(len(srgb)):
        mm.throw_exception_if_processing_interrupted()
        saliency.append(contrast_guess(srgb[i : i + 1], metres[i : i + 1]).cpu())
        progress.update_absolute(i + 1)
    return torch.cat(saliency)


def _predicted(patcher: ModelPatcher, srgb: Tensor, metres: Tensor) -> tuple[Tensor, Tensor]:
    """Saliency `(B, H, W)` and scale `(B,)` of the network, on the CPU."""
    side = patcher.model.vst.config.image_px
    # the first attention holds a token for every 4 x 4 px, in float32
    # what is not a layer of ComfyUI's own cannot be loaded in parts, as --novram would
    mm.load_models_gpu([patcher], memory_required=AT_ONCE * (side / 4) ** 4 * 4, force_full_load=True)
    device, progress = patcher.load_device, comfy.utils.ProgressBar(len(srgb))
    patcher.model.to(device)
    saliency, scales = [], []
    for start in range(0, len(srgb), AT_ONCE):
        mm.throw_exception_if_processing_interrupted()
        part = slice(start, start + AT_ONCE)
        with torch.inference_mode():
            focus, salient = patcher.model(srgb[part].to(device), metres[part].to(device))
        saliency.append(salient.cpu())
        scales.append(focus.scale.cpu())
        progress.update_absolute(min(start + AT_ONCE, len(srgb)))
    return torch.cat(saliency), torch.cat(scales)
