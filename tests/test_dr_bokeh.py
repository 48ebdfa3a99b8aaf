"""Dr.Bokeh Lens: layers, their invariants, gradients, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models import (
    Camera,
    Focus,
    Layer,
    LayeredLens,
    coc_px,
    composite,
    dr_bokeh_lens,
    light,
    split_layers,
    taf_lens,
)
from lens_models.layers import layered_lens
from lens_models.layers.cuts import find_cuts
from lens_models.layers.inpaint import push_pull
from lens_models.layers.sharpen import sharpened
from lens_models.shape import ApertureShape

STOPS = (1.8, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0)


def texture(height=48, width=64, channels=3, batch=1, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, height, width, generator=random, dtype=dtype)


def figure(height=48, width=64, near_m=2.0, far_m=8.0, dtype=torch.float32):
    """A square at `near_m` before a wall at `far_m`."""
    depth = torch.full((1, height, width), far_m, dtype=dtype)
    depth[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = near_m
    return depth


def nearness(depth, focus, camera):
    return -coc_px(depth, focus, camera, depth.shape[-1])[0] / 2


# ---- where to cut


def test_a_slanted_plane_stays_whole():
    q = torch.linspace(0.1, 1.0, 256).expand(1, 64, 256)
    assert find_cuts(nearness(1 / q, Focus(2.0), Camera(1.4, 85.0)), 6) == []


def test_a_figure_on_the_ground_is_cut_off_behind():
    # ground rises away from the viewer, a figure at 2 m stands on it: there is no gap in the depths
    height, width = 96, 128
    q = torch.linspace(0.1, 0.9, height)[:, None].expand(height, width).clone()
    q[10:48, 40:80] = q[48, 0]
    focus, camera = Focus(1 / q[48, 0].item()), Camera(1.8, 85.0)
    near = nearness(1 / q[None], focus, camera)
    cuts = find_cuts(near, 6)
    assert len(cuts) == 1
    assert -1.5 < cuts[0] < 0  # just behind the figure, where the ground is nearly sharp


def test_at_most_so_many_layers():
    depth = torch.tensor([1.0, 1.5, 2.5, 5.0, 20.0]).repeat_interleave(12).expand(1, 40, 60)
    for most in (1, 2, 4, 6):
        layers = split_layers(texture(40, 60), depth, Focus(2.0), Camera(1.4, 200.0), max_layers=most)
        assert len(layers) == min(most, 5)


# ---- invariants


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([3, 4]))
def test_layers_are_the_picture_at_zero_aperture(seed, channels):
    random = torch.Generator().manual_seed(seed)
    x = texture(40, 52, channels, seed=seed)
    depth = figure(40, 52)
    depth[:, torch.rand(40, 52, generator=random) > 0.97] = 1.0  # specks in front, no two alike
    layers = split_layers(x, depth, Focus(2.0), Camera(1.4, 85.0))
    assert len(layers) >= 2
    out = composite(layers, Focus(2.0), Camera(1e9, 85.0))
    back, original = (light.linear_to_srgb(v[:, :3].clamp(0, 1)) for v in (out, x))
    assert (back - original).abs().max() <= 1 / 255


def test_constant_picture_stays_constant():
    out = dr_bokeh_lens(torch.full((1, 3, 48, 64), 0.4), figure(), Focus(2.0), Camera(1.4, 85.0))
    torch.testing.assert_close(out, torch.full_like(out, 0.4), rtol=0, atol=2e-6)  # FFT rounding, two layers


def test_one_plane_is_one_convolution():
    # without anything to hide, both lenses are the same lens
    depth, focus, camera = torch.full((1, 48, 64), 5.0), Focus(2.0), Camera(1.8, 85.0)
    a, b = (lens(texture(), depth, focus, camera) for lens in (dr_bokeh_lens, taf_lens))
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scene", ["figure", "wall", "ramp"])
def test_energy_falls_strictly_with_every_stop(scene):
    ramp = torch.linspace(1.2, 6.0, 64).expand(1, 48, 64)
    depth = {"figure": figure(), "wall": torch.full((1, 48, 64), 3.0), "ramp": ramp}[scene]
    out = dr_bokeh_lens(texture(), depth, Focus(2.0), Camera(torch.tensor(STOPS), 35.0)).double()
    energy = (out - out.mean((-2, -1), keepdim=True)).square().sum((1, 2, 3))
    assert (energy.diff() > 0).all(), energy


def test_sweep_shares_the_layers_of_its_widest_stop():
    camera = Camera(torch.tensor(STOPS), 85.0)
    swept = dr_bokeh_lens(texture(), figure(), Focus(2.0), camera)
    layers = split_layers(texture(), figure(), Focus(2.0), Camera(1.8, 85.0))
    for i in range(len(STOPS)):
        one = composite(layers, Focus(2.0), camera.part(i, i + 1))
        torch.testing.assert_close(swept[i : i + 1], one, rtol=0, atol=1e-6)


def test_rays_and_discs_agree_where_nothing_hides():
    # smooth, because rays look up between pixels and a disc of taps does not
    smooth = torch.nn.functional.interpolate(texture(12, 16), size=(48, 64), mode="bicubic")
    layers = [Layer(smooth, torch.ones(1, 1, 48, 64), torch.full((1, 48, 64), 4.0))]
    focus, camera = Focus(2.0), Camera(1.2, 135.0)
    discs, traced = composite(layers, focus, camera), composite(layers, focus, camera, rays=256)
    error = (discs - traced)[..., 8:-8, 8:-8]
    assert (discs - smooth)[..., 8:-8, 8:-8].std() > 0.1
    assert error.std() < 0.005  # 256 points turned at random per pixel


@pytest.mark.parametrize("rays", [0, 4])
def test_progress_goes_up_to_the_end_and_may_interrupt(rays):
    camera = Camera(torch.tensor(STOPS[:2]), 85.0)
    heard = []
    dr_bokeh_lens(
        texture(),
        figure(),
        Focus(2.0),
        camera,
        rays=rays,
        on_progress=lambda done, total: heard.append(done / total),
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert len(heard) >= 8

    def stop(done, total):
        if done > total / 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        dr_bokeh_lens(texture(), figure(), Focus(2.0), camera, rays=rays, on_progress=stop)


def test_rays_are_held_at_the_largest_radius():
    layers = [Layer(texture(), torch.ones(1, 1, 48, 64), torch.full((1, 48, 64), 4.0))]
    held = composite(layers, Focus(2.0), Camera(1.2, 135.0), rays=16, max_radius_px=0)
    torch.testing.assert_close(held, texture(), rtol=0, atol=1e-4)  # looked up at centres, in float32


# ---- what an artist may add


def test_plate_and_picture_may_differ_in_transparency():
    plate = torch.full((1, 3, 48, 64), 0.2)
    clear = torch.cat([plate, torch.ones(1, 1, 48, 64)], dim=1)
    lens = (Focus(8.0), Camera(1.8, 85.0))
    for x in (texture(), torch.cat([texture(), torch.ones(1, 1, 48, 64)], dim=1)):
        one, other = (dr_bokeh_lens(x, figure(), *lens, background=p) for p in (plate, clear))
        torch.testing.assert_close(one, other)


def test_a_plate_is_seen_behind_the_subject():
    plate = torch.zeros(1, 3, 48, 64)
    plate[:, 2] = 0.9
    x = texture()
    out = dr_bokeh_lens(x, figure(), Focus(8.0), Camera(1.8, 85.0), background=plate)
    without = dr_bokeh_lens(x, figure(), Focus(8.0), Camera(1.8, 85.0))
    # the blurred rim of the square lets the plate through: more blue, less of the rest
    red, green, blue = (out - without)[0, :, 12:36, 16:48].mean((1, 2))
    assert blue > 0.005 > -0.005 > max(red, green)


def test_a_subject_mask_is_its_matte():
    mask = torch.zeros(1, 48, 64)
    mask[:, 10:30, 20:40] = 1.0
    flat = torch.full((1, 48, 64), 3.0)
    layers = split_layers(texture(), flat, Focus(3.0), Camera(1.8, 85.0), subject=mask)
    assert len(layers) == 2
    assert torch.equal(layers[0].alpha[:, 0], mask)


def test_both_lenses_show_the_same_shape():
    # one plane behind the focus, then one in front: what an opening looks like does not depend on the lens
    triangle = ApertureShape("polygon", blades=3, curvature=0.0)
    light_at = torch.zeros(1, 3, 48, 64)
    light_at[..., 24, 32] = 1.0
    for depth_m in (9.0, 1.1):
        depth, focus, camera = torch.full((1, 48, 64), depth_m), Focus(2.0), Camera(1.4, 135.0)
        a, b = (lens(light_at, depth, focus, camera, shape=triangle) for lens in (dr_bokeh_lens, taf_lens))
        assert a.max() < 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="round opening"):
        dr_bokeh_lens(light_at, depth, focus, camera, shape=triangle, rays=4)


# ---- gradients


def test_gradients_reach_everything():
    leaves = {
        "radiance": texture(dtype=torch.float64),
        "depth": figure(dtype=torch.float64) + 0.01 * texture(dtype=torch.float64)[:, 0],
        "distance": torch.tensor(2.4, dtype=torch.float64),
        "scale": torch.tensor(1.0, dtype=torch.float64),
        "f_number": torch.tensor(2.0, dtype=torch.float64),
        "focal": torch.tensor(85.0, dtype=torch.float64),
    }
    leaves = {name: value.requires_grad_() for name, value in leaves.items()}

    def loss(v):
        focus, camera = Focus(v["distance"], v["scale"]), Camera(v["f_number"], v["focal"])
        out = dr_bokeh_lens(v["radiance"], v["depth"], focus, camera)
        return (out * texture(seed=7, dtype=torch.float64)).sum()

    loss(leaves).backward()
    for name, value in leaves.items():
        assert torch.isfinite(value.grad).all(), name
        assert (value.grad != 0).any(), name
    # the settings against central differences: cuts and mattes do not move over so small a step
    for name in ("distance", "scale", "f_number", "focal"):
        step = 1e-5 * leaves[name].item()
        with torch.no_grad():
            plus = loss({**leaves, name: leaves[name] + step})
            minus = loss({**leaves, name: leaves[name] - step})
        assert leaves[name].grad.item() == pytest.approx(((plus - minus) / (2 * step)).item(), rel=1e-3), name


def test_gradients_are_finite_with_sky():
    depth = figure(far_m=math.inf).requires_grad_()
    out = dr_bokeh_lens(texture(), depth, Focus(2.5), Camera(2.0, 85.0))
    (out * texture(seed=7)).sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad[torch.isfinite(depth)] != 0).any()


# ---- bad input


@pytest.mark.parametrize("value", [math.nan, 0.0, -2.0, math.inf])
def test_bad_depth_never_becomes_nan(value):
    depth = figure()
    depth[:, 5:15, 5:25] = value
    out = dr_bokeh_lens(texture(), depth, Focus(2.0), Camera(2.8, 50.0), max_radius_px=20)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (1, 9)])
def test_tiny_pictures(height, width):
    out = dr_bokeh_lens(
        texture(height, width), torch.full((1, height, width), 3.0), Focus(1.0), Camera(1.4, 85.0)
    )
    assert out.shape == (1, 3, height, width)
    assert torch.isfinite(out).all()


def test_batches_and_alpha():
    x = texture(channels=4, batch=3)
    x[:, :3] *= x[:, 3:]
    out = dr_bokeh_lens(x, figure(), Focus(2.0), Camera(2.0, 85.0))
    assert out.shape == x.shape
    assert (out[:, 3] >= -1e-4).all()
    assert (out[:, 3] <= 1 + 1e-4).all()
    with pytest.raises(ValueError, match="3 pictures do not go with 8 cameras"):
        dr_bokeh_lens(x, figure(), Focus(2.0), Camera(torch.tensor(STOPS), 85.0))


def test_refusals():
    with pytest.raises(ValueError, match="subject is"):
        dr_bokeh_lens(texture(), figure(), Focus(2.0), Camera(2.0, 85.0), subject=torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match="max_radius_px is -1"):
        dr_bokeh_lens(texture(), figure(), Focus(2.0), Camera(2.0, 85.0), max_radius_px=-1)
    with pytest.raises(ValueError, match=r"depth is \(48, 64\) and the picture"):
        dr_bokeh_lens(texture(), figure()[0], Focus(2.0), Camera(2.0, 85.0))
    with pytest.raises(ValueError, match="max_layers is 0"):
        dr_bokeh_lens(texture(), figure(), Focus(2.0), Camera(2.0, 85.0), max_layers=0)


# ---- parts


def test_push_pull_keeps_what_is_known_and_fills_smoothly():
    x = texture(33, 47)
    weight = (texture(33, 47, 1, seed=3) > 0.4).float()
    filled = push_pull(x, weight)
    known = weight.bool().expand_as(x)
    torch.testing.assert_close(filled[known], x[known])
    assert filled.min() >= x.min() - 1e-6
    assert filled.max() <= x.max() + 1e-6
    flat = push_pull(torch.full((1, 3, 33, 47), 0.3), weight)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_soft_depth_edges_become_hard_along_the_picture():
    hard = 1.0 / figure(64, 96)[0]
    kernel = torch.exp(-0.5 * (torch.arange(-6.0, 7.0) / 1.5) ** 2)
    kernel = kernel / kernel.sum()
    soft = torch.nn.functional.pad(hard[None, None], (6,) * 4, mode="replicate")
    soft = torch.nn.functional.conv2d(soft, kernel.view(1, 1, 1, -1))
    soft = torch.nn.functional.conv2d(soft, kernel.view(1, 1, -1, 1))[0, 0]
    picture = torch.where(hard > 0.3, 0.8, 0.1).expand(3, -1, -1) + 0.05 * texture(64, 96)[0]
    again = sharpened(picture, soft, 30.0)
    wrong = ((again > 0.3) != (hard > 0.3)).float().mean()
    assert wrong < 0.002
    between = ((again - hard).abs() > 0.1 * (hard.max() - hard.min())).float().mean()
    assert between < 0.005
    assert torch.equal(sharpened(picture, hard, 30.0), hard)
    slope = torch.linspace(0.1, 1.0, 96).expand(64, 96)
    assert torch.equal(sharpened(picture, slope, 30.0), slope)


def test_a_lens_keeps_the_layers_of_its_scene(monkeypatch):
    """One split for all apertures of a focus, in a row or one call after the other; equal frames share it."""
    splits = []
    real = layered_lens.split_layers
    monkeypatch.setattr(layered_lens, "split_layers", lambda *a, **k: splits.append(a) or real(*a, **k))
    x, depth, camera = texture(), figure(), Camera(torch.tensor(STOPS), 85.0)
    lens = LayeredLens(x, depth)
    swept = lens.photograph(Focus(2.0), camera)
    assert len(splits) == 1
    assert torch.equal(swept, dr_bokeh_lens(x, depth, Focus(2.0), camera))
    del splits[:]
    again = [lens.photograph(Focus(2.0), Camera(n, 85.0)) for n in STOPS]
    assert torch.equal(torch.cat(again), swept)
    assert not splits
    lens.photograph(Focus(2.0), Camera(min(STOPS) / 2, 85.0))
    assert len(splits) == 1, "a wider aperture shows steps that did not matter before"
    lens.photograph(Focus(torch.tensor([3.0, 3.0, 2.0])), Camera(4.0, 85.0))
    assert len(splits) == 3, "two focus distances in a row"
    del splits[:]
    frames = LayeredLens(torch.cat([x, x, x.flip(-1)]), depth)
    assert frames.photograph(Focus(2.0), Camera(2.0, 85.0)).shape[0] == 3
    assert len(splits) == 2, "two of the frames are alike"
