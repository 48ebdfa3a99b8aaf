"""The oracle itself, against closed forms. It must not lean on `lens_models`, so nothing here does.

Each tolerance stands beside the Monte-Carlo scatter it covers, measured over 6 to 8 seeds.
"""

import itertools

import numpy as np
import pytest
from optics.scenes import slant
from optics.score import psnr_srgb

from tools.canvas import Canvas
from tools.raytrace import (
    Scene,
    ThinLens,
    all_in_focus,
    depth_metres,
    hit,
    render,
    sample_points,
    trace,
    trace_metres,
)

LENS = ThinLens(focal_mm=85.0, f_number=2.0, focus_m=1.5)
SIZE = 64
PITCH_SENSOR = 36.0 * SIZE / 512  # a 64-px cut of a 512-px full frame: same pixels, fewer of them


def cut(f_number=2.0, focus_m=1.5):
    return ThinLens(85.0, f_number, focus_m, PITCH_SENSOR)


def radius(depth_m, lens=LENS, width=512):
    """Radius of the blur circle from similar triangles behind the lens, in metres, then pixels."""
    focal = lens.focal_mm / 1000
    image = 1 / (1 / focal - 1 / depth_m) if np.isfinite(depth_m) else focal
    return abs(lens.image_distance_m - image) / image * lens.aperture_radius_m / lens.pixel_m(width)


def spot_scene(plane, centres=((31.5, 31.5),), sigma=1.5, size=SIZE):
    canvas = Canvas(size, size, margin=20)
    field = sum(canvas.spot(x, y, sigma) for x, y in centres)
    return Scene("spot", (canvas.layer(plane, np.repeat(field[..., None], 3, -1)),), size, size)


def variance(picture):
    """Second moment of the light about its centroid, per axis (x, y), px²."""
    light = picture.sum(-1)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    return [float((light * (v - (light * v).sum() / light.sum()) ** 2).sum() / light.sum()) for v in (x, y)]


# ---- rays in space ----------------------------------------------------------------------------------
def plane_in_space(plane, lens, width, height):
    """q = a + b x + c y of the picture as n . P = 1 in metres (x = centre + v X / Z)."""
    a, b, c = plane
    v = lens.image_distance_px(width)
    return b * v, c * v, a + b * (width - 1) / 2 + c * (height - 1) / 2


@pytest.mark.parametrize(
    "plane",
    [(0.25, 0, 0), (1.1, 0, 0), (1 / 1.5, 0, 0), (0.2, 1e-3, -4e-4), (1.0, -1e-3, 8e-4)],
    ids=["behind", "in front", "in focus", "slanted behind", "slanted through focus"],
)
def test_picture_form_equals_real_rays(plane):
    """Bent at the lens and cut with a plane in metres: the same point as the one-line form, to rounding."""
    width, height = 512, 384
    random = np.random.default_rng(0)
    on_lens = np.stack(sample_points(50)[:2], axis=1)
    canvas = Canvas(2, 2, margin=1)
    layer = canvas.layer(plane, np.zeros(3))
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    normal = plane_in_space(plane, LENS, width, height)
    for u in on_lens:
        pixel = random.random(2) * (width - 1, height - 1)
        at_lens = u * LENS.aperture_radius_m
        sensor = -(pixel - centre) * LENS.pixel_m(width)
        point = trace_metres(LENS, sensor, at_lens, normal)
        seen = point[:2] / point[2] * LENS.image_distance_px(width) + centre
        shift = at_lens / LENS.aperture_radius_m * LENS.shift_px(width)
        x, y, q, met = hit(layer, *pixel, *shift, LENS.focus_m)
        np.testing.assert_allclose((x, y), seen, rtol=0, atol=1e-9)
        assert q == pytest.approx(1 / point[2], rel=1e-12)
        assert met is None or met


def test_all_rays_of_a_pixel_meet_at_the_focus_distance():
    normal = (0.0, 0.0, 1 / LENS.focus_m)
    points = [
        trace_metres(LENS, (0.004, -0.002), (a, b), normal) for a, b in ((0, 0), (0.02, 0), (-0.01, 0.015))
    ]
    np.testing.assert_allclose(points, [points[0]] * 3, rtol=0, atol=1e-12)


