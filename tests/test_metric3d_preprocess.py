"""Into the network's canvas and camera, and back to metres at the picture's size.

Most of it is tested with networks that know the answer.
"""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models.depth.metric3d.config import Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2
from lens_models.depth.metric3d.preprocess import (
    AUTO,
    CANVASES,
    DEVIATION_RGB,
    MEAN_RGB,
    Letterbox,
    infer,
    metres_from_canonical,
)

sides = st.integers(1, 400)


def answering(depth):
    """A network that gives one canonical depth everywhere."""

    def network(rgb):
        shape = rgb.shape[0], 1, *rgb.shape[-2:]
        normal = torch.tensor([0.6, 0.0, -0.8, 5.0]).view(1, 4, 1, 1).expand(shape[0], 4, *shape[2:])
        return {"depth": torch.full(shape, depth), "confidence": torch.full(shape, 0.25), "normal": normal}

    return network


def seeing(rgb):
    """A network that gives the red of the picture, 0..1, as depth."""
    red = (rgb[:, :1] * DEVIATION_RGB[0] + MEAN_RGB[0]) / 255.0
    return {"depth": red, "confidence": red, "normal": red.expand(-1, 4, -1, -1)}


@settings(max_examples=40)
@given(height=sides, width=sides, fx_px=st.floats(20, 20_000), canvas=st.sampled_from([*CANVASES, AUTO]))
def test_a_plane_keeps_its_distance(height, width, fx_px, canvas):
    scale = Letterbox.fit(height, width, canvas).scale
    plane = answering(3.0 * 1000.0 / (fx_px * scale))
    depth_m = infer(plane, torch.rand(1, 3, height, width), fx_px, canvas=canvas).depth_m
    assert depth_m.shape == (1, height, width)
    assert (depth_m - 3.0).abs().max() <= 1e-3  # 1 mm, as demanded; float32 leaves 1e-6


@settings(max_examples=60)
@given(height=st.integers(1, 9000), width=st.integers(1, 9000), canvas=st.sampled_from([*CANVASES, AUTO]))
def test_the_picture_fits_in_the_middle(height, width, canvas):
    box = Letterbox.fit(height, width, canvas)
    assert (box.canvas_height, box.canvas_width) in CANVASES.values()
    assert 1 <= box.inner_height <= box.canvas_height
    assert 1 <= box.inner_width <= box.canvas_width
    assert box.inner_height == box.canvas_height or box.inner_width == box.canvas_width
    assert box.top == (box.canvas_height - box.inner_height) // 2
    assert box.left == (box.canvas_width - box.inner_width) // 2
    # whole pixels, rounded down; only a hair-thin picture is widened, to one
    assert -1 <= box.inner_height - height * box.scale < 1e-3 or box.inner_height == 1
    assert -1 <= box.inner_width - width * box.scale < 1e-3 or box.inner_width == 1


def test_worked_letterbox():
    # scikit-image's Middlebury motorcycle: min(616/500, 1064/741) = 1.232; 741 · 1.232 = 912.9
    box = Letterbox.fit(500, 741)
    assert box.scale == pytest.approx(1.232)
    assert (box.inner_height, box.inner_width, box.top, box.left) == (616, 912, 0, 76)
    wide = Letterbox.fit(600, 1200)  # 1064/1200; 532 rows, 84 left
    assert (wide.inner_height, wide.inner_width, wide.top, wide.left) == (532, 1064, 42, 0)


def test_padding_is_the_mean_colour():
    box = Letterbox.fit(501, 100)
    framed = box.network_input(torch.ones(1, 3, 501, 100))
    assert framed.shape == (1, 3, 616, 1064)
    inside = torch.zeros(616, 1064, dtype=torch.bool)
    inside[box.top : box.top + box.inner_height, box.left : box.left + box.inner_width] = True
    assert (framed[..., ~inside] == 0).all()
    white = (255 - torch.tensor(MEAN_RGB)) / torch.tensor(DEVIATION_RGB)
    # float32 bilinear weights add up to 1 within rounding
    torch.testing.assert_close(framed[0, :, inside], white[:, None].expand(3, int(inside.sum())))


