"""What artists get wrong, sent to the real server: a picture or a sentence, never a crash."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tools.server import HostError
from tools.workflow import Graph

pytestmark = pytest.mark.host

CAMERA = {
    "aperture": "f/2.8",
    "f_number": 2.8,
    "focal_mm": 85.0,
    "sensor": "Full frame 36 × 24 mm",
    "sensor_width_mm": 36.0,
    "sensor_height_mm": 24.0,
    "framing": "crop to the picture",
}
SWEEP = {"sweep": "list", "start": 1.8, "end": 22.0, "step": "1 stop", "f_numbers": "2.8, 8"}
FILE = {"unit": "metres", "metres_per_unit": 0.001, "channel": ""}
LENS = {"max_radius_px": 64, "depth_resampling": "nearest (keeps edges)"}


class Bench:
    """A lens with everything around it that works, so that a test can break one thing."""

    def __init__(self, comfy, tmp_path, lens_node):
        self.comfy, self.tmp_path, self.lens_node, self.graph = comfy, tmp_path, lens_node, Graph()
        self.shown = ""

    def another(self):
        return Bench(self.comfy, self.tmp_path, self.lens_node)

    def depth_file(self, values, name="depth.npy", **settings):
        path = self.tmp_path / name
        np.save(path, np.asarray(values, np.float32))
        stored = self.comfy.upload(path, f"{self.tmp_path.name}_{name}")
        return self.graph("FineDefocusLoadDepth", file=stored, **{**FILE, **settings})

    def picture(self, width=48, height=32, count=1):
        # a gradient, so that a blur or a NaN would show
        g = self.graph
        mask = g("SolidMask", value=0.6, width=width, height=height)
        left = g("SolidMask", value=0.3, width=max(1, width // 2), height=height)
        both = g("MaskComposite", destination=mask, source=left, x=0, y=0, operation="subtract")
        image = g("MaskToImage", mask=both)
        return g("RepeatImageBatch", image=image, amount=count) if count > 1 else image

    def lens(self, image=None, depth=None, focus=None, camera=None, **settings):
        g = self.graph
        image = image or self.picture()
        depth = depth or self.depth_file(np.linspace(1, 6, 32 * 48).reshape(32, 48))
        focus = focus or g("FineDefocusFocusDistance", distance_m=2.0, scale=1.0)
        camera = camera or g("FineDefocusCamera", **CAMERA)
        lens = g(self.lens_node, image=image, depth=depth, focus=focus, camera=camera, **{**LENS, **settings})
        self.shown = g("PreviewImage", images=lens)[0]
        self.lens_id, self.depth_id = lens[0], depth[0]
        return lens

    def run(self):
        """(pictures, texts of every node)"""
        outputs = self.comfy.prompt(self.graph)["outputs"]
        pictures = [
            np.asarray(Image.open(io.BytesIO(self.comfy.view(i)))) for i in outputs[self.shown]["images"]
        ]
        assert all(p.size for p in pictures)
        return pictures, {node: "\n".join(o["text"]) for node, o in outputs.items() if "text" in o}


@pytest.fixture(params=["FineDefocusTAFLens", "FineDefocusDrBokehLens"])
def bench(comfy, tmp_path, request):
    return Bench(comfy, tmp_path, request.param)


@pytest.mark.parametrize("value", [np.nan, 0.0, -3.0])
def test_missing_depth_is_filled_and_said(bench, value):
    depth = np.full((32, 48), 2.0)
    depth[:, 24:] = 5.0
    depth[8:16, 20:30] = value
    bench.lens(depth=bench.depth_file(depth))
    (picture,), texts = bench.run()
    assert "5.2 % had no measurement" in texts[bench.depth_id]
    whole = bench.another()
    depth[8:16, 20:30] = 5.0  # a hole belongs to what is farther
    whole.lens(depth=whole.depth_file(depth, "whole.npy"))
    (expected,), _ = whole.run()
    np.testing.assert_array_equal(picture, expected)


def test_sky_blurs_like_infinity(bench):
    bench.lens(depth=bench.depth_file(np.full((32, 48), np.inf)))
    (picture,), texts = bench.run()
    far = bench.another()
    far.lens(depth=far.depth_file(np.full((32, 48), 1e7), "far.npy"))
    (expected,), _ = far.run()
    # a grey that lies on .5 of an 8-bit step may round either way
    np.testing.assert_allclose(picture.astype(int), expected.astype(int), rtol=0, atol=1)
    assert "100.0 % sky" in texts[bench.depth_id]


def test_depth_without_any_value(bench):
    bench.lens(depth=bench.depth_file(np.zeros((32, 48))))
    with pytest.raises(HostError, match="has no usable depth"):
        bench.run()


def test_depth_of_another_size_keeps_its_edges(bench):
    half = np.full((16, 24), 2.0)
    half[:, 12:] = 5.0
    bench.lens(depth=bench.depth_file(half))
    (picture,), _ = bench.run()
    full = bench.another()
    full.lens(depth=full.depth_file(half.repeat(2, 0).repeat(2, 1), "full.npy"))
    (expected,), _ = full.run()
    np.testing.assert_array_equal(picture, expected)


def test_depth_of_another_shape_is_stretched_and_said(bench):
    bench.lens(depth=bench.depth_file(np.full((10, 50), 2.0)))
    _, texts = bench.run()
    assert "50 × 10 px and the picture 48 × 32 px" in texts[bench.lens_id]


@pytest.mark.parametrize(("pictures", "depths"), [(4, 1), (1, 4), (4, 4)])
def test_batches_that_go_together(bench, pictures, depths):
    depth = np.stack([np.full((32, 48), 2.0 + i) for i in range(depths)])
    bench.lens(image=bench.picture(count=pictures), depth=bench.depth_file(depth))
    assert len(bench.run()[0]) == 4


def test_batches_that_do_not(bench):
    sweep = bench.graph(
        "FineDefocusApertureSweep", camera=bench.graph("FineDefocusCamera", **CAMERA), **SWEEP
    )
    bench.lens(image=bench.picture(count=3), camera=sweep)
    with pytest.raises(HostError, match="3 pictures do not go with 2 cameras"):
        bench.run()


def test_transparency_is_kept_and_blurred(bench):
    g = bench.graph
    half = g("SolidMask", value=1.0, width=24, height=32)
    mask = g(
        "MaskComposite",
        destination=g("SolidMask", value=0.0, width=48, height=32),
        source=half,
        x=0,
        y=0,
        operation="add",
    )
    rgba = g("JoinImageWithAlpha", image=bench.picture(), alpha=mask)
    bench.lens(image=rgba, depth=bench.depth_file(np.full((32, 48), 6.0)))
    (picture,), _ = bench.run()
    assert picture.shape == (32, 48, 4)
    alpha = picture[16, :, 3].astype(int)
    assert {alpha[0], alpha[-1]} == {0, 255}
    assert ((alpha > 0) & (alpha < 255)).any()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 7)])
def test_tiny_pictures(bench, width, height):
    bench.lens(image=bench.picture(width, height), depth=bench.depth_file(np.full((height, width), 5.0)))
    assert bench.run()[0][0].shape[:2] == (height, width)


def test_flat_depth_at_the_focus_is_the_picture(bench):
    image = bench.picture()
    sharp = bench.graph("PreviewImage", images=image)[0]
    bench.lens(image=image, depth=bench.depth_file(np.full((32, 48), 2.0)))
    outputs = bench.comfy.prompt(bench.graph)["outputs"]
    before, after = (
        np.asarray(Image.open(io.BytesIO(bench.comfy.view(outputs[n]["images"][0]))), int)
        for n in (sharp, bench.shown)
    )
    assert np.abs(before - after).max() <= 1  # sRGB to linear and back, in float32


@pytest.mark.parametrize("distance", [0.0, 0.05])
def test_focus_closer_than_the_lens_can(bench, distance):
    bench.lens(focus=bench.graph("FineDefocusFocusDistance", distance_m=distance, scale=1.0))
    _, texts = bench.run()
    assert "closer than this lens can focus: 17 cm" in texts[bench.lens_id]


def test_focus_as_a_plain_number(bench):
    bench.lens(focus=bench.graph("PrimitiveFloat", value=2.0))
    (number,), _ = bench.run()
    other = bench.another()
    other.lens()
    np.testing.assert_array_equal(number, other.run()[0][0])


def test_f_number_zero(bench):
    camera = {**CAMERA, "aperture": "free"}
    bench.lens(camera=bench.graph("FineDefocusCamera", **{**camera, "f_number": 0.0}))
    with pytest.raises(HostError, match=r"0\.0 smaller than min of 0\.5"):
        bench.run()
    linked = bench.another()
    zero = linked.graph("PrimitiveFloat", value=0.0)
    linked.lens(camera=linked.graph("FineDefocusCamera", **{**camera, "f_number": zero}))
    with pytest.raises(HostError, match="f-number is 0: it must be greater than 0"):
        linked.run()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "list of f-numbers is empty"),
        (" , ;", "list of f-numbers is empty"),
        ("2.8, banana", r'"banana" \(item 2\) is not an f-number'),
        ("2.8, 0", r'"0" \(item 2\) is not an f-number'),
        ("-4", r'"-4" \(item 1\) is not an f-number'),
    ],
)
def test_sweep_lists(bench, text, sentence):
    camera = bench.graph("FineDefocusCamera", **CAMERA)
    bench.lens(camera=bench.graph("FineDefocusApertureSweep", camera=camera, **{**SWEEP, "f_numbers": text}))
    with pytest.raises(HostError, match=sentence):
        bench.run()


def test_missing_depth_file(bench):
    bench.lens(depth=bench.graph("FineDefocusLoadDepth", file="not_there.exr", **FILE))
    with pytest.raises(HostError, match=r"not_there\.exr is not in ComfyUI's input folder"):
        bench.run()


def test_metres_that_are_not(bench):
    grey = bench.graph("MaskToImage", mask=bench.graph("SolidMask", value=0.5, width=48, height=32))
    depth = bench.graph(
        "FineDefocusDepthFromImage",
        image=grey,
        convention="metres",
        near_m=1.0,
        far_m=20.0,
        spacing="inverse depth",
    )
    bench.lens(depth=depth)
    _, texts = bench.run()
    assert "looks like a normalised map" in texts[bench.depth_id]


def test_near_beyond_far(bench):
    grey = bench.graph("MaskToImage", mask=bench.graph("SolidMask", value=0.5, width=48, height=32))
    settings = {"convention": "near is dark", "near_m": 9.0, "far_m": 2.0, "spacing": "depth"}
    bench.lens(depth=bench.graph("FineDefocusDepthFromImage", image=grey, **settings))
    with pytest.raises(HostError, match="near_m is 9 and far_m is 2"):
        bench.run()


def test_a_picture_on_the_depth_socket_is_refused_before_it_runs(bench):
    bench.lens(depth=bench.picture())
    with pytest.raises(HostError, match="depth"):
        bench.run()


def test_capped_blur_is_said(bench):
    bench.lens(depth=bench.depth_file(np.full((32, 48), np.inf)), max_radius_px=0)
    _, texts = bench.run()
    assert "max_radius_px = 0 px in 100" in texts[bench.lens_id]


def test_cameras_and_pictures_of_a_sheet_must_match(bench):
    sweep = bench.graph(
        "FineDefocusApertureSweep", camera=bench.graph("FineDefocusCamera", **CAMERA), **SWEEP
    )
    sheet = {"columns": 0, "picture_width": 0, "text_size": 0, "labels": ""}
    sheet = bench.graph("FineDefocusContactSheet", images=bench.picture(count=3), camera=sweep, **sheet)
    bench.shown = bench.graph("PreviewImage", images=sheet)[0]
    with pytest.raises(HostError, match="3 pictures do not go with 2 cameras"):
        bench.run()


SHAPE = {
    "shape": "polygon",
    "blades": 5,
    "curvature": 0.0,
    "rotation_deg": 0.0,
    "squeeze": 1.0,
    "inner": 0.4,
    "edge": 0.0,
    "cats_eye": 0.0,
}


def test_a_shape_changes_the_lights_and_keeps_their_energy(bench):
    lens = bench.lens(depth=bench.depth_file(np.full((32, 48), 0.8)), max_radius_px=20)
    (disc,), _ = bench.run()
    bench.graph[lens[0]]["inputs"]["shape"] = bench.graph("FineDefocusApertureShape", **SHAPE)
    (polygon,), _ = bench.run()
    assert (polygon != disc).any()
    assert abs(polygon.astype(int).mean() - disc.astype(int).mean()) < 2


def test_a_black_kernel_is_a_sentence(bench):
    black = bench.graph("EmptyImage", width=16, height=16, batch_size=1, color=0)
    settings = {**SHAPE, "shape": "picture (kernel input)"}
    lens = bench.lens()
    bench.graph[lens[0]]["inputs"]["shape"] = bench.graph(
        "FineDefocusApertureShape", **settings, kernel=black
    )
    with pytest.raises(HostError, match="black"):
        bench.run()
