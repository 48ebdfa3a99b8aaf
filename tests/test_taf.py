"""TAF Lens: contracts, invariants, gradients, bad input."""

import math

import pytest
import torch

from lens_models import Camera, Focus, coc_px, taf_lens

STOPS = (1.8, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0)


def picture(height=48, width=64, channels=3, batch=1, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, height, width, generator=random, dtype=dtype)


def ramp(height=48, width=64, near_m=1.0, far_m=6.0, dtype=torch.float32):
    return torch.linspace(near_m, far_m, width, dtype=dtype).expand(1, height, width).clone()


def energy(x):
    return (x - x.mean((-2, -1), keepdim=True)).double().square().sum((1, 2, 3))


def test_sharp_at_the_focal_plane():
    x = picture()
    out = taf_lens(x, torch.full((1, 48, 64), 2.0), Focus(2.0), Camera(1.4, 85.0))
    assert torch.equal(out, x)


@pytest.mark.parametrize("depth_m", [2.05, 3.0, math.inf, 1.2])
def test_energy_falls_strictly_with_every_stop(depth_m):
    sweep = Camera(torch.tensor(STOPS), 35.0)
    out = taf_lens(picture(), torch.full((1, 48, 64), depth_m), Focus(2.0), sweep)
    e = energy(out)
    assert (e.diff() > 0).all(), e


def test_energy_falls_strictly_below_a_pixel():
    # radii 0.05..0.6 px, where clamped kernels tie
    sweep = Camera(torch.tensor(STOPS), 15.0)
    depth = torch.full((1, 48, 64), 4.0)
    assert coc_px(depth, Focus(2.0), sweep, 64).abs().max() < 1.0
    assert (energy(taf_lens(picture(), depth, Focus(2.0), sweep)).diff() > 0).all()


def test_uniform_depth_is_one_convolution():
    from lens_models.disc import disc_kernel

    x = picture(dtype=torch.float64)
    depth = torch.full((1, 48, 64), 4.0, dtype=torch.float64)
    focus, camera = Focus(1.5), Camera(4.0, 85.0)
    kernel = torch.from_numpy(disc_kernel(coc_px(depth, focus, camera, 64)[0, 0, 0].item() / 2))
    reach = kernel.shape[0] // 2
    padded = torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
    torch.testing.assert_close(taf_lens(x, depth, focus, camera), expected, rtol=0, atol=1e-12)