@pytest.mark.parametrize(
    ("height", "width", "square"),
    [(500, 500, True), (900, 600, True), (500, 550, True), (500, 560, False), (500, 741, False)],
)
def test_automatic_canvas(height, width, square):
    box = Letterbox.fit(height, width, AUTO)
    assert (box.canvas_height, box.canvas_width) == ((616, 616) if square else (616, 1064))
    if height >= width:  # nothing is lost: the picture is as large as in the wide canvas
        assert box.scale == Letterbox.fit(height, width).scale


def test_canvas_of_any_size_in_steps_of_28():
    box = Letterbox.fit(300, 400, (56, 84))
    assert (box.canvas_height, box.canvas_width) == (56, 84)
    for canvas in [(56, 80), (14, 28), (0, 28)]:
        with pytest.raises(ValueError, match=rf"{canvas[1]} × {canvas[0]} px .* multiples of 28"):
            Letterbox.fit(300, 400, canvas)
    with pytest.raises(ValueError, match='"4k" is not a canvas'):
        Letterbox.fit(300, 400, "4k")


@pytest.mark.parametrize("canvas", [*CANVASES, AUTO])
@pytest.mark.parametrize(("height", "width"), [(480, 720), (720, 480), (333, 333), (1001, 1999), (75, 1500)])
def test_a_mark_comes_back_to_its_pixel(height, width, canvas):
    y, x = 0.37 * height, 0.71 * width
    rows = torch.arange(height, dtype=torch.float64)[:, None]
    columns = torch.arange(width, dtype=torch.float64)
    mark = torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 8.0**2)).float()
    fx_px = 1000.0 / Letterbox.fit(height, width, canvas).scale  # canonical depth is metres
    depth_m = infer(seeing, mark.expand(1, 3, -1, -1), fx_px, canvas=canvas).depth_m[0].double()
    found = depth_m - depth_m.min()
    assert ((found * rows).sum() / found.sum()).item() == pytest.approx(y, abs=0.5)
    assert ((found * columns).sum() / found.sum()).item() == pytest.approx(x, abs=0.5)


def test_a_ramp_comes_back():
    across = torch.linspace(0.1, 0.9, 640).expand(1, 3, 427, 640)
    fx_px = 1000.0 / Letterbox.fit(427, 640).scale
    depth_m = infer(seeing, across, fx_px).depth_m
    # within one pixel of the slope: what rounding the size down to whole pixels costs, and the ends
    assert (depth_m - across[:, 0]).abs().max() <= 0.8 / 640


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (13, 13), (2, 3000), (3000, 2), (1, 1064)])
def test_tiny_and_extreme_pictures(height, width):
    network = Metric3Dv2(Metric3DConfig(16, 1, 1, "mlp", False, (8, 8), 8, 8, 1))
    with torch.no_grad():
        found = network.estimate_maps(torch.rand(1, 3, height, width), 50.0, canvas=(56, 84))
    for values in (found.depth_m, found.confidence, found.normal[:, 0], found.certainty):
        assert values.shape == (1, height, width)
        assert torch.isfinite(values).all()
    assert (found.depth_m > 0).all()


def test_focal_lengths_of_a_batch():
    network = answering(2.0)
    scale = Letterbox.fit(100, 100).scale
    two = torch.tensor([500.0, 1500.0])
    expected = 2.0 * two.double() * scale / 1000.0
    for pictures in (1, 2):
        found = infer(network, torch.rand(pictures, 3, 100, 100), two, maps=True)
        torch.testing.assert_close(found.depth_m[:, 7, 9].double(), expected)
        assert found.confidence.shape == found.certainty.shape == (2, 100, 100)
        assert found.normal.shape == (2, 3, 100, 100)
    one = infer(network, torch.rand(2, 3, 100, 100), torch.tensor(500.0)).depth_m
    torch.testing.assert_close(one[:, 7, 9].double(), expected[:1].expand(2))
    with pytest.raises(ValueError, match="3 pictures do not go with 2 focal lengths"):
        infer(network, torch.rand(3, 3, 100, 100), two)


