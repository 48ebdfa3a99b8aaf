"""Circle of confusion: worked values, units, limits, batches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import Camera, Focus, coc_px
from lens_models.camera import (
    broadcast_batch,
    capped_share,
    hyperfocal_m,
    macro_limit_m,
    macro_limited,
    radius_line,
    sharp_limits_m,
)


def depth_of(*values_m: float) -> torch.Tensor:
    return torch.tensor(values_m, dtype=torch.float64).reshape(1, 1, -1)


def test_worked_value():
    # by hand: 85²/(2·2·1415)·(512/36) = 18.1547 px at infinity; × 2·(1 − 1.5/4) = 22.6934
    coc = coc_px(depth_of(4.0), Focus(1.5), Camera(2.0, 85.0), 512)
    assert coc.item() == pytest.approx(22.6934, abs=5e-5)  # the value is given to 4 decimals


def test_against_similar_triangles():
    # an independent way to the same number: image distances of the thin-lens equation, in millimetres
    f, n, focus_mm, object_mm, sensor, width = 50.0, 1.8, 2350.0, 4100.0, 36.0, 741
    image_of_focus = 1 / (1 / f - 1 / focus_mm)
    image_of_object = 1 / (1 / f - 1 / object_mm)
    blur_mm = f / n * abs(image_of_object - image_of_focus) / image_of_object
    coc = coc_px(depth_of(object_mm / 1000), Focus(focus_mm / 1000), Camera(n, f, sensor), width)
    assert coc.item() == pytest.approx(blur_mm * width / sensor, rel=1e-12)  # same formula in float64


def test_signs_and_sky():
    camera, focus = Camera(2.8, 50.0), Focus(2.0)
    near, at, far, sky = coc_px(depth_of(1.0, 2.0, 5.0, math.inf), focus, camera, 1000).flatten().tolist()
    assert near < 0 < far < sky
    assert at == pytest.approx(0.0, abs=1e-12)
    radius = 50.0**2 / (2 * 2.8 * (2000 - 50)) * 1000 / 36
    assert sky == pytest.approx(2 * radius, rel=1e-12)


@given(st.floats(0.3, 50), st.floats(1.2, 22), st.floats(14, 200), st.floats(0.5, 30))
def test_linear_in_inverse_depth(focus_m, n, focal, depth_m):
    focus, camera = Focus(focus_m), Camera(n, focal)
    sky, at, doubled = coc_px(depth_of(math.inf, depth_m, depth_m / 2), focus, camera, 800).flatten().tolist()
    assert doubled - sky == pytest.approx(2 * (at - sky), rel=1e-9, abs=1e-9)  # float64 rounding


@given(st.floats(0.5, 2.0), st.floats(1.4, 16))
def test_scale_is_an_f_number_far_from_the_lens(scale, n):
    # f_s F >> f: f_s only multiplies N; at F = 10 km the rest is f/F = 5e-6
    depth, far = depth_of(500.0, 20000.0), 10_000.0
    a = coc_px(depth, Focus(far, scale), Camera(n, 50.0), 4000)
    b = coc_px(depth, Focus(far), Camera(n * scale, 50.0), 4000)
    torch.testing.assert_close(a, b, rtol=2e-5, atol=0)


def test_radius_per_inverse_metre_is_the_slope():
    focus, camera = Focus(2.0, 1.1), Camera(torch.tensor([2.8, 5.6]), 85.0)
    one, other = coc_px(depth_of(2.5, 5.0), focus, camera, 700).flatten(1).mT
    slope = (other - one) / 2 / (1 / 2.5 - 1 / 5.0)
    torch.testing.assert_close(radius_line(focus, camera, 700)[1], slope, rtol=1e-12, atol=0)


def test_focus_at_infinity_is_finite():
    coc = coc_px(depth_of(2.0, math.inf), Focus(math.inf), Camera(2.0, 50.0), 1000)
    assert torch.isfinite(coc).all()
    assert coc[0, 0, 1] == 0
    near = coc_px(depth_of(2.0, math.inf), Focus(1e9), Camera(2.0, 50.0), 1000)
    torch.testing.assert_close(coc, near, rtol=1e-6, atol=1e-4)  # 1e9 m is not quite infinity


@pytest.mark.parametrize("distance", [0.0, -3.0, 0.05, 0.0999])
def test_macro_limit_holds(distance):
    # a 50 mm lens at 1:1 focuses at 100 mm and its circle at infinity is the aperture, f/N = 25 mm
    camera = Camera(2.0, 50.0)
    assert macro_limited(Focus(distance), camera).all()
    assert macro_limit_m(Focus(distance), camera).item() == pytest.approx(0.1)
    sky = coc_px(depth_of(math.inf), Focus(distance), camera, 3600).item()
    assert sky == pytest.approx(25.0 * 100, rel=1e-12)


def test_macro_gradient_passes_through():
    distance = torch.tensor(0.03, dtype=torch.float64, requires_grad=True)
    coc_px(depth_of(1.0), Focus(distance), Camera(2.0, 50.0), 100).sum().backward()
    assert torch.isfinite(distance.grad)
    assert distance.grad != 0


@pytest.mark.parametrize("depth", [math.nan, 0.0, -1.0, -math.inf])
def test_bad_depth_is_read_as_very_near(depth):
    values = depth_of(depth).requires_grad_()
    coc = coc_px(values, Focus(2.0), Camera(2.0, 50.0), 100)
    assert torch.isfinite(coc).all()
    assert (coc < 0).all()
    coc.sum().backward()
    assert values.grad.item() == 0.0


def test_sky_has_a_finite_gradient():
    depth = depth_of(math.inf).requires_grad_()
    coc_px(depth, Focus(2.0), Camera(2.0, 50.0), 100).sum().backward()
    assert depth.grad.item() == 0.0


def test_batches():
    sweep = Camera(torch.tensor([1.8, 2.8, 4.0]), 85.0)
    assert sweep.batch == 3
    coc = coc_px(torch.full((1, 2, 2), 4.0), Focus(1.5), sweep, 512)
    assert coc.shape == (3, 2, 2)
    for i in range(3):
        one = coc_px(torch.full((1, 2, 2), 4.0), Focus(1.5), sweep.part(i, i + 1), 512)
        torch.testing.assert_close(coc[i : i + 1], one, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"2 depths.*3 cameras|3 cameras.*2 depths"):
        coc_px(torch.ones(2, 2, 2), Focus(1.5), sweep, 512)
    with pytest.raises(ValueError, match=r"2 .* 3 "):
        Camera(torch.tensor([2.0, 4.0]), torch.tensor([24.0, 35.0, 50.0]))


def test_part_keeps_what_is_single():
    rack = Focus(torch.tensor([1.0, 2.0, 3.0]), 0.9)
    assert rack.part(1, 3).distance_m.tolist() == [2.0, 3.0]
    assert rack.part(1, 3).scale == 0.9
    assert Camera(torch.tensor([2.8]), 50.0).part(5, 6).f_number.tolist() == pytest.approx([2.8])


def test_broadcast_batch():
    assert broadcast_batch(pictures=1, cameras=8) == 8
    assert broadcast_batch(pictures=8, cameras=1, depths=8) == 8
    with pytest.raises(ValueError, match="4 pictures do not go with 8 cameras"):
        broadcast_batch(pictures=4, depths=1, cameras=8)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"f_number": 0}, "f-number is 0"),
        ({"f_number": -2.8}, "f-number is -2.8"),
        ({"f_number": math.inf}, "f-number is inf"),
        ({"focal_mm": math.nan}, "focal length is not a number"),
        ({"sensor_mm": 0.0}, "sensor width is 0"),
        ({"f_number": "2.8"}, "f-number must be a number"),
        ({"f_number": torch.ones(2, 2)}, "1-D batch"),
        ({"f_number": torch.ones(0)}, "empty batch"),
    ],
)
def test_impossible_cameras(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Camera(**{"f_number": 2.8, "focal_mm": 50.0, **fields})


def test_impossible_focus():
    with pytest.raises(ValueError, match="NaN"):
        Focus(math.nan)
    with pytest.raises(ValueError, match="focus scale is 0"):
        Focus(2.0, 0.0)


@pytest.mark.parametrize(
    ("width", "height", "span_mm"),
    [
        (1200, 800, 36.0),
        (1024, 1024, 24.0),
        (800, 1200, 24.0),
        (1920, 1080, 36.0),
        (1080, 1920, 20.25),
        (900, 800, 27.0),
    ],
)
def test_crop_of_full_frame(width, height, span_mm):
    camera = Camera(2.8, 50.0, 36.0, sensor_height_mm=24.0).framed(width, height)
    assert camera.sensor_mm == pytest.approx(span_mm)
    assert Camera(2.8, 50.0).framed(width, height).sensor_mm == 36.0


def test_crop_keeps_pixels_per_millimetre():
    # a square crop of a 3:2 frame shows the same blur in pixels as the frame itself
    camera = Camera(2.8, 50.0, 36.0, sensor_height_mm=24.0)
    depth = depth_of(5.0)
    whole = coc_px(depth, Focus(2.0), camera.framed(1500, 1000), 1500)
    square = coc_px(depth, Focus(2.0), camera.framed(1000, 1000), 1000)
    torch.testing.assert_close(whole, square)


def test_fx_px():
    assert Camera(2.8, 36.0).fx_px(1024).tolist() == pytest.approx([1024.0])
    assert Camera(torch.tensor([2.8, 4.0]), 18.0).fx_px(1000).tolist() == pytest.approx([500.0, 500.0])


def test_capped_share():
    coc = torch.tensor([[[-30.0, 10.0, 25.0, 0.0]]])
    assert capped_share(coc, 12.5) == 0.25
    assert capped_share(coc, 4.0) == 0.75


# ---- what counts as sharp


@given(st.floats(0.5, 20), st.floats(1.0, 22), st.floats(0.2, 5))
def test_at_the_limits_the_blur_is_just_acceptable(distance, f_number, sharp_px):
    focus, camera = Focus(distance), Camera(f_number, 50.0)
    near, far = (v.item() for v in sharp_limits_m(focus, camera, 1024, sharp_px))
    assert near < distance < far
    depth = torch.tensor([[[near, far]]], dtype=torch.float64)
    coc = coc_px(depth, focus, camera, 1024)[0, 0]
    assert coc[0].item() == pytest.approx(-sharp_px, rel=1e-9)
    if math.isinf(far):
        assert coc[1].item() <= sharp_px
    else:
        assert coc[1].item() == pytest.approx(sharp_px, rel=1e-6)  # near the pole of 1/far


def test_hyperfocal_distance_by_the_book():
    # 50 mm, f/8, c = 0.03 mm: 50² / (8 · 0.03) + 50 mm = 10.467 m
    sharp_px = 0.03 * 1024 / 36
    hyperfocal = hyperfocal_m(Camera(8.0, 50.0), 1024, sharp_px).item()
    assert hyperfocal == pytest.approx(10.4667, rel=1e-4)
    near, far = sharp_limits_m(Focus(hyperfocal * 1.0001), Camera(8.0, 50.0), 1024, sharp_px)
    assert far.item() == math.inf
    assert near.item() == pytest.approx(hyperfocal / 2, rel=0.01)
    assert hyperfocal_m(Camera(8.0, 50.0), 1024, sharp_px, scale=2.0).item() == pytest.approx(hyperfocal / 2)
