"""Estimate Depth: depth in metres out of a picture, by a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import comfy.model_management as mm
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...lens_models.camera import broadcast_batch
from ...lens_models.depth import DepthMap, estimator
from ...lens_models.depth.focal import known_focal, px_label
from ...lens_models.depth.metric3d.preprocess import AUTO, CANVASES
from ...lens_models.depth.normals import normal_picture
from ...lens_models.photo.exif import read_exif
from ..shared.images import picture_size
from ..shared.inputs import node_schema, number
from ..shared.messages import messages_ui
from ..shared.networks import free_bytes, loaded
from ..shared.progress import on_progress
from ..shared.sockets import CAMERA, DEPTH, DEPTH_MODEL, as_camera, as_depth_model
from .given import depth_summary

#: Pictures that a network gets in one go at most, and the share of free memory that they may fill.
MOST_AT_ONCE, SHARE_OF_MEMORY = 16, 0.7
#: Core nodes whose output 0 is a photo file as it is.
PHOTO_LOADERS = ("LoadImage", "LoadImageOutput")


def _photo_file(prompt: dict | None, node_id: str | None) -> str | None:
    """The file of the photo, if the image input comes straight from Load Image; anything between may crop."""
    prompt = prompt or {}
    link = prompt.get(str(node_id), {}).get("inputs", {}).get("image")
    if not isinstance(link, list) or len(link) != 2 or link[1] != 0:
        return None
    source = prompt.get(str(link[0]), {})
    name = source.get("inputs", {}).get("image")
    if source.get("class_type") not in PHOTO_LOADERS or not isinstance(name, str):
        return None
    try:
        return folder_paths.get_annotated_filepath(name)
    except ValueError:
        return None


@contextlib.contextmanager
def _interruptible(network: torch.nn.Module) -> Iterator[None]:
    """Lets the artist stop inside a run of the network, which may take minutes on a CPU."""

    def check(*_) -> None:
        mm.throw_exception_if_processing_interrupted()

    hooks = [module.register_forward_pre_hook(check) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Results:
    """Room for the results of all pictures on the host's device."""

    def __init__(self, count: int, height: int, width: int) -> None:
        where, kind = mm.intermediate_device(), mm.intermediate_dtype()
        self.depth_m = torch.empty(count, height, width, device=where)
        self.confidence = torch.empty(count, height, width, device=where, dtype=kind)
        self.normal = torch.empty(count, height, width, 3, device=where, dtype=kind)
        self.fx_px: Tensor | None = None

    def store(self, start: int, stop: int, part: estimator.Measured) -> None:
        if part.depth_m.isnan().any():
            raise ValueError(
                "The network's answer is not a number: its weights overflow in this precision. Set precision "
                "to fp32 in Load Depth Model."
            )
        self.depth_m[start:stop] = part.depth_m
        self.confidence[start:stop] = part.confidence
        self.normal[start:stop] = normal_picture(part.normal)
        if part.fx_px is not None:
            if self.fx_px is None:
                self.fx_px = torch.empty(self.depth_m.shape[0], dtype=torch.float64)
            self.fx_px[start:stop] = part.fx_px.cpu()


def _measure_all(
    patcher: ModelPatcher, image: Tensor, fx_px: Tensor | None, options: dict, warnings: list[str]
) -> _Results:
    """Every picture through the network, as many at once as there is memory for."""
    network, device = patcher.model, patcher.load_device
    pictures, height, width = image.shape[:3]
    count = broadcast_batch(pictures=pictures, focal_lengths=1 if fx_px is None else fx_px.numel())
    results, report = _Results(count, height, width), on_progress()
    needed = estimator.working_bytes(network, height, width, options["canvas"], guided=options["guided"])
    loaded(patcher, needed)
    at_once = 1
    if device.type != "cpu":
        room = int(SHARE_OF_MEMORY * free_bytes(device) / needed)
        at_once = max(1, min(pictures, room, MOST_AT_ONCE))
    start = 0
    with torch.no_grad(), _interruptible(network):
        while start < pictures:
            stop = min(start + at_once, pictures)
            focal = fx_px if fx_px is None or fx_px.numel() == 1 or pictures == 1 else fx_px[start:stop]
            srgb = image[start:stop].movedim(-1, 1)
            try:
                measured = estimator.measure(network, srgb.to(device), focal, **options)
                results.store(*((0, count) if pictures == 1 else (start, stop)), measured)
            except Exception as error:
                if device.type == "cpu" or not mm.is_oom(error):
                    raise
                mm.soft_empty_cache()
                if at_once > 1:
                    at_once //= 2
                    continue
                warnings.append("The GPU ran out of memory, so depth was estimated on the CPU.")
                device = torch.device("cpu")
                mm.free_memory(1e30, patcher.load_device)
                network.to(device)
                continue
            start = stop
            report(stop, pictures)
    return results


class EstimateDepthNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusEstimateDepth",
            display_name="Estimate Depth",
            category="fine defocus/depth",
            description="Measures the distance of everything in a picture, in metres, with a network.",
            search_aliases="depth map, metric depth, metric3d, normal map, monocular depth, distance",
            inputs=[
                io.Image.Input("image"),
                "Sharp picture, or the frames of a clip. Transparency is left out.",
                DEPTH_MODEL.Input("depth_model", tooltip="From Load Depth Model."),
                io.Combo.Input("canvas", [AUTO, *CANVASES], default=AUTO),
                "Size at which Metric3Dv2 processes the picture, height × width in pixels. Automatic takes "
                "616 × 1064, or the cheaper square where it covers as much; 784 × 784 gives square pictures "
                "more detail. Other networks have their own size.",
                number("sky_m", 200.0, 0.0, 300.0, 5.0),
                "Distances from here on, in metres, become sky, which is infinitely far. 0 keeps every "
                "distance.",
                io.Boolean.Input("steady_scale", default=False),
                "For a clip from a camera that stands: brings every frame to the clip's median scale, so "
                "that the depth does not pump.",
                io.Boolean.Input("guided", default=False, advanced=True),
                "Moves the edges of the depth onto those of the picture (guided filter; needs kornia). Off "
                "gives the network's own numbers.",
                CAMERA.Input("camera", optional=True),
                "The camera that took the picture: its focal length sets the scale of the distances. "
                "Without it the photo's EXIF is read, if image comes straight from Load Image; else 35 mm "
                "on full frame is assumed.",
            ],
            outputs=[
                DEPTH.Output("depth", tooltip="Depth in metres."),
                io.Mask.Output("confidence"),
                "How sure the network is, 0..1; 1 everywhere from networks that give none.",
                io.Image.Output("normal"),
                "Normal map: red right, green up, blue towards the camera; 0.5 is zero.",
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image, depth_model, canvas, sky_m, steady_scale, guided, camera=None) -> io.NodeOutput:
        patcher = as_depth_model(depth_model)
        height, width = picture_size(image)
        camera = None if camera is None else as_camera(camera)
        photo = _photo_file(cls.hidden.prompt, cls.hidden.unique_id)
        exif = read_exif(photo) if photo and camera is None else None
        warnings: list[str] = []
        fx_px, notes = known_focal(patcher.model, camera, exif, width, height)
        options = {"canvas": canvas, "sky_m": sky_m or None, "guided": guided}
        results = _measure_all(patcher, image, fx_px, options, warnings)
        if results.fx_px is not None:
            fx_px, notes = results.fx_px, f"Focal length {px_label(results.fx_px)}, estimated by the network."
        metres = results.depth_m
        if steady_scale and len(metres) > 1:
            factors = estimator.steady_factors(metres)
            metres = metres * factors.view(-1, 1, 1)
            notes += f" Steady scale: frames × {factors.min():.3f} to {factors.max():.3f}."
        fx_px = None if fx_px is None else fx_px.float().expand(len(metres))
        source = f"{estimator.title(patcher.model)}. {notes}"
        depth = DepthMap(metres, torch.ones_like(metres, dtype=torch.bool), fx_px, source)
        frames = f"{len(metres)} × " if len(metres) > 1 else ""
        ui = messages_ui(cls, f"{frames}{depth_summary(depth)}. {notes}", warnings)
        return io.NodeOutput(depth, results.confidence, results.normal, ui=ui)
