"""Camera and Aperture Sweep."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...lens_models import Camera, stops
from ..shared.inputs import f_number, node_schema, number
from ..shared.messages import messages_ui
from ..shared.sockets import CAMERA, as_camera

FREE_APERTURE, CUSTOM_SENSOR = "free", "custom"
#: Width and height of common sensors, mm.
SENSORS = {
    "Full frame 36 × 24 mm": (36.0, 24.0),
    "APS-C 23.6 × 15.6 mm": (23.6, 15.6),
    "Canon APS-C 22.3 × 14.9 mm": (22.3, 14.9),
    "Micro Four Thirds 17.3 × 13 mm": (17.3, 13.0),
    "1-inch 13.2 × 8.8 mm": (13.2, 8.8),
    "Phone main camera 9.8 × 7.3 mm": (9.8, 7.3),
    "Super 35 24.9 × 18.7 mm": (24.9, 18.7),
    "Medium format 43.8 × 32.9 mm": (43.8, 32.9),
    "6×7 film 70 × 56 mm": (70.0, 56.0),
}
CROP, WIDTH = "crop to the picture", "width spans the sensor"
APERTURES = {stops.label(n): n for n in stops.THIRD_STOPS}
PAPER, BETWEEN, LIST = "paper: f/1.8 to f/22", "start to end", "list"
STEPS = {"1 stop": 1.0, "1/2 stop": 1 / 2, "1/3 stop": 1 / 3}


class CameraNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusCamera",
            display_name="Camera",
            category="fine defocus/camera",
            description="A lens and a sensor: aperture, focal length and format decide how strong the blur "
            "is.",
            search_aliases="aperture, f-number, f-stop, focal length, sensor, full frame, lens, depth of "
            "field, dof",
            inputs=[
                io.Combo.Input("aperture", [FREE_APERTURE, *APERTURES], default="f/2.8"),
                "Aperture in third stops. A smaller number blurs more. 'free' takes f_number.",
                f_number("f_number", 2.8),
                "F-number (focal length / aperture diameter), used when aperture is 'free'.",
                number("focal_mm", 50.0, 1.0, 2000.0, 1.0),
                "Focal length in mm, as engraved on the lens (not the 35-mm equivalent).",
                io.Combo.Input("sensor", [*SENSORS, CUSTOM_SENSOR], default="Full frame 36 × 24 mm"),
                "Sensor or film format. 'custom' takes sensor_width_mm and sensor_height_mm.",
                number("sensor_width_mm", 36.0, 0.5, 500.0, 0.1, tooltip="Width of a custom sensor in mm."),
                number("sensor_height_mm", 24.0, 0.5, 500.0, 0.1, tooltip="Height of a custom sensor in mm."),
                io.Combo.Input("framing", [CROP, WIDTH], default=CROP, advanced=True),
                "'crop to the picture': the picture is the largest crop of the sensor, turned to the "
                "picture's orientation (a square from full frame spans 24 mm). 'width spans the sensor': "
                "the picture's width is the sensor's whole width.",
            ],
            outputs=[CAMERA.Output("camera", tooltip="The camera, for a lens.")],
            has_intermediate_output=False,
        )

    @classmethod
    def execute(
        cls, aperture, f_number, focal_mm, sensor, sensor_width_mm, sensor_height_mm, framing
    ) -> io.NodeOutput:
        f_number = f_number if aperture == FREE_APERTURE else APERTURES[aperture]
        width_mm, height_mm = SENSORS.get(sensor, (sensor_width_mm, sensor_height_mm))
        return io.NodeOutput(Camera(f_number, focal_mm, width_mm, height_mm if framing == CROP else None))


class ApertureSweepNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="FineDefocusApertureSweep",
            display_name="Aperture Sweep",
            category="fine defocus/camera",
            description="Turns one camera into a series of apertures; a lens renders them all in one run.",
            search_aliases="f-stop series, f-stop, stops, bracketing, aperture series, f-number list, batch",
            inputs=[
                CAMERA.Input("camera", tooltip="The camera whose aperture is swept."),
                io.Combo.Input("sweep", [PAPER, BETWEEN, LIST], default=PAPER),
                "'paper': the eight stops f/1.8 2.8 4 5.6 8 11 16 22. 'start to end': equal steps. 'list': "
                "the numbers in f_numbers.",
                f_number("start", 1.8),
                "First f-number of 'start to end'. Larger than end sweeps downwards.",
                f_number("end", 22.0),
                "Last f-number of 'start to end'; the sweep does not go past it.",
                io.Combo.Input("step", list(STEPS), default="1 stop"),
                "Step of 'start to end', in stops. One stop is a factor 1.41 in f-number.",
                io.String.Input("f_numbers", default="1.8, 2.8, 4, 5.6, 8, 11, 16, 22"),
                "F-numbers for 'list', between commas, semicolons, spaces or line ends: 1.8, f/2.8, 4",
            ],
            outputs=[
                CAMERA.Output("cameras", display_name="camera", tooltip="One camera per aperture, in order."),
                io.Int.Output("count", tooltip="How many apertures there are."),
            ],
        )

    @classmethod
    def execute(cls, camera, sweep, start, end, step, f_numbers) -> io.NodeOutput:
        camera = as_camera(camera)
        if camera.batch > 1:
            raise ValueError(
                f"The camera is already a sweep of {camera.batch}: connect a single camera to Aperture Sweep."
            )
        if sweep == LIST:
            numbers = stops.parse_f_numbers(f_numbers)
        elif sweep == BETWEEN:
            numbers = stops.sweep_between(start, end, STEPS[step])
        else:
            numbers = list(stops.FULL_STOPS)
        summary = f"{len(numbers)} × " + "  ".join(stops.label(n) for n in numbers)
        swept = camera.replace(f_number=torch.tensor(numbers, dtype=torch.float64))
        return io.NodeOutput(swept, len(numbers), ui=messages_ui(cls, summary))
