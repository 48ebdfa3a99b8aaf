"""The paper's metrics of a sweep."""

from __future__ import annotations

from itertools import pairwise

import torch
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.camera import broadcast_batch
from ...lens_models.light import image_to_radiance, linear_to_srgb, srgb_to_linear
from ...lens_models.metrics.consistency import PAIRINGS, content_consistency, label_codes
from ...lens_models.metrics.lpips import HEADS_FILE, TRUNK_FILE, load_lpips
from ...lens_models.metrics.monotonicity import Monotonicity, blur_monotonicity
from ...lens_models.scene import item
from ...lens_models.show.energy import energy_plot, score_label
from ...lens_models.stops import label, parse_f_numbers
from ..shared.images import picture_size, to_host
from ..shared.inputs import node_schema
from ..shared.messages import listing, messages_ui
from ..shared.networks import ModelFolder, loaded, wrapped
from ..shared.progress import each
from ..shared.sockets import CAMERA, as_camera

VALUES, LIGHT = "picture values (as in the paper)", "linear light"
BRIGHTER = (
    "The detail falls with every stop, but the values get brighter with blur, as they do when it is made in "
    "linear light: use detail_score, or measure in linear light."
)

FOLDER = ModelFolder("lpips")
FILES_NEEDED = (
    f"LPIPS needs two files in models/lpips: {TRUNK_FILE}, AlexNet as torchvision publishes it, "
    f"and {HEADS_FILE} out of the lpips package (lpips/weights/v0.1). Put them there and press R."
)
#: Bytes that a pixel of a pair needs in the network: 64 channels at a quarter of the size, a few times over.
BYTES_PER_PIXEL = 256


class BlurMonotonicityNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusBlurMonotonicity",
            display_name="Blur Monotonicity",
            category="fine defocus/measure",
            description="Checks that pictures get blurrier with every wider aperture: scores, and a plot of "
            "how much detail each has left.",
            search_aliases="metric, evaluate, energy, sharpness, blur test, aperture sweep test",
            inputs=[
                io.Image.Input("images", tooltip="One scene at two apertures or more."),
                io.Combo.Input("measured_in", [VALUES, LIGHT], default=VALUES),
                "What is squared: the values of the picture, or the light they stand for. A blur in linear "
                "light, such as that of this pack's lenses, brightens the values and can raise their "
                "energy: then detail_score, or linear light, tells more.",
                io.String.Input("f_numbers", default="1.8, 2.8, 4, 5.6, 8, 11, 16, 22"),
                "F-number of each picture, in the order of the batch. Not used with a camera.",
                CAMERA.Input("camera", optional=True),
                "The sweep the pictures were made with: its f-numbers.",
            ],
            outputs=[
                io.Float.Output("score"),
                "Share of neighbouring apertures whose energy grows with the f-number, 0 to 1.",
                io.Float.Output("detail_score"),
                "The same with each channel's mean taken away, which brightness cannot fool.",
                io.Image.Output("plot", tooltip="Energy over f-number; failures red."),
                io.String.Output("text", tooltip="The scores, and what failed."),
            ],
        )

    @classmethod
    def execute(cls, images, measured_in, f_numbers, camera=None) -> io.NodeOutput:
        picture_size(images)
        numbers = parse_f_numbers(f_numbers) if camera is None else _f_numbers(camera, len(images))
        values = _values(images)
        result = blur_monotonicity(srgb_to_linear(values) if measured_in == LIGHT else values, numbers)
        text = _monotonicity_text(result)
        plot = to_host(energy_plot(result, title=f"Blur Monotonicity, {measured_in}"))
        warnings = [BRIGHTER] if measured_in == VALUES and result.failed and not result.detail_failed else []
        return io.NodeOutput(
            result.score, result.detail_score, plot, text, ui=messages_ui(cls, text, warnings)
        )


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


def _monotonicity_text(result: Monotonicity) -> str:
    lines, stops = [], len(result.f_numbers) - 1
    for name, score, failed in (
        ("Energy", result.score, result.failed),
        ("Energy about the mean", result.detail_score, result.detail_failed),
    ):
        line = f"{name}: {score_label(score)}, {stops - len(failed)} of {stops} stops"
        if failed:
            line += "; not from " + ", ".join(f"{label(a)} to {label(b)}" for a, b in failed)
        lines.append(line)
    return "\n".join(lines)


class ContentConsistencyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusContentConsistency",
            display_name="Content Consistency",
            category="fine defocus/measure",
            description="Measures how much of a series keeps showing the same things, from pictures in which "
            "every kind of thing has a colour of its own.",
            search_aliases="metric, evaluate, segmentation, labels, semantic, same content",
            inputs=[
                io.MultiType.Input("labels", types=[io.Mask, io.Image]),
                "A label map for every picture of the sweep, in its order: each value of a mask, or colour "
                "of a picture, is a label.",
                io.Int.Input("labels_per_picture", default=1, min=1, max=16),
                "How many maps in a row belong to one picture: its likeliest label, the second, and so on. "
                "The paper has 3.",
                io.Combo.Input("pairing", list(PAIRINGS), default=PAIRINGS[0]),
                "Which pictures are compared: neighbours, every two, or all with the last one.",
            ],
            outputs=[
                io.Float.Output("score", tooltip="Mean share of pixels that agree, 0 to 1."),
                io.String.Output("text", tooltip="The share of every pair, in words."),
            ],
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
        result = content_consistency(codes.reshape(pictures, labels_per_picture, *codes.shape[1:]), pairing)
        pairs = [
            f"{a + 1} and {b + 1}: {score_label(share)}"
            for (a, b), share in zip(result.pairs, result.shares, strict=True)
        ]
        text = f"Content consistency: {score_label(result.score)}\n{listing(pairs)}"
        return io.NodeOutput(result.score, text, ui=messages_ui(cls, text))


class LPIPSNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusLPIPS",
            display_name="LPIPS",
            category="fine defocus/measure",
            description="Measures how different pictures look to the eye: neighbours of a series, or pairs.",
            search_aliases="metric, evaluate, perceptual, similarity, distance, alexnet",
            inputs=[
                io.Image.Input("images", tooltip="A sweep, or the first picture of each pair."),
                io.Combo.Input("trunk", FOLDER.files(TRUNK_FILE)),
                f"AlexNet of torchvision in models/lpips, usually {TRUNK_FILE}.",
                io.Combo.Input("heads", FOLDER.files(HEADS_FILE)),
                f"Weights of LPIPS v0.1 for AlexNet in models/lpips, usually {HEADS_FILE}.",
                io.Image.Input("others", optional=True),
                "The second picture of each pair. Nothing connected: neighbours of images.",
            ],
            outputs=[
                io.Float.Output("distance", tooltip="Mean over the pairs; 0 is the same picture."),
                io.String.Output("text", tooltip="The distance of every pair."),
            ],
        )

    @classmethod
    def execute(cls, images, trunk, heads, others=None) -> io.NodeOutput:
        files = [FOLDER.path(file, FILES_NEEDED) for file in (trunk, heads)]
        height, width = picture_size(images)
        pairs = _picture_pairs(images, others)
        patcher = wrapped(load_lpips(*files))
        device = loaded(patcher, height * width * BYTES_PER_PIXEL)
        distances, lines = [], []
        with torch.inference_mode():
            for name, pair in each(pairs):
                distances.append(patcher.model(*(_values(p).float().to(device) for p in pair)).item())
                lines.append(f"{name}: {distances[-1]:.4f}")
        mean = sum(distances) / len(distances)
        text = f"LPIPS: {mean:.4f}\n{listing(lines)}"
        return io.NodeOutput(mean, text, ui=messages_ui(cls, text))


def _picture_pairs(images: Tensor, others: Tensor | None) -> list[tuple[str, tuple[Tensor, Tensor]]]:
    """Pairs of single pictures by name. Raises ValueError where there is none."""
    if others is None:
        if len(images) < 2:
            raise ValueError(
                "There is 1 picture and nothing to compare it with: connect a sweep of at least 2, or others."
            )
        places = pairwise(range(len(images)))
        return [(f"{a + 1} and {b + 1}", (item(images, a), item(images, b))) for a, b in places]
    picture_size(others)
    count = broadcast_batch(pictures=len(images), others=len(others))
    return [(f"pair {i + 1}", (item(images, i), item(others, i))) for i in range(count)]
