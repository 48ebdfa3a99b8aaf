"""A leaning plane of sharp focus: against explicit geometry, in the lenses, limits and gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from optics.tilted_lens import depth_of_plane, directions, normal

from lens_models import Camera, Focus, Layer, coc_px, composite, dr_bokeh_lens, split_layers, taf_lens
from lens_models.camera import lean_px

HEIGHT, WIDTH = 36, 48
ANGLES = st.floats(-85.0, 85.0)


def rays_of(camera, height=HEIGHT, width=WIDTH):
    return directions(camera.fx_px(width).item(), height, width)


def plane_depth(plane, c, camera, height=HEIGHT, width=WIDTH):
    """Z of the plane n . P = c at every pixel, +inf where it is not ahead, `(1, H, W)` float64."""
    return torch.from_numpy(depth_of_plane(plane, c, rays_of(camera, height, width)))[None]


def texture(height=HEIGHT, width=WIDTH, seed=0, dtype=torch.float64):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- the blur against geometry


@given(ANGLES, ANGLES, st.floats(0.4, 20.0), st.floats(1.2, 16.0), st.floats(20.0, 120.0))
def test_the_plane_itself_is_sharp(tilt, swing, distance, f_number, focal):
    camera = Camera(f_number, focal)
    depth = plane_depth(normal(tilt, swing), distance, camera)
    ahead = torch.isfinite(depth)
    coc = coc_px(depth, Focus(distance, 1.0, tilt, swing), camera, WIDTH)
    # float64 rounding of the blur that is cancelled
    scale = coc_px(torch.full_like(depth, math.inf), Focus(distance), camera, WIDTH).abs().max()
    steep = 1.0 + np.abs(normal(tilt, swing)).max()
    assert coc[ahead].abs().max() <= 1e-12 * scale * steep
    # where the plane is behind the camera everything is in front of it, sky included
    assert (coc[~ahead] <= 1e-12 * scale * steep).all()
    assert torch.isfinite(coc).all()


@given(ANGLES.filter(bool), ANGLES, st.floats(0.4, 20.0), st.floats(0.3, 30.0))
def test_linear_in_inverse_depth_and_as_steep_as_upright(tilt, swing, distance, depth_m):
    camera, focus = Camera(2.0, 50.0), Focus(distance, 1.0, tilt, swing)
    depth = torch.full((1, HEIGHT, WIDTH), depth_m, dtype=torch.float64)
    sky = torch.full_like(depth, math.inf)
    lean = lean_px(depth, focus, camera, WIDTH)
    change = coc_px(depth, focus, camera, WIDTH) - coc_px(sky, focus, camera, WIDTH)
    upright = coc_px(depth, Focus(distance), camera, WIDTH) - coc_px(sky, Focus(distance), camera, WIDTH)
    # float64 rounding of the largest number on the way
    atol = 1e-12 * (1.0 + upright.abs().max().item() + lean.abs().max().item())
    torch.testing.assert_close(change, upright, rtol=1e-9, atol=atol)
    # affine in the picture, zero in its middle
    for axis in (-2, -1):
        torch.testing.assert_close(
            lean.diff(dim=axis).diff(dim=axis), torch.zeros_like(lean.diff(n=2, dim=axis)), rtol=0, atol=atol
        )
    assert lean.mean().abs() <= atol


@given(
    st.floats(-80, 80), st.floats(-80, 80), st.floats(1, 10), st.floats(0.5, 20),
    st.floats(-0.3, 0.3), st.floats(-0.2, 0.2),
)  # fmt: skip
def test_the_cone_of_light_cut_with_the_plane(tilt, swing, distance, depth_m, x, y):
    """Rays in space from the rim of the opening through a point, cut with the plane, seen from the centre."""
    camera, focus = Camera(2.0, 50.0), Focus(distance, 1.0, tilt, swing)
    fx, plane, rim_m = camera.fx_px(WIDTH).item(), normal(tilt, swing), 0.05 / 2.0 / 2.0
    column, row = round(x * fx + WIDTH / 2 - 0.5), round(y * fx + HEIGHT / 2 - 0.5)
    column, row = min(max(column, 0), WIDTH - 1), min(max(row, 0), HEIGHT - 1)
    towards = rays_of(camera)[row, column]
    assume(towards @ plane > 0.05)  # else not every ray of the cone meets the plane ahead
    point = towards * depth_m
    across = np.array([plane[1], -plane[0], 0.0])
    across = across / np.linalg.norm(across) if np.linalg.norm(across) > 1e-9 else np.array([1.0, 0.0, 0.0])
    along = np.array([-across[1], across[0], 0.0])
    # eq. 6 is measured on the sensor, which stands farther from the lens than the focal length
    larger = 1.0 / (1.0 - 0.05 / distance)
    found = coc_px(torch.full((1, HEIGHT, WIDTH), depth_m, dtype=torch.float64), focus, camera, WIDTH)
    found = found[0, row, column].item()
    # across the lean the blur is that of the cone; along it the cone is wider, by (rim / hinge)²
    for direction, wider in ((across, 0.0), (along, (rim_m / distance) ** 2 * (plane[:2] @ plane[:2]))):
        ends = []
        for side in (rim_m, -rim_m):
            start = side * direction
            ray = point - start
            met = start + ray * (distance - plane @ start) / (plane @ ray)
            ends.append(met[:2] / met[2])
        width_px = (ends[0] - ends[1]) @ direction[:2] * fx * larger
        # float64 rounding where the point lies almost on the plane
        assert width_px == pytest.approx(found / (1.0 - wider), rel=1e-6, abs=1e-9)


# ---- the lenses


def test_a_floor_in_the_plane_is_one_sharp_layer():
    """Upright, the same floor is blurred at both ends; leaning along it, nothing changes at any depth."""
    camera, tilt, distance = Camera(0.7, 50.0), 70.0, 2.0
    depth = plane_depth(normal(tilt, 0.0), distance, camera)
    assert torch.isfinite(depth).all()
    assert depth.amax() / depth.amin() > 3.0
    x, focus = texture(dtype=torch.float32), Focus(distance, 1.0, tilt)
    depth = depth.float()
    assert len(split_layers(x, depth, focus, camera)) == 1
    for lens in (taf_lens, dr_bokeh_lens):
        # float32: radii of 1e-6 px are left
        torch.testing.assert_close(lens(x, depth, focus, camera), x, rtol=0, atol=1e-5)
        assert (lens(x, depth, Focus(distance), camera) - x).abs().max() > 0.1


def test_what_stands_on_the_floor_is_cut_off_it():
    """A post on a floor that is sharp all over: the post alone is another layer, though it spans no depth
    that the floor does not."""
    camera, tilt, distance, width, height = Camera(1.4, 85.0), 75.0, 2.0, 160, 120
    floor = plane_depth(normal(tilt, 0.0), distance, camera, height, width)
    post = torch.zeros(1, height, width, dtype=torch.bool)
    post[:, 10:90, 60:90] = True
    depth = torch.where(post, floor[0, 90, 0], floor).float()
    x, focus = texture(height, width, dtype=torch.float32), Focus(distance, 1.0, tilt)
    layers = split_layers(x, depth, focus, camera)
    assert len(layers) == 2
    assert ((layers[0].alpha[:, 0] > 0.5) == post).float().mean() > 0.97  # its foot is sharp: no seam there
    out = dr_bokeh_lens(x, depth, focus, camera)
    far = torch.ones(height, width, dtype=torch.bool)
    far[:100, 40:110] = False
    torch.testing.assert_close(out[..., far], x[..., far], rtol=0, atol=1e-4)
    top = (slice(None), slice(None), slice(14, 30), slice(66, 84))
    assert out[top].var() < 0.3 * x[top].var()


@pytest.mark.parametrize("rays", [0, 8])
@pytest.mark.parametrize("zero", [0, -0.0, torch.zeros(1)])
def test_no_angle_changes_no_bit(zero, rays):
    depth = 1.0 + 4.0 * texture(seed=3, dtype=torch.float32)[:, 0]
    x, camera, leaning = texture(dtype=torch.float32), Camera(2.0, 85.0), Focus(2.0, 1.1, zero, zero)
    upright = Focus(2.0, 1.1)
    assert torch.equal(coc_px(depth, leaning, camera, WIDTH), coc_px(depth, upright, camera, WIDTH))
    assert torch.equal(taf_lens(x, depth, leaning, camera), taf_lens(x, depth, upright, camera))
    if not isinstance(zero, torch.Tensor) or not rays:
        bokeh = [dr_bokeh_lens(x, depth, focus, camera, rays=rays) for focus in (leaning, upright)]
        assert torch.equal(*bokeh)


@given(ANGLES, ANGLES, st.sampled_from([-1.0, 0.0, 0.02, 0.5, 3.0, 1e4, math.inf]))
def test_nothing_is_ever_nan(tilt, swing, distance):
    depth = torch.tensor([math.nan, 0.0, 0.3, 2.0, 1e6, math.inf]).repeat(4, 8)[None]
    coc = coc_px(depth, Focus(distance, 1.0, tilt, swing), Camera(1.4, 50.0), 48)
    assert torch.isfinite(coc).all()


def test_past_the_horizon_of_the_plane_everything_is_blurred():
    x, camera = texture(), Camera(1.4, 24.0)
    depth = torch.full((1, HEIGHT, WIDTH), math.inf, dtype=torch.float64)
    focus = Focus(0.5, 1.0, 0.0, 80.0)
    coc = coc_px(depth, focus, camera, WIDTH)
    assert (
        coc[0, 0, 0] > 0 > coc[0, 0, -1]
    )  # left: sky behind the plane; right: the plane is behind the camera
    for lens in (taf_lens, dr_bokeh_lens):
        out = lens(x, depth, focus, camera)
        assert torch.isfinite(out).all()
        assert out[..., -6:].var() < 0.5 * x[..., -6:].var()


def test_the_picture_s_size_does_not_change_the_plane():
    focus, camera = Focus(1.5, 1.0, 50.0, -35.0), Camera(2.0, 35.0, 23.5)
    fine, coarse = (torch.full((1, 30 * k, 40 * k), 3.0, dtype=torch.float64) for k in (3, 1))
    # the centre of a block of 3 × 3 is the centre of the pixel it becomes; px are a third as large
    same = coc_px(fine, focus, camera, 120)[:, 1::3, 1::3] / 3.0
    torch.testing.assert_close(same, coc_px(coarse, focus, camera, 40), rtol=1e-12, atol=1e-12)


# ---- settings


def test_batches_of_angles():
    tilts = torch.tensor([0.0, 30.0, -60.0])
    focus = Focus(2.0, 1.0, tilts, 10.0)
    assert focus.batch == 3
    assert focus.part(1, 3).tilt_deg.tolist() == [30.0, -60.0]
    assert focus.part(1, 3).swing_deg == 10.0
    x, depth, camera = texture(dtype=torch.float32), torch.full((1, HEIGHT, WIDTH), 3.0), Camera(2.0, 50.0)
    for lens in (taf_lens, dr_bokeh_lens):
        together = lens(x, depth, focus, camera)
        for i in range(3):
            alone = lens(x, depth, Focus(2.0, 1.0, tilts[i].item(), 10.0), camera)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)  # float32, other chunks
    with pytest.raises(ValueError, match=r"2 .* 3 "):
        Focus(torch.tensor([1.0, 2.0]), 1.0, tilts)


@pytest.mark.parametrize(
    ("angles", "sentence"),
    [
        ({"tilt_deg": 86.0}, r"tilt of 86° to one side: it can lean 85° at most"),
        ({"swing_deg": torch.tensor([10.0, -90.0])}, r"swing of 90°"),
        ({"tilt_deg": math.nan}, r"tilt is not a number"),
        ({"swing_deg": "10"}, r"swing must be a number, not str"),
        ({"tilt_deg": math.inf}, r"tilt of inf°"),
    ],
)
def test_impossible_angles(angles, sentence):
    with pytest.raises(ValueError, match=sentence):
        Focus(2.0, **angles)


def test_leaning_keeps_the_distance():
    focus = Focus(2.0, 1.2)
    assert focus.leaning(0.0, 0) is focus
    turned = focus.leaning(30.0, -5.0)
    assert (turned.distance_m, turned.scale, turned.tilt_deg, turned.swing_deg) == (2.0, 1.2, 30.0, -5.0)
    assert focus.upright
    assert not turned.upright


# ---- gradients


def leaves(*values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


def test_gradcheck_of_the_blur():
    depth = 0.8 + 3.0 * texture(5, 6)[:, 0]

    def blur(depth, distance, scale, tilt, swing, f_number, focal):
        focus = Focus(distance, scale, tilt, swing)
        return coc_px(depth, focus, Camera(f_number, focal), 6), lean_px(depth, focus, Camera(2.0, focal), 6)

    inputs = [depth.requires_grad_(), *leaves(2.0, 1.1, 40.0, -25.0, 2.0, 50.0)]
    assert torch.autograd.gradcheck(blur, inputs)


def test_gradient_at_no_angle_is_not_zero():
    tilt, swing = leaves(0.0, 0.0)
    depth = torch.full((1, 4, 6), 3.0, dtype=torch.float64)
    coc = coc_px(depth, Focus(2.0, 1.0, tilt, swing), Camera(2.0, 50.0), 6)
    coc[0, 3, 5].backward()
    assert tilt.grad > 0 > swing.grad  # below the middle the plane comes nearer, on the right it recedes


@pytest.mark.parametrize("rays", [None, 0, 5])
def test_gradcheck_of_the_lenses(rays):
    """TAF Lens, layers scattered, layers traced, by angles and distance; no radius lies on a kink."""
    x = texture(7, 8)
    depth = 1.2 + 2.0 * texture(7, 8, seed=1)[:, 0]
    layers = [
        Layer(x, texture(7, 8, seed=2)[:, :1], depth),
        Layer(x.flip(1), torch.ones_like(x[:, :1]), depth + 1),
    ]
    camera = Camera(2.8, 50.0, 8 / 20)  # 20 px per mm

    def lens(tilt, swing, distance):
        focus = Focus(distance, 1.0, tilt, swing)
        if rays is None:
            return taf_lens(x, depth, focus, camera, engine="stack")
        return composite(layers, focus, camera, rays=rays)

    # tolerances of the lens's own gradcheck, tests/test_taf.py
    assert torch.autograd.gradcheck(lens, leaves(70.0, -65.0, 2.0), eps=1e-7, atol=1e-4, rtol=1e-3)
