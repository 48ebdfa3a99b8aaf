"""Focus Point through the API, without a browser, on the real photo."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from tools import motorcycle
from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

WIDTH, HEIGHT = 741, 500
ENGINE, WALL = (330, 280), (60, 60)
CAMERA = {
    "aperture": "f/2", "f_number": 2.0, "focal_mm": 85.0, "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "framing": "crop to the picture",
}  # fmt: skip


class Studio(Graph):
    """The motorcycle with its depth, and Focus Point on it."""

    def __init__(self, comfy, photo):
        super().__init__()
        self.comfy = comfy
        self.image = self("LoadImage", image=photo[0])
        self.depth = self(
            "FineDefocusLoadDepth", file=photo[1], unit="millimetres", metres_per_unit=0.001, channel=""
        )

    def point(self, pixel, **inputs):
        x, y = pixel
        values = {
            "image": self.image, "depth": self.depth, "focus_x": (x + 0.5) / WIDTH,
            "focus_y": (y + 0.5) / HEIGHT, "sample": "point", "range_x": -1.0, "range_y": -1.0, **inputs,
        }  # fmt: skip
        return self("FineDefocusFocusPoint", **values)

    def run(self, point, also=()):
        """The node's part of the history, and its distance and points as text."""
        distance = self("PreviewAny", source=point.out(1))
        points = self("PreviewAny", source=point.out(3))
        pictures = [self("PreviewImage", images=link) for link in also]
        outputs = self.comfy.prompt(self)["outputs"]
        shown = [self.picture(outputs[p[0]]["images"][0]) for p in pictures]
        return outputs[point[0]], outputs[distance[0]]["text"][0], outputs[points[0]]["text"][0], shown

    def picture(self, file) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.comfy.view(file))))


@pytest.fixture
def studio(comfy, photo):
    return Studio(comfy, photo)


def test_the_distance_is_the_depth_under_the_point(studio):
    _, depth = motorcycle.load()
    said, distance, points, _ = studio.run(studio.point(ENGINE))
    wanted = depth[ENGINE[1], ENGINE[0]]
    assert float(distance) == pytest.approx(wanted, abs=0.001)
    assert said["focus_info"][0]["distance_m"] == float(distance)
    assert json.loads(points) == [{"x": ENGINE[0], "y": ENGINE[1]}]
    assert said["text"] == [f"{wanted:.3g} m"]


def test_the_browser_gets_the_picture_and_its_depth(studio):
    photo, depth = motorcycle.load()
    said, *_ = studio.run(studio.point(ENGINE))
    assert all(isinstance(value, list) for value in said.values())
    assert "images" not in said
    np.testing.assert_array_equal(studio.picture(said["focus_preview"][0])[..., :3], photo)
    codes, (info,) = studio.picture(said["focus_depth"][0]).astype(np.float64), said["focus_info"]
    low, high = 1 / info["far_m"], 1 / info["near_m"]
    metres = 1 / (low + (codes[..., 0] * 256 + codes[..., 1] - 1) / 65534 * (high - low))
    known = ~np.isnan(depth)
    np.testing.assert_array_equal(codes[..., 2] > 127, known)
    # the file holds millimetres, the packing 1/65534 of the range of 1/d
    np.testing.assert_allclose(metres[known], depth[known], atol=0.001)
    assert (info["width"], info["height"], info["camera"]) == (WIDTH, HEIGHT, None)


def test_the_lens_is_sharp_where_the_point_is(studio):
    camera = studio("FineDefocusCamera", **CAMERA)
    pictures = [
        studio(
            "FineDefocusTAFLens", image=studio.image, depth=studio.depth, focus=studio.point(pixel),
            camera=camera, max_radius_px=64, depth_resampling="nearest (keeps edges)",
        )
        for pixel in (ENGINE, WALL)
    ]  # fmt: skip
    *_, (on_engine, on_wall) = studio.run(studio.point(ENGINE), pictures)
    photo, _ = motorcycle.load()

    def change(picture, pixel):
        x, y = pixel
        there = np.s_[y - 12 : y + 12, x - 12 : x + 12]
        return np.abs(picture[there].astype(float) - photo[there]).mean()

    assert change(on_engine, ENGINE) < 0.25 * change(on_wall, ENGINE)
    assert change(on_wall, WALL) < 0.25 * change(on_engine, WALL)


def test_a_second_point_makes_a_range_and_the_camera_its_aperture(studio):
    camera = studio("FineDefocusCamera", **CAMERA)
    point = studio.point(
        ENGINE, range_x=(WALL[0] + 0.5) / WIDTH, range_y=(WALL[1] + 0.5) / HEIGHT, camera=camera
    )
    said, distance, *_ = studio.run(point)
    _, depth = motorcycle.load()
    one, other = depth[ENGINE[1], ENGINE[0]], depth[WALL[1], WALL[0]]
    assert float(distance) == pytest.approx(2 / (1 / one + 1 / other), abs=0.002)
    assert " px at both ends; from f/" in said["text"][0]
    info = said["focus_info"][0]
    assert info["camera"]["f_number"] == 2.0
    assert info["camera"]["sensor_mm"] == pytest.approx(24 * WIDTH / HEIGHT)


def test_depth_of_another_shape_is_used_and_said(studio):
    studio.depth = studio(
        "FineDefocusDepthFromImage", image=studio("EmptyImage", width=64, height=48, batch_size=1, color=0),
        convention="near is bright", near_m=1.0, far_m=100.0, spacing="inverse depth",
    )  # fmt: skip
    said, distance, *_ = studio.run(studio.point((370, 250)))
    assert float(distance) == pytest.approx(100.0, rel=1e-4)
    assert any("different shapes" in text for text in said["text"])


def test_a_cached_run_tells_the_browser_again(studio):
    point = studio.point(ENGINE)
    studio("PreviewAny", source=point.out(1))
    first = studio.comfy.prompt(studio)["outputs"][point[0]]
    assert studio.comfy.prompt(studio)["outputs"][point[0]] == first


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"focus_x": 1.5}, "bigger than max"),
        ({"sample": "pixel"}, "Value not in list"),
    ],
)
def test_bad_values_are_refused(studio, wrong, said):
    with pytest.raises(HostError, match=said):
        studio.run(studio.point(ENGINE, **wrong))


def test_a_linked_point_outside_the_picture_is_a_sentence(studio):
    outside = studio("PrimitiveFloat", value=1.5)
    with pytest.raises(HostError, match=r"The point's x is 1\.5: it must lie between 0"):
        studio.run(studio.point(ENGINE, focus_x=outside))
