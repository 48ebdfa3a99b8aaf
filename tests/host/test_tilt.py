"""A leaning plane of sharp focus in the real server: both lenses, the overlay, and workflows from before."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from tools.provision import REPO
from tools.server import HostError
from tools.workflow import Graph, to_prompt

pytestmark = pytest.mark.host

WIDTH, HEIGHT = 120, 80
FOCAL_MM, DISTANCE_M = 50.0, 2.0
LENSES = ("FineDefocusTAFLens", "FineDefocusDrBokehLens")
#: The inputs of before, in their order.
BEFORE = {
    "FineDefocusTAFLens": [
        "image", "depth", "focus", "camera", "max_radius_px", "depth_resampling", "shape",
        "highlight_recovery",
    ],
    "FineDefocusDrBokehLens": [
        "image", "depth", "focus", "camera", "max_radius_px", "depth_resampling", "shape",
        "highlight_recovery", "subject", "background", "max_layers", "rays",
    ],
    "FineDefocusFocusOverlay": ["image", "depth", "focus", "camera", "sharp_px"],
}  # fmt: skip


class Slope(Graph):
    """Noise on a plane that leans by `tilt` and `swing` and crosses the axis at the focus distance."""

    def __init__(self, comfy, tmp_path, tilt=0.0, swing=0.0):
        super().__init__()
        self.comfy, self.tmp_path = comfy, tmp_path
        self.photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        fx = FOCAL_MM / 36.0 * WIDTH
        y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        rise, turn = (math.tan(math.radians(angle)) for angle in (tilt, swing))
        nearer = 1.0 + rise * (y - HEIGHT / 2) / fx - turn * (x - WIDTH / 2) / fx
        self.depth_m = (DISTANCE_M / nearer).astype(np.float32)
        Image.fromarray(self.photo).save(tmp_path / "photo.png")
        np.save(tmp_path / "depth.npy", self.depth_m)

    def node(self, kind, **settings):
        """A lens or the overlay before the scene."""
        photo, depth = (
            self.comfy.upload(self.tmp_path / name, f"{self.tmp_path.name}_{name}")
            for name in ("photo.png", "depth.npy")
        )
        if kind in LENSES:
            settings = {"max_radius_px": 64, "depth_resampling": "nearest (keeps edges)", **settings}
        return self(
            kind,
            image=self("LoadImage", image=photo),
            depth=self("FineDefocusLoadDepth", file=depth, unit="metres", metres_per_unit=1.0, channel=""),
            focus=self("FineDefocusFocusDistance", distance_m=DISTANCE_M, scale=1.0),
            camera=self(
                "FineDefocusCamera", aperture="free", f_number=1.0, focal_mm=FOCAL_MM,
                sensor="Full frame 36 × 24 mm", sensor_width_mm=36.0, sensor_height_mm=24.0,
                framing="crop to the picture",
            ),
            **settings,
        )  # fmt: skip

    def run(self, link):
        """The pictures of an output and the node's text."""
        shown = self("PreviewImage", images=link)[0]
        outputs = self.comfy.prompt(self)["outputs"]
        pictures = [Image.open(io.BytesIO(self.comfy.view(i))) for i in outputs[shown]["images"]]
        return np.stack([np.asarray(p.convert("RGB")).astype(int) for p in pictures]), outputs[link[0]][
            "text"
        ]


@pytest.mark.parametrize("kind", BEFORE)
def test_the_angles_come_after_everything_there_was(comfy, kind):
    info = comfy.object_info()[kind]
    order = [name for group in ("required", "optional") for name in info["input_order"].get(group, [])]
    assert order == [*BEFORE[kind], "tilt", "swing"]
    for name in ("tilt", "swing"):
        number, options = info["input"]["optional"][name]
        assert number == "FLOAT"
        assert (options["default"], options["min"], options["max"]) == (0.0, -85.0, 85.0)
        assert options["advanced"]
        assert "not the lens" in options["tooltip"]


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize(("tilt", "swing"), [(65.0, 0.0), (-40.0, 50.0)])
def test_a_slope_is_sharp_all_over(comfy, tmp_path, kind, tilt, swing):
    scene = Slope(comfy, tmp_path, tilt, swing)
    leaning, _ = scene.run(scene.node(kind, tilt=tilt, swing=swing))
    # the host cuts to 8 bits where it does not round: 1 less
    assert np.abs(leaning[0] - scene.photo).max() <= 1
    other = Slope(comfy, tmp_path, tilt, swing)
    mirrored, _ = other.run(other.node(kind, tilt=-tilt, swing=-swing))
    blur = np.abs(mirrored[0] - scene.photo).mean(-1)
    assert blur[:10, :10].mean() > 20
    assert blur[-10:, -10:].mean() > 20
    assert blur[HEIGHT // 2 - 1 : HEIGHT // 2 + 1, WIDTH // 2 - 1 : WIDTH // 2 + 1].max() < 12


@pytest.mark.parametrize("kind", LENSES)
def test_no_angle_is_as_before(comfy, tmp_path, kind):
    """A prompt saved before there were angles, and one with two zeros."""
    found = []
    for settings in ({}, {"tilt": 0.0, "swing": 0.0}):
        scene = Slope(comfy, tmp_path, 50.0, 20.0)
        found.append(scene.run(scene.node(kind, **settings)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_workflow_from_before_loads(comfy):
    """Its values are saved by position, and there are two fewer of them: each still lands where it did."""
    workflow = json.loads((REPO / "example_workflows" / "lens_swap.json").read_text(encoding="utf-8"))
    saved = {
        "FineDefocusTAFLens": {
            "max_radius_px": 300, "depth_resampling": "bilinear", "highlight_recovery": 1.5,
        },
        "FineDefocusDrBokehLens": {
            "max_radius_px": 400, "depth_resampling": "bilinear", "highlight_recovery": 2.5, "max_layers": 3,
            "rays": 16,
        },
    }  # fmt: skip
    lenses = [node for node in workflow["nodes"] if node["type"] in saved]
    assert len(lenses) == 2
    for node in lenses:
        node["widgets_values"] = list(saved[node["type"]].values())
    prompt = to_prompt(workflow, comfy.object_info())
    for node in lenses:
        inputs = prompt[str(node["id"])]["inputs"]
        values = {name: value for name, value in inputs.items() if not isinstance(value, list)}
        assert values == {**saved[node["type"]], "tilt": 0.0, "swing": 0.0}


def test_the_overlay_knows_the_lean(comfy, tmp_path):
    scene = Slope(comfy, tmp_path, 65.0, -20.0)
    overlay = scene.node("FineDefocusFocusOverlay", sharp_px=1.0, tilt=65.0, swing=-20.0)
    pictures, (said, *_) = scene.run(overlay)
    upright = Slope(comfy, tmp_path, 65.0, -20.0)
    other, (plain, *_) = upright.run(upright.node("FineDefocusFocusOverlay", sharp_px=1.0))
    assert said == f"in the middle: {plain}"
    # in focus in its own colours; the writing at the bottom is left out
    rows = slice(0, HEIGHT // 2)
    assert np.abs(pictures[0, rows] - scene.photo[rows]).max() <= 1
    assert np.abs(other[0, rows] - scene.photo[rows]).mean() > 10


def test_angles_beyond_the_limit_are_refused(comfy, tmp_path):
    scene = Slope(comfy, tmp_path)
    with pytest.raises(HostError, match="tilt"):
        scene.run(scene.node("FineDefocusTAFLens", tilt=90.0))