def test_worked_circle_of_confusion():
    """85 mm f/2 at 1.5 m, a point at 4 m, 512 px over 36 mm: 22.6934 px (spec/lens.md section 1)."""
    assert 2 * radius(4.0) == pytest.approx(22.6934, abs=5e-5)
    layer = Canvas(2, 2, margin=1).layer((0.25, 0, 0), np.zeros(3))
    rim = LENS.shift_px(512)
    left, right = (hit(layer, 100.0, 50.0, s, 0.0, LENS.focus_m)[0] for s in (rim, -rim))
    assert abs(right - left) == pytest.approx(22.6934, abs=5e-5)
    assert radius(np.inf) == pytest.approx(18.1547, abs=5e-5)
    assert LENS.shift_px(512) == pytest.approx(radius(np.inf), rel=1e-12)


# ---- sampling ---------------------------------------------------------------------------------------
def test_lens_points_fill_the_disc_evenly():
    x, y, *pixel = sample_points(1024)
    r = np.hypot(x, y)
    assert r.max() <= 1.0
    # random points would scatter by 1/sqrt(1024) = 3e-2
    for moment, disc in ((x, 0), (y, 0), (x * y, 0), (x * x, 0.25), (y * y, 0.25), (r**4, 1 / 3)):
        assert np.mean(moment) == pytest.approx(disc, abs=1e-3)
    for inner in (0.25, 0.5, 0.75):
        assert np.mean(r < inner) == pytest.approx(inner**2, abs=1e-3)
    for offset in pixel:
        counts, _ = np.histogram(offset, bins=16, range=(0, 1))
        assert abs(counts - 64).max() <= 4  # random points would scatter by 8


def test_same_seed_same_picture():
    scene, lens = spot_scene((0.25, 0, 0), size=24), cut()
    first = trace(scene, lens, 16, seed=3)
    assert np.array_equal(first, trace(scene, lens, 16, seed=3))
    assert not np.array_equal(first, trace(scene, lens, 16, seed=4))


def test_two_seeds_agree_and_more_rays_help():
    """A textured slanted plane: two seeds agree to 60 dB at 512 rays (seen: 60.9 to 61.1)."""
    scene, lens = slant()
    few = [trace(scene, lens, 128, seed) for seed in (0, 1)]
    many = [trace(scene, lens, 512, seed) for seed in (0, 1)]
    assert psnr_srgb(*many) >= 60.0
    # four times the rays: random points would gain 6.0 dB, evenly spread ones gain 10.4
    assert psnr_srgb(*many) - psnr_srgb(*few) >= 9.0


# ---- blur against closed forms ------------------------------------------------------------------------
def disc_edge_spread(t, r):
    t = np.clip(t, -r, r)
    return 0.5 + (t * np.sqrt(r**2 - t**2) / r**2 + np.arcsin(t / r)) / np.pi


def box(width, count=33):
    """Points that average over a box of this width."""
    return ((np.arange(count) + 0.5) / count - 0.5) * width


@pytest.mark.parametrize(("depth_m", "f_number"), [(4.0, 2.0), (1.0, 2.0), (4.0, 5.6)])
def test_edge_spread_of_a_half_plane(depth_m, f_number):
    lens = cut(f_number)
    r = radius(depth_m, lens, SIZE)
    canvas = Canvas(32, SIZE, margin=20)
    edge = canvas.half_plane(31.5, soft_px=1e-9)  # drawn as a ramp between the texels at 31.25 and 31.75
    scene = Scene("edge", (canvas.layer((1 / depth_m, 0, 0), np.repeat(edge[..., None], 3, -1)),), 32, SIZE)
    profile = trace(scene, lens, 1024, seed=1)[..., 0].mean(0)
    # the analytic disc, seen by pixels 1 px wide and drawn with texels 1/2 px wide
    offset = (box(1.0)[:, None] + box(0.5)).reshape(-1, 1)
    expected = disc_edge_spread(np.arange(SIZE) - 31.5 + offset, r).mean(0)
    # largest deviation over the profile, any seed: 1.0e-3
    np.testing.assert_allclose(profile, expected, rtol=0, atol=2e-3)
    if r > 8:  # there the two boxes matter less than the noise: the plain formula holds as well
        np.testing.assert_allclose(profile, disc_edge_spread(np.arange(SIZE) - 31.5, r), rtol=0, atol=3e-3)