@pytest.mark.parametrize("fx_px", [0.0, -35.0, math.nan, math.inf])
@pytest.mark.parametrize("batch", [False, True])
def test_bad_focal_lengths(fx_px, batch):
    given_fx = torch.tensor([800.0, fx_px]) if batch else fx_px
    with pytest.raises(ValueError, match=rf"focal length is {fx_px:g} px for a picture 640 px wide"):
        infer(answering(1.0), torch.rand(2, 3, 20, 640), given_fx)


@pytest.mark.parametrize("fx_px", ["50", None, True, torch.ones(2, 2), torch.ones(0)])
def test_things_that_are_not_focal_lengths(fx_px):
    with pytest.raises(ValueError, match="focal length must be"):
        infer(answering(1.0), torch.rand(2, 3, 20, 30), fx_px)


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 2, 20, 30), (1, 5, 20, 30), (0, 3, 20, 30)])
def test_things_that_are_not_pictures(shape):
    with pytest.raises(ValueError, match="picture must be"):
        infer(answering(1.0), torch.zeros(shape), 100.0)


def test_other_bad_inputs():
    with pytest.raises(ValueError, match="0 × 20 px: there is nothing"):
        infer(answering(1.0), torch.zeros(1, 3, 20, 0), 100.0)
    with pytest.raises(ValueError, match=r"not torch\.uint8: divide by 255"):
        infer(answering(1.0), torch.zeros(1, 3, 20, 30, dtype=torch.uint8), 100.0)
    for sky_m in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sky begins at"):
            infer(answering(1.0), torch.zeros(1, 3, 20, 30), 100.0, sky_m=sky_m)
    with pytest.raises(ValueError, match=r"maps of 1062 × 616 px for a canvas of 1064 × 616"):
        infer(lambda rgb: seeing(rgb[..., 2:]), torch.zeros(1, 3, 20, 30), 100.0)


def test_depth_is_held_between_a_hand_and_300_metres():
    def metres(depth, **options):
        return infer(answering(depth), torch.rand(1, 3, 308, 532), 1000.0, **options).depth_m.unique().item()

    # scale 2: metres = 2 × canonical
    assert metres(0.0) == pytest.approx(0.01)
    assert metres(0.2) == pytest.approx(0.4)
    assert metres(180.0) == 300.0
    assert metres(180.0, sky_m=300.0) == math.inf
    assert metres(180.0, sky_m=5000.0) == math.inf  # nothing is farther than 300 m
    assert metres(40.0, sky_m=80.0) == math.inf
    assert metres(39.9, sky_m=80.0) == pytest.approx(79.8)


def test_the_networks_own_limit_is_sky_when_asked():
    depth = torch.tensor([[[10.0, 199.0, 200.0]]])
    near = metres_from_canonical(depth, torch.tensor([100.0]), 1.0, sky_m=250.0)  # 200 is 20 m for this lens
    assert near.flatten().tolist() == pytest.approx([1.0, 19.9, math.inf])
    assert torch.isfinite(metres_from_canonical(depth, torch.tensor([100.0]), 1.0)).all()


def test_alpha_shows_the_mean_colour_and_grey_is_spread():
    seen = []

    def network(rgb):
        seen.append(rgb)
        return answering(1.0)(rgb)

    colour = torch.rand(1, 3, 56, 84)
    alpha = torch.ones(1, 1, 56, 84)
    alpha[..., :42] = 0.0
    infer(network, torch.cat([colour, alpha], dim=1), 100.0, canvas=(56, 84))
    infer(network, colour, 100.0, canvas=(56, 84))
    assert seen[0][..., :42].abs().max() <= 1e-5  # mean minus mean, in float32
    torch.testing.assert_close(seen[0][..., 42:], seen[1][..., 42:])
    infer(network, colour[:, :1], 100.0, canvas=(56, 84))
    infer(network, colour[:, :1].expand(-1, 3, -1, -1), 100.0, canvas=(56, 84))
    assert torch.equal(seen[2], seen[3])


def test_what_is_no_colour_is_held():
    picture = torch.rand(1, 3, 40, 60)
    spoiled, mended = picture.clone(), picture.clone()
    for value, held in ((math.nan, 0.0), (math.inf, 1.0), (7.0, 1.0), (-1.0, 0.0)):
        spoiled[..., 3, 5], mended[..., 3, 5] = value, held
        found = infer(seeing, spoiled, 500.0).depth_m
        assert torch.equal(found, infer(seeing, mended, 500.0).depth_m)