def test_resolution_covariance():
    """The same scene at twice the resolution, on the same sensor, then binned: the same picture."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(192.0), indexing="ij")
    fine = (0.5 + 0.5 * torch.sin(x / 9) * torch.cos(y / 11)).expand(1, 3, -1, -1)
    coarse = torch.nn.functional.avg_pool2d(fine, 2)
    focus, camera = Focus(2.0), Camera(1.2, 85.0)
    a = taf_lens(fine, torch.full((1, 128, 192), 5.0), focus, camera)
    b = taf_lens(coarse, torch.full((1, 64, 96), 5.0), focus, camera)
    radius = coc_px(torch.full((1, 1, 1), 5.0), focus, camera, 96).item() / 2
    assert radius > 2
    inside = slice(16, -16)
    difference = (torch.nn.functional.avg_pool2d(a, 2) - b)[..., inside, inside].abs().max()
    assert difference < 2e-3  # the kernels' fourth moments differ; measured 2e-4


def test_scale_acts_as_an_f_number():
    depth = ramp(near_m=50.0, far_m=400.0)
    a = taf_lens(picture(), depth, Focus(100.0, 0.7), Camera(2.0, 400.0))
    b = taf_lens(picture(), depth, Focus(100.0), Camera(1.4, 400.0))
    # f_s F − f against f_s (F − f): they differ by f/F = 0.4 % of the radius
    torch.testing.assert_close(a, b, rtol=0, atol=5e-3)
    assert (a - picture()).abs().max() > 0.1


def test_sweep_is_the_single_renders():
    sweep = Camera(torch.tensor(STOPS), 50.0)
    whole = taf_lens(picture(), ramp(), Focus(2.0), sweep)
    assert whole.shape == (8, 3, 48, 64)
    for i, n in enumerate(STOPS):
        one = taf_lens(picture(), ramp(), Focus(2.0), Camera(n, 50.0))
        torch.testing.assert_close(whole[i : i + 1], one, rtol=0, atol=1e-6)  # N as float32 against float64


def test_batches_broadcast():
    x4, d4 = picture(batch=4), ramp().expand(4, -1, -1)
    rack = Focus(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    camera = Camera(2.0, 50.0)
    assert taf_lens(x4, ramp(), Focus(2.0), camera).shape[0] == 4
    assert taf_lens(picture(), d4, Focus(2.0), camera).shape[0] == 4
    both = taf_lens(x4, d4, rack, camera)
    torch.testing.assert_close(both[2:3], taf_lens(x4[2:3], ramp(), Focus(3.0), camera))
    with pytest.raises(ValueError, match="4 pictures do not go with 8 cameras"):
        taf_lens(x4, ramp(), Focus(2.0), Camera(torch.tensor(STOPS), 50.0))


def test_alpha_blurs_with_the_picture():
    rgba = torch.zeros(1, 4, 48, 64)
    rgba[:, 0, 16:32, 16:32] = 0.8
    rgba[:, 3, 16:32, 16:32] = 1.0
    out = taf_lens(rgba, torch.full((1, 48, 64), 5.0), Focus(2.0), Camera(2.0, 85.0))
    soft = (out[:, 3] > 0.01) & (out[:, 3] < 0.99)
    assert soft.any()
    # the colour of a premultiplied pixel stays the subject's own: no dark fringe
    torch.testing.assert_close(out[:, 0][soft] / out[:, 3][soft], torch.full_like(out[:, 0][soft], 0.8))


def test_cap_is_the_stated_radius():
    depth, focus, camera = torch.full((1, 48, 64), math.inf), Focus(1.0), Camera(1.4, 85.0)
    assert coc_px(depth, focus, camera, 64).max() > 10
    capped = taf_lens(picture(), depth, focus, camera, max_radius_px=3.0)
    weaker = camera.replace(f_number=camera.f_number * coc_px(depth, focus, camera, 64).max().item() / 6.0)
    torch.testing.assert_close(capped, taf_lens(picture(), depth, focus, weaker), rtol=0, atol=1e-6)
    assert torch.equal(taf_lens(picture(), depth, focus, camera, max_radius_px=0), picture())


@pytest.mark.parametrize("engine", ["auto", "reference", "stack", "cpu"])
def test_every_engine_by_name(engine):
    out = taf_lens(picture(), ramp(), Focus(2.0), Camera(2.8, 50.0), engine=engine)
    exact = taf_lens(picture().double(), ramp().double(), Focus(2.0), Camera(2.8, 50.0), engine="reference")
    assert (out.double() - exact).abs().max() <= 1e-5  # design section 6; the picture's maximum is 1


def test_gradcheck():
    random = torch.Generator().manual_seed(5)
    x = torch.rand(1, 3, 7, 8, generator=random, dtype=torch.float64)
    d = 1.2 + 2 * torch.rand(1, 7, 8, generator=random, dtype=torch.float64)
    # f_d = 2 lies among the depths; no depth of this seed lies on a kink of the level mixture
    settings = [torch.tensor(v, dtype=torch.float64) for v in (2.0, 1.1, 2.8, 50.0)]
    inputs = [t.requires_grad_() for t in (x, d, *settings)]

    def lens(radiance, depth, distance, scale, f_number, focal):
        camera = Camera(f_number, focal, 8 / 20)  # 20 px per mm
        return taf_lens(radiance, depth, Focus(distance, scale), camera, engine="stack")

    assert torch.autograd.gradcheck(lens, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_gradients_reach_every_setting_of_a_batch():
    distance = torch.tensor([1.5, 2.5], requires_grad=True)
    f_number = torch.tensor([2.0, 4.0], requires_grad=True)
    out = taf_lens(picture(), ramp(), Focus(distance), Camera(f_number, 50.0))
    (out * picture(seed=9)).sum().backward()
    for grad in (distance.grad, f_number.grad):
        assert grad.shape == (2,)
        assert (grad != 0).all()
        assert torch.isfinite(grad).all()


BAD = [math.nan, 0.0, -2.0, math.inf, -math.inf]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("engine", ["stack", "cpu"])
def test_bad_depth_never_becomes_nan(value, engine):
    depth = ramp()
    depth[:, 10:20, 10:20] = value
    out = taf_lens(picture(), depth, Focus(2.0), Camera(2.8, 50.0), engine=engine)
    assert torch.isfinite(out).all()
    flat = taf_lens(picture(), torch.full_like(depth, value), Focus(2.0), Camera(2.8, 50.0), engine=engine)
    assert torch.isfinite(flat).all()


@pytest.mark.parametrize("engine", ["stack", "cpu"])
def test_bad_pixels_never_become_nan(engine):
    x = picture()
    x[0, 0, 5, 5], x[0, 1, 20, 20], x[0, 2, 30, 30] = math.nan, math.inf, -math.inf
    out = taf_lens(x, ramp(), Focus(2.0), Camera(2.8, 50.0), engine=engine)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (1, 64)])
def test_tiny_pictures(height, width):
    out = taf_lens(picture(height, width), ramp(height, width), Focus(0.5), Camera(1.0, 200.0))
    assert out.shape == (1, 3, height, width)
    assert torch.isfinite(out).all()


def test_half_precision_pictures():
    out = taf_lens(picture().half(), ramp().half(), Focus(2.0), Camera(2.8, 50.0))
    assert out.dtype == torch.float32
    torch.testing.assert_close(
        out, taf_lens(picture(), ramp(), Focus(2.0), Camera(2.8, 50.0)), rtol=0, atol=5e-3
    )


def test_focus_closer_than_the_lens_can():
    camera = Camera(2.0, 50.0)
    limit = taf_lens(picture(), ramp(), Focus(0.1), camera, max_radius_px=9)
    assert torch.equal(taf_lens(picture(), ramp(), Focus(0.0), camera, max_radius_px=9), limit)


def test_shape_errors_are_sentences():
    with pytest.raises(ValueError, match=r"depth is .*1, 5, 5.* and the picture"):
        taf_lens(picture(), torch.ones(1, 5, 5), Focus(2.0), Camera(2.8, 50.0))
    with pytest.raises(ValueError, match="3 or 4"):
        taf_lens(picture(channels=2), ramp(), Focus(2.0), Camera(2.8, 50.0))
    with pytest.raises(ValueError, match="max_radius_px is -1"):
        taf_lens(picture(), ramp(), Focus(2.0), Camera(2.8, 50.0), max_radius_px=-1)


@pytest.mark.parametrize("engine", ["reference", "stack", "cpu"])
def test_progress_never_goes_back(engine):
    steps = []
    lens = (picture(400, 40), ramp(400, 40), Focus(2.0), Camera(torch.tensor(STOPS), 50.0))
    taf_lens(*lens, engine=engine, on_progress=lambda done, total: steps.append(done / total))
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    assert len(steps) >= 8