@pytest.mark.parametrize("depth_m", [4.0, 2.2, 1.0], ids=["behind", "just behind", "in front"])
def test_spot_has_the_variance_of_a_disc(depth_m):
    """A disc of radius r adds r²/4 per axis. Seeds scatter by 0.12 to 0.16 % of variance; 1 % is allowed."""
    r = radius(depth_m, cut(), SIZE)
    truth, aif, _ = render(spot_scene((1 / depth_m, 0, 0)), cut(), rays=512, seed=2)
    for blurred, sharp in zip(variance(truth), variance(aif), strict=True):
        assert blurred - sharp == pytest.approx(r**2 / 4, rel=1e-2)
        assert 4 * np.sqrt(blurred - sharp) == pytest.approx(2 * r, rel=5e-3)


@pytest.mark.parametrize("depth_m", [4.0, 1.0, np.inf])
def test_energy_is_conserved(depth_m):
    """A spot whose whole disc lies in the frame keeps its light. Seeds scatter by 4e-4 to 8e-4."""
    scene = spot_scene((0.0 if np.isinf(depth_m) else 1 / depth_m, 0, 0))
    truth, aif, _ = render(scene, cut(), rays=1024, seed=3)
    assert truth.sum() == pytest.approx(aif.sum(), rel=3e-3)


def test_the_picture_of_a_flat_colour_is_that_colour():
    canvas = Canvas(16, 16, margin=20)
    scene = Scene("flat", (canvas.layer((0.1, 2e-4, 1e-4), (0.2, 0.5, 7.0)),), 16, 16)
    np.testing.assert_allclose(
        trace(scene, cut(), 32), np.broadcast_to((0.2, 0.5, 7.0), (16, 16, 3)), rtol=1e-12
    )


def test_smaller_aperture_smaller_disc():
    scene = spot_scene((0.25, 0, 0))
    sharp = variance(all_in_focus(scene))[0]
    spread = [variance(trace(scene, cut().at(n), 256))[0] - sharp for n in (2.0, 4.0, 8.0)]
    for wide, narrow in itertools.pairwise(spread):
        assert wide / narrow == pytest.approx(4.0, rel=2e-2)  # a quarter of r²/4; seeds: 0.5 %


# ---- focus, sky, slant ----------------------------------------------------------------------------------
def test_the_focused_plane_stays_sharp():
    """No lens point moves a focused plane: only the pixel's own area is sampled (noise, not blur)."""
    canvas = Canvas(SIZE, SIZE, margin=4)  # blur would leave this margin and raise
    scene = Scene(
        "sharp", (canvas.layer((1 / 1.5, 0, 0), canvas.noise(7)[..., None] * np.ones(3)),), SIZE, SIZE
    )
    truth, aif, _ = render(scene, cut(), rays=256, seed=4)
    np.testing.assert_allclose(truth, aif, rtol=0, atol=5e-3)  # 256 points in a pixel: 2.8e-3 at worst
    assert psnr_srgb(truth, aif) > 67.0  # seeds: 69.1 to 69.5
    # at pixel centres there is no noise left at all
    np.testing.assert_allclose(
        trace(scene, cut(), 8, pixel=0.0), all_in_focus(scene, grid=1), rtol=0, atol=1e-12
    )


def test_a_focused_occluder_keeps_a_hard_edge():
    canvas = Canvas(32, SIZE, margin=20)
    subject = canvas.layer((1 / 1.5, 0, 0), (0.0, 0.0, 0.0), canvas.half_plane(31.25, soft_px=1e-9))
    behind = canvas.layer((0.25, 0, 0), (0.8, 0.8, 0.8))
    truth, aif, _ = render(Scene("hard", (subject, behind), 32, SIZE), cut(), rays=256, seed=5)
    np.testing.assert_allclose(truth, aif, rtol=0, atol=5e-3)  # sampling of the one pixel the edge crosses
    assert truth[:, 33:].max() < 1e-12
    np.testing.assert_allclose(truth[:, :30], 0.8, rtol=1e-12)


