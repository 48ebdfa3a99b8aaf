"""How well a sweep keeps what a sweep promises: the paper's metrics as nodes."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.camera import broadcast_batch
from ...lens_models.light import image_to_radiance, linear_to_srgb, srgb_to_linear
from ...lens_models.metrics import (
    Monotonicity,
    blur_monotonicity,
    content_consistency,
    label_codes,
    load_lpips,
)
from ...lens_models.metrics.consistency import PAIRINGS
from ...lens_models.metrics.lpips import HEADS_FILE, TRUNK_FILE
from ...lens_models.scene import item
from ...lens_models.show.energy import energy_plot, score_label
from ...lens_models.stops import label, parse_f_numbers
from ..shared.images import picture_size
from ..shared.inputs import with_tooltips
from ..shared.messages import say
from ..shared.sockets import CAMERA, as_camera

VALUES, LIGHT = "picture values (as in the paper)", "linear light"
BRIGHTER = (
    "The detail falls with every stop, but the values get brighter with blur, as they do when it is made in "
    "linear light: use detail_score, or measure in linear light."
)

FOLDER = "lpips"
SUFFIXES = {".safetensors", ".pth", ".pt"}
NO_FILE = "no file in models/lpips yet"
#: Bytes that a pixel of a pair needs in the network: 64 channels at a quarter of the size, a few times over.
BYTES_PER_PIXEL = 256
#: Distances that are written out one by one.
MOST_TOLD = 12

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def _files(usual: str) -> list[str]:
    """Files in models/lpips, the one with the usual name first."""
    names = [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).suffix in SUFFIXES]
    stem = usual.partition(".")[0]
    return sorted(names, key=lambda name: (not Path(name).name.startswith(stem), name)) or [NO_FILE]


class BlurMonotonicityNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusBlurMonotonicity",
            display_name="Blur Monotonicity",
            category="fine defocus/measure",
            description="Checks that pictures get blurrier with every wider aperture: scores, and a plot of "
            "how much detail each has left.",
            search_aliases=["metric", "evaluate", "energy", "sharpness", "blur test", "aperture sweep test"],
            inputs=with_tooltips(
                io.Image.Input("images", tooltip="One scene at two apertures or more."),
                io.Combo.Input("measured_in", [VALUES, LIGHT], default=VALUES),
                "What is squared: the values of the picture, or the light they stand for. A blur in linear "
                "light, such as that of this pack's lenses, brightens the values and can raise their "
                "energy: then detail_score, or linear light, tells more.",
                io.String.Input("f_numbers", default="1.8, 2.8, 4, 5.6, 8, 11, 16, 22"),
                "F-number of each picture, in the order of the batch. Not used with a camera.",
                CAMERA.Input("camera", optional=True),
                "The sweep the pictures were made with: its f-numbers.",
            ),
            outputs=with_tooltips(
                io.Float.Output("score"),
                "Share of neighbouring apertures whose energy grows with the f-number, 0 to 1.",
                io.Float.Output("detail_score"),
                "The same with each channel's mean taken away, which brightness cannot fool.",
                io.Image.Output("plot", tooltip="Energy over f-number; failures red."),
                io.String.Output("text", tooltip="The scores, and what failed."),
            ),
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, images, measured_in, f_numbers, camera=None) -> io.NodeOutput:
        picture_size(images)
        numbers = parse_f_numbers(f_numbers) if camera is None else _f_numbers(camera, len(images))
        values = _values(images)
        found = blur_monotonicity(srgb_to_linear(values) if measured_in == LIGHT else values, numbers)
        text = _monotonicity_text(found)
        plot = energy_plot(found, title=f"Blur Monotonicity, {measured_in}")
        plot = plot.to(mm.intermediate_device(), mm.intermediate_dtype())
        warnings = [BRIGHTER] if measured_in == VALUES and found.failed and not found.detail_failed else []
        return io.NodeOutput(found.score, found.detail_score, plot, text, ui=say(cls, text, warnings))


def _values(images: Tensor) -> Tensor:
    """Colour planes `(B, C, H, W)` as they are; transparent pictures as they stand before black."""
    if images.shape[-1] == 1:
        images = images.expand(-1, -1, -1, 3)
    if images.shape[-1] == 4:
        return linear_to_srgb(image_to_radiance(images)[:, :3])
    return images.movedim(-1, 1)


def _f_numbers(camera: object, count: int) -> Tensor:
    """The f-numbers of a sweep; a sweep of something else has one f-number many times, which is refused."""
    camera = as_camera(camera)
    if camera.batch != count:
        raise ValueError(
            f"There are {count} pictures and {camera.batch} cameras: connect the images of the lens that "
            "used this sweep."
        )
    return torch.as_tensor(camera.f_number, dtype=torch.float64).reshape(-1).expand(count)


def _monotonicity_text(found: Monotonicity) -> str:
    lines = []
    for name, score, failed in (
        ("Energy", found.score, found.failed),
        ("Energy about the mean", found.detail_score, found.detail_failed),
    ):
        grows = len(found.f_numbers) - 1 - len(failed)
        line = f"{name}: {score_label(score)}, {grows} of {len(found.f_numbers) - 1} stops"
        if failed:
            line += "; not from " + ", ".join(f"{label(a)} to {label(b)}" for a, b in failed)
        lines.append(line)
    return "\n".join(lines)


class ContentConsistencyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusContentConsistency",
            display_name="Content Consistency",
            category="fine defocus/measure",
            description="Measures how much of a series keeps showing the same things, from pictures in which "
            "every kind of thing has a colour of its own.",
            search_aliases=["metric", "evaluate", "segmentation", "labels", "semantic", "same content"],
            inputs=with_tooltips(
                io.MultiType.Input("labels", types=[io.Mask, io.Image]),
                "A label map for every picture of the sweep, in its order: each value of a mask, or colour "
                "of a picture, is a label.",
                io.Int.Input("labels_per_picture", default=1, min=1, max=16),
                "How many maps in a row belong to one picture: its likeliest label, the second, and so on. "
                "The paper has 3.",
                io.Combo.Input("pairing", list(PAIRINGS), default=PAIRINGS[0]),
                "Which pictures are compared: neighbours, every two, or all with the last one.",
            ),
            outputs=[
                io.Float.Output("score", tooltip="Mean share of pixels that agree, 0 to 1."),
                io.String.Output("text", tooltip="The share of every pair, in words."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, labels, labels_per_picture, pairing) -> io.NodeOutput:
        codes = label_codes(labels)
        pictures, left = divmod(len(codes), labels_per_picture)
        if left:
            raise ValueError(
                f"{len(codes)} label maps are not a whole number of pictures with {labels_per_picture} maps "
                "each: change labels_per_picture."
            )
        found = content_consistency(codes.reshape(pictures, labels_per_picture, *codes.shape[1:]), pairing)
        pairs = [
            f"{a + 1} and {b + 1}: {score_label(share)}"
            for (a, b), share in zip(found.pairs, found.shares, strict=True)
        ]
        text = f"Content consistency: {score_label(found.score)}\n" + _told(pairs)
        return io.NodeOutput(found.score, text, ui=say(cls, text))


class LPIPSNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FineDefocusLPIPS",
            display_name="LPIPS",
            category="fine defocus/measure",
            description="Measures how different pictures look to the eye: neighbours of a series, or pairs.",
            search_aliases=["metric", "evaluate", "perceptual", "similarity", "distance", "alexnet"],
            inputs=with_tooltips(
                io.Image.Input("images", tooltip="A sweep, or the first picture of each pair."),
                io.Combo.Input("trunk", _files(TRUNK_FILE)),
                f"AlexNet of torchvision in models/lpips, usually {TRUNK_FILE}.",
                io.Combo.Input("heads", _files(HEADS_FILE)),
                f"Weights of LPIPS v0.1 for AlexNet in models/lpips, usually {HEADS_FILE}.",
                io.Image.Input("others", optional=True),
                "The second picture of each pair. Nothing connected: neighbours of images.",
            ),
            outputs=[
                io.Float.Output("distance", tooltip="Mean over the pairs; 0 is the same picture."),
                io.String.Output("text", tooltip="The distance of every pair."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, images, trunk, heads, others=None) -> io.NodeOutput:
        if NO_FILE in (trunk, heads):
            raise ValueError(
                f"LPIPS needs two files in models/lpips: {TRUNK_FILE}, AlexNet as torchvision publishes it, "
                f"and {HEADS_FILE} out of the lpips package (lpips/weights/v0.1). Put them there and press R."
            )
        height, width = picture_size(images)
        pairs, names = _picture_pairs(images, others)
        network = load_lpips(*(folder_paths.get_full_path_or_raise(FOLDER, file) for file in (trunk, heads)))
        device, progress = mm.get_torch_device(), comfy.utils.ProgressBar(len(pairs))
        patcher = ModelPatcher(network, load_device=device, offload_device=mm.unet_offload_device())
        # what is not a layer of ComfyUI's own cannot be loaded in parts, as --novram would
        mm.load_models_gpu([patcher], memory_required=height * width * BYTES_PER_PIXEL, force_full_load=True)
        network.to(device)
        distances = []
        for done, pair in enumerate(pairs, start=1):
            mm.throw_exception_if_processing_interrupted()
            with torch.inference_mode():
                distances.append(patcher.model(*(_values(p).float().to(device) for p in pair)).item())
            progress.update_absolute(done)
        mean = sum(distances) / len(distances)
        told = [f"{name}: {distance:.4f}" for name, distance in zip(names, distances, strict=True)]
        text = f"LPIPS: {mean:.4f}\n" + _told(told)
        return io.NodeOutput(mean, text, ui=say(cls, text))


def _picture_pairs(images: Tensor, others: Tensor | None) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
    """Pairs of single pictures and what to call them. Raises ValueError where there is none."""
    if others is None:
        if len(images) < 2:
            raise ValueError(
                "There is 1 picture and nothing to compare it with: connect a sweep of at least 2, or others."
            )
        places = pairwise(range(len(images)))
        named = [((item(images, a), item(images, b)), f"{a + 1} and {b + 1}") for a, b in places]
    else:
        picture_size(others)
        count = broadcast_batch(pictures=len(images), others=len(others))
        named = [((item(images, i), item(others, i)), f"pair {i + 1}") for i in range(count)]
    return [pair for pair, _ in named], [name for _, name in named]


def _told(lines: list[str]) -> str:
    rest = len(lines) - MOST_TOLD
    return "\n".join(lines[:MOST_TOLD] + ([f"and {rest} more"] if rest > 0 else []))