def test_maps_are_unpadded():
    def network(rgb):
        maps = answering(3.0)(rgb)
        # around the picture, where the input is the mean colour, the maps hold nonsense
        outside = (rgb == 0).all(dim=1, keepdim=True)
        return {name: m.masked_fill(outside, 777.0) for name, m in maps.items()}

    found = infer(network, torch.ones(2, 3, 91, 37), 400.0, maps=True)
    torch.testing.assert_close(found.confidence, torch.full((2, 91, 37), 0.25))
    torch.testing.assert_close(found.certainty, torch.full((2, 91, 37), 5.0))
    normal = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1).expand(2, 3, 91, 37)
    torch.testing.assert_close(found.normal, normal)
    assert found.depth_m.max() - found.depth_m.min() <= 1e-5  # bilinear weights add up to 1 within rounding
    assert infer(network, torch.ones(1, 3, 91, 37), 400.0).normal is None


def test_gradients_reach_picture_and_focal_length():
    picture = torch.rand(2, 4, 30, 50, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    focal = torch.tensor([900.0, 1400.0], dtype=torch.float64, requires_grad=True)

    def depth(p, f):
        return infer(seeing, p, f, canvas=(56, 84), sky_m=290.0).depth_m

    # a linear path but for the clamps, which the values avoid
    assert torch.autograd.gradcheck(depth, (picture, focal), fast_mode=True, eps=1e-4)
    depth(picture, focal).sum().backward()
    assert (picture.grad[:, 0] != 0).all()
    assert (focal.grad > 0).all()


def test_guided_without_kornia(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.filters", None)
    with pytest.raises(ImportError, match="pip install kornia"):
        infer(seeing, torch.rand(1, 3, 40, 60), 500.0, guided=True)


def fake_kornia(monkeypatch, guided_blur):
    filters = types.ModuleType("kornia.filters")
    filters.guided_blur = guided_blur
    monkeypatch.setitem(sys.modules, "kornia", types.ModuleType("kornia"))
    monkeypatch.setitem(sys.modules, "kornia.filters", filters)


def test_guided_stays_in_range(monkeypatch):
    calls = []

    def overshooting(guide, values, kernel, eps):
        calls.append((guide.shape, values.shape, kernel))
        return values + 100.0 * (values - values.mean())

    fake_kornia(monkeypatch, overshooting)
    picture = torch.linspace(0.2, 1.0, 1232).expand(1, 3, 700, 1232)
    plain = infer(seeing, picture, 5000.0).depth_m
    guided = infer(seeing, picture, 5000.0, guided=True, maps=True)
    # 8 px of the network are 9.3 here: 10 each way
    assert calls == [((1, 3, 700, 1232), (1, 1, 700, 1232), 21)]
    assert guided.depth_m.min() >= plain.min() * (1 - 1e-6)
    assert guided.depth_m.max() <= plain.max() * (1 + 1e-6)
    assert (guided.depth_m != plain).any()
    assert torch.equal(guided.confidence, infer(seeing, picture, 5000.0, maps=True).confidence)
    infer(seeing, torch.rand(1, 3, 1, 20), 500.0, guided=True)  # no room for a window
    assert len(calls) == 1


def test_guided_with_kornia():
    pytest.importorskip("kornia", reason="the guided filter is kornia's")
    picture = torch.full((1, 3, 300, 450), 0.2)
    picture[..., 200:] = 0.7
    truth = torch.where(torch.arange(450) < 200, 2.0, 6.0).expand(1, 300, 450)
    box = Letterbox.fit(300, 450, (280, 420))

    def soft(rgb):
        # depth as a network gives it: right, but in cells of 4 px
        red = seeing(rgb)["depth"]
        depth = 2.0 + 4.0 * (red - 0.2) / 0.5
        cells = F.avg_pool2d(depth, 4)
        return {"depth": F.interpolate(cells, scale_factor=4, mode="bilinear")}

    def error(**options):
        depth_m = infer(soft, picture, 1000.0 / box.scale, canvas=(280, 420), **options).depth_m
        return (1 / depth_m - 1 / truth).square().mean().sqrt()

    assert error(guided=True) < 0.7 * error()
