"""Where the lens is focused."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...lens_models import Focus
from ...lens_models.focus.distance import MASK_WAYS, focus_from_mask
from ...lens_models.focus.rack import EASINGS, rack_focus_m, read_keyframes, smoothed_m
from ...lens_models.focus.sweep import focus_steps_m, parse_distances_m
from ...lens_models.labels import distances_label, metres_label
from ..shared.inputs import metres, node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import ANY_DEPTH, ANY_FOCUS, FOCUS, as_depth, as_focus, focus_at

LETTERS = "ABCD"
STEPS, LIST = "from near to far", "list"


class FocusDistanceNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusFocusDistance",
            display_name="Focus Distance",
            category="fine defocus/focus",
            description="Focuses the lens at a distance typed in metres.",
            search_aliases="focus, manual focus, focal plane, focal distance, sharp at, metres",
            inputs=[
                metres("distance_m", 2.0, step=0.01),
                "Distance from the lens to what is sharp, in metres. No lens focuses closer than twice its "
                "focal length; closer values are rendered there.",
                number("scale", 1.0, 0.01, 100.0, 0.01, round=0.0001, advanced=True),
                "Factor on the focus distance in the lens equation (f_s of the paper); 1 is physical. Above "
                "1 blurs less, below 1 more, without moving what is sharp.",
            ],
            outputs=[FOCUS.Output("focus", tooltip="The focus, for a lens.")],
            has_intermediate_output=False,
        )

    @classmethod
    def execute(cls, distance_m, scale) -> io.NodeOutput:
        return io.NodeOutput(Focus(distance_m, scale))


class FocusFromMaskNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusFocusFromMask",
            display_name="Focus from Mask",
            category="fine defocus/focus",
            description="Focuses on what a mask covers: a subject from SAM3 or BiRefNet, or painted by hand.",
            search_aliases="focus, mask, subject, segment, autofocus",
            inputs=[
                io.MultiType.Input("depth", ANY_DEPTH),
                "Depth of the picture, or the geometry of MoGe or Depth Anything 3.",
                io.Mask.Input("mask", tooltip="White on what shall be sharp, of any size."),
                io.Combo.Input("how", list(MASK_WAYS), default=MASK_WAYS[0]),
                "Median of the covered distances, the nearest of them, or a percentile.",
                number("percentile", 25.0, 0.0, 100.0, 1.0),
                "For percentile: 0 is the nearest covered distance, 100 the farthest.",
                number("smooth_frames", 0.0, 0.0, 240.0, 0.5, advanced=True),
                "For the frames of a video: calms the focus over about so many frames.",
            ],
            outputs=[
                FOCUS.Output("focus", tooltip="The focus, for a lens."),
                io.Float.Output("distance_m", tooltip="Of the first picture, metres."),
            ],
        )

    @classmethod
    def execute(cls, depth, mask, how, percentile, smooth_frames) -> io.NodeOutput:
        converted = as_depth(depth)
        measured = focus_from_mask(converted.depth.metres.cpu(), mask.cpu(), how, percentile=percentile)
        distance = smoothed_m(measured.metres, smooth_frames)
        warnings = [*converted.warnings, *measured.warnings]
        ui = messages_ui(cls, distances_label(distance.tolist()), warnings)
        return io.NodeOutput(focus_at(distance), distance[0].item(), ui=ui)


class RackFocusNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusRackFocus",
            display_name="Rack Focus",
            category="fine defocus/focus",
            description="Moves the focus over the frames of a clip, between keyframes in metres or from "
            "other focus nodes.",
            search_aliases="focus pull, pull focus, refocus, keyframes, animation, video",
            inputs=[
                io.Int.Input("frames", default=48, min=1, max=100000),
                "Frames of the clip: as many focus settings.",
                io.String.Input("keyframes", default="0: 1.5\n-1: 4", multiline=True),
                'One per line, "frame: metres". Frames count from 0, -1 is the last. Metres may be inf, or '
                "the letter of a connected focus: 0: A. Left empty, what is connected is spread over the "
                "clip.",
                io.Combo.Input("easing", list(EASINGS), default=EASINGS[1]),
                "How the focus moves between keyframes. Always in 1/distance, so that the blur changes "
                "evenly.",
                number("scale", 1.0, 0.01, 100.0, 0.01, round=0.0001, advanced=True),
                "Factor on the focus distance in the lens equation (f_s of the paper); 1 is physical.",
                *(_lettered_focus(letter) for letter in LETTERS),
            ],
            outputs=[
                FOCUS.Output("focus", tooltip="One focus per frame, for a lens."),
                io.Int.Output("frames", tooltip="How many."),
            ],
        )

    @classmethod
    def execute(cls, frames, keyframes, easing, scale, **connected) -> io.NodeOutput:
        named = {
            letter: torch.as_tensor(as_focus(value).distance_m).reshape(-1)[0].item()
            for letter in LETTERS
            if (value := connected.get(f"focus_{letter.lower()}")) is not None
        }
        keys = read_keyframes(keyframes, frames, named)
        distance = rack_focus_m(keys, frames, easing)
        places = "   ".join(
            f"{f}: {metres_label(d)}" for f, d in zip(keys.frames, keys.distances_m, strict=True)
        )
        ui = messages_ui(cls, f"{frames} frames   {places}", keys.warnings)
        return io.NodeOutput(focus_at(distance, scale), frames, ui=ui)


def _lettered_focus(letter: str) -> io.Input:
    tooltip = f"{letter} in the keyframes: FOCUS of any focus node, or metres."
    return io.MultiType.Input(f"focus_{letter.lower()}", ANY_FOCUS, optional=True, tooltip=tooltip)


class FocusSweepNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusFocusSweep",
            display_name="Focus Sweep",
            category="fine defocus/focus",
            description="Makes a series of focus distances; a lens renders them all in one run.",
            search_aliases="focus stack, focus stacking, focus bracketing, focus series, distance list, "
            "focus breathing, batch",
            inputs=[
                io.Combo.Input("sweep", [STEPS, LIST], default=STEPS),
                "'from near to far': equal steps of blur. 'list': the distances in distances_m.",
                metres("near_m", 1.0, least=0.01),
                "First distance of 'from near to far' in metres. Beyond far_m it sweeps inwards.",
                metres("far_m", 4.0, least=0.01, tooltip="Last distance of 'from near to far' in metres."),
                io.Int.Input("count", default=5, min=1, max=1000),
                "How many distances 'from near to far' has. They are even in 1/distance, in which blur is "
                "linear, so they are closer together near the camera.",
                io.String.Input("distances_m", default="1, 1.5, 3, inf"),
                "Distances in metres for 'list', between commas, semicolons, spaces or line ends: 1, 1.5, "
                "80 cm, inf",
            ],
            outputs=[
                FOCUS.Output("focus", tooltip="One focus per distance, in order, for a lens."),
                io.Int.Output("count", tooltip="How many distances there are."),
            ],
        )

    @classmethod
    def execute(cls, sweep, near_m, far_m, count, distances_m) -> io.NodeOutput:
        if sweep == LIST:
            metres = torch.tensor(parse_distances_m(distances_m), dtype=torch.float64)
        else:
            metres = focus_steps_m(near_m, far_m, count)
        summary = f"{len(metres)} × " + "  ".join(metres_label(d) for d in metres.tolist())
        return io.NodeOutput(focus_at(metres), len(metres), ui=messages_ui(cls, summary))
