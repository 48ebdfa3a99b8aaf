"""Depth in metres, out of files, pictures and the geometry of ComfyUI's own estimators."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management as mm
import folder_paths
from comfy_api.latest import io

from ...lens_models.depth import DepthMap, convert
from ...lens_models.depth.files import SUFFIXES, read_depth_file
from ...lens_models.labels import metres_label, share_label
from ..shared.files import fingerprint, is_there
from ..shared.inputs import metres, node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import CAMERA, DA3_GEOMETRY, DEPTH, MOGE_GEOMETRY, as_camera, fx_per_width

OTHER_UNIT = "other (metres_per_unit)"


def depth_summary(depth: DepthMap) -> str:
    near, far = (metres_label(d) for d in depth.range_m())
    height, width = depth.size
    text = f"{width} × {height} px, {near} to {far}"
    if depth.metres.isinf().any():
        text += f", {share_label(depth.metres.isinf().float().mean().item())} sky"
    if depth.filled_share:
        missing = share_label(depth.filled_share)
        text += f"; {missing} had no measurement and was filled from the farther neighbour"
    return text


class LoadDepthNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        folder = Path(folder_paths.get_input_directory())
        files = sorted(file.name for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
        return node_schema(
            node_id="FineDefocusLoadDepth",
            display_name="Load Depth",
            category="fine defocus/depth",
            description="Reads measured depth from a 16-bit PNG, TIFF, EXR, NPY or NPZ file in the input "
            "folder.",
            search_aliases="depth file, exr, z pass, npy, 16-bit depth, lidar, metric depth",
            inputs=[
                io.Combo.Input("file", files),
                "Depth file in ComfyUI's input folder: PNG, TIFF, EXR, NPY or NPZ.",
                io.Combo.Input("unit", [*convert.UNITS, OTHER_UNIT], default="metres"),
                "What the numbers in the file are. In distances 0 is missing and inf is sky; in disparity "
                "(1/metres) 0 is sky.",
                number("metres_per_unit", 0.001, 0.0, 1000000.0, 0.0001, round=0.00000001),
                "Metres that one step of the file stands for when unit is 'other': KITTI 0.00390625 "
                "(1/256), TUM 0.0002 (1/5000).",
                io.String.Input("channel", default="", advanced=True),
                "Channel of an EXR file or array of an NPZ file, such as ViewLayer.Depth.Z; empty takes the "
                "one that looks like depth.",
            ],
            outputs=[
                DEPTH.Output("depth", tooltip="Depth in metres."),
                io.Mask.Output("valid", tooltip="1 where the file had a value, 0 where filled."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        unchosen = "Choose a depth file: put a PNG, TIFF, EXR, NPY or NPZ file into ComfyUI's input folder."
        return is_there(file, unchosen, "file")

    @classmethod
    def fingerprint_inputs(cls, file, **_) -> str:
        return fingerprint(file)

    @classmethod
    def execute(cls, file, unit, metres_per_unit, channel) -> io.NodeOutput:
        stored = read_depth_file(folder_paths.get_annotated_filepath(file), channel)
        depth = convert.from_units(
            stored.values, unit, metres_per_unit=metres_per_unit if unit == OTHER_UNIT else None, source=file
        )
        summary = depth_summary(depth) + (f"; channel {stored.channel}" if stored.channel else "")
        valid = depth.valid.float().to(mm.intermediate_device())
        return io.NodeOutput(depth, valid, ui=messages_ui(cls, summary, stored.warnings))


class DepthFromImageNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusDepthFromImage",
            display_name="Depth from Image",
            category="fine defocus/depth",
            description="Turns a grey depth picture of another node into metres, once you say what its greys "
            "mean.",
            search_aliases="depth map, depth anything, midas, zoe, marigold, disparity, invert depth",
            inputs=[
                io.Image.Input("image"),
                "Depth picture: grey, or raw metres from nodes that give those.",
                io.Combo.Input("convention", list(convert.CONVENTIONS), default="near is bright"),
                "'near is bright': Depth Anything, MiDaS, Marigold, ControlNet. 'near is dark': the other "
                "way round. 'metres': the values are distances (Depth Pro).",
                metres("near_m", 1.0, least=0.01),
                "Distance of the nearest grey in metres. Not used for 'metres'.",
                metres("far_m", 20.0, least=0.01),
                "Distance of the farthest grey in metres. Not used for 'metres'.",
                io.Combo.Input("spacing", list(convert.SPACINGS), default="inverse depth", advanced=True),
                "How greys are spaced: 'inverse depth' evenly in 1/distance, as estimators give them; "
                "'depth' evenly in metres, as a rendered z pass may be. Not used for 'metres'.",
            ],
            outputs=[DEPTH.Output("depth", tooltip="Depth in metres.")],
        )

    @classmethod
    def execute(cls, image, convention, near_m, far_m, spacing) -> io.NodeOutput:
        return _output(cls, convert.from_picture(image, convention, near_m, far_m, spacing))


class DepthFromGeometryNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusDepthFromGeometry",
            display_name="Depth from Geometry",
            category="fine defocus/depth",
            description="Takes the depth out of MoGe or Depth Anything 3 geometry, in metres.",
            search_aliases="moge, da3, depth anything 3, geometry, metric depth",
            inputs=[
                io.MultiType.Input("geometry", types=[MOGE_GEOMETRY, DA3_GEOMETRY]),
                "Output of Run MoGe Inference or Run Depth Anything 3.",
                io.Combo.Input("units", list(convert.GEOMETRY_UNITS), default="automatic"),
                "What the geometry's depth is. Depth Anything 3's metric model gives metres × 300 / focal "
                "length in px; 'automatic' undoes that where it looks like that model. Everything else is "
                "as given.",
                number("scale", 1.0, 0.0001, 10000.0, 0.01, round=0.0001),
                "Factor on the depth. MoGe v1 and relative models have no metres: set true distance / "
                "distance shown.",
                io.Int.Input(
                    "da3_resolution", default=convert.DA3_RESOLUTION, min=14, max=8192, advanced=True
                ),
                "The resolution that was set on Run Depth Anything 3 (pixels on the longest side). Its "
                "metric model measures in pixels of that size.",
                CAMERA.Input("camera", optional=True),
                "The camera that took the picture. Only Depth Anything 3's metric model needs it, for the "
                "focal length; without it 50 mm on full frame is assumed.",
            ],
            outputs=[DEPTH.Output("depth", tooltip="Depth in metres.")],
        )

    @classmethod
    def execute(cls, geometry, units, scale, da3_resolution, camera=None) -> io.NodeOutput:
        fx = None if camera is None else fx_per_width(as_camera(camera), geometry)
        converted = convert.from_geometry(
            geometry, units, scale, fx_per_width=fx, da3_resolution=da3_resolution
        )
        return _output(cls, converted)


def _output(cls: type[io.ComfyNode], converted: convert.Converted) -> io.NodeOutput:
    summary = depth_summary(converted.depth)
    return io.NodeOutput(converted.depth, ui=messages_ui(cls, summary, converted.warnings))