def test_sky_is_the_limit_of_far_away():
    sky, far = (spot_scene((q, 0, 0)) for q in (0.0, 1e-9))
    np.testing.assert_allclose(trace(sky, cut(), 64), trace(far, cut(), 64), rtol=0, atol=1e-7)
    assert np.isinf(depth_metres(sky)).all()
    blurred, sharp = variance(trace(sky, cut(), 512))[0], variance(all_in_focus(sky))[0]
    assert blurred - sharp == pytest.approx(radius(np.inf, cut(), SIZE) ** 2 / 4, rel=1e-2)


def test_each_place_of_a_slanted_plane_has_its_own_disc():
    """Spots on a tilted plane have the diameter of the local circle. Seeds and tilt together: 0.12 %."""
    lens = cut(f_number=4.0)
    plane = (0.2, 1.5e-3, 0.0)
    for x in (16.0, 46.0):
        scene = spot_scene(plane, centres=((x, 31.5),))
        truth, aif, _ = render(scene, lens, rays=512, seed=6)
        q = plane[0] + plane[1] * x
        for blurred, sharp in zip(variance(truth), variance(aif), strict=True):
            assert 4 * np.sqrt(blurred - sharp) == pytest.approx(2 * radius(1 / q, lens, SIZE), rel=1e-2)


# ---- layers ----------------------------------------------------------------------------------------------
def test_layers_compose_front_to_back():
    canvas = Canvas(16, 16, margin=20)
    front, middle, back = (
        canvas.layer((1.0, 0, 0), (1.0, 0.0, 0.0), 0.25),
        canvas.layer((0.5, 0, 0), (0.0, 1.0, 0.0), 0.5),
        canvas.layer((0.1, 0, 0), (0.0, 0.0, 4.0)),
    )
    truth = trace(Scene("over", (front, middle, back), 16, 16), cut(), 16)
    expected = (0.25, 0.75 * 0.5, 0.75 * 0.5 * 4.0)
    np.testing.assert_allclose(truth, np.broadcast_to(expected, truth.shape), rtol=1e-12)


def test_depth_is_the_nearest_layer_that_covers_half():
    canvas = Canvas(16, 16, margin=2)
    near = canvas.layer((1.0, 0, 0), np.ones(3), np.where(canvas.x < 7.5, 0.6, 0.4))
    back = canvas.layer((0.125, 0, 0), np.ones(3))
    depth = depth_metres(Scene("depth", (near, back), 16, 16))
    assert (depth[:, :8] == 1.0).all()
    assert (depth[:, 8:] == 8.0).all()


def test_a_ground_plane_ends_at_its_horizon():
    canvas = Canvas(32, 16, margin=20)
    ground = canvas.layer((-0.155, 0.0, 0.01), (0.0, 1.0, 0.0))  # horizon at y = 15.5
    sky = canvas.layer((0.0, 0, 0), (0.0, 0.0, 1.0))
    truth, aif, depth = render(Scene("ground", (ground, sky), 32, 16), cut(16.0), rays=32)
    np.testing.assert_allclose(truth[:12], np.broadcast_to((0, 0, 1), (12, 16, 3)), atol=1e-12)
    np.testing.assert_allclose(aif[20:], np.broadcast_to((0, 1, 0), (12, 16, 3)), atol=1e-12)
    assert np.isinf(depth[:16]).all()
    np.testing.assert_allclose(depth[31], 1 / 0.155)


def test_content_that_is_not_there_is_not_invented():
    canvas = Canvas(16, 16, margin=3)
    scene = Scene("tight", (canvas.layer((0.1, 0, 0), np.ones(3)),), 16, 16)
    with pytest.raises(ValueError, match="margin of 3 px is too small"):
        trace(scene, cut(), 64)
