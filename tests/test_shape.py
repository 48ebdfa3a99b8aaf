"""Aperture shapes against their rule: unit energy, second moment r²/4, upright behind, inverted in front."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models import Camera, Focus, blur, taf_lens
from lens_models.blur import reference, torch_stack
from lens_models.blur.family import family
from lens_models.disc import disc_kernel
from lens_models.shape import ApertureShape, drawing

CORNER = (0.7, -0.7)
STOPS = (1.8, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0)


def shape_kernel(shape, radius, field=(0.0, 0.0)):
    """What a light of one signed radius looks like, at a place in the picture whose half diagonal is 1."""
    if shape.is_disc:
        return disc_kernel(abs(radius))
    levels = family(shape, tuple(-shape.cats_eye * f + 0.0 for f in field))
    lo, t = levels.mix(torch.tensor([radius], dtype=torch.float64), levels.levels_for(abs(radius)))
    small, large = levels.kernel(int(lo)), levels.kernel(int(lo) + 1)
    sides = np.maximum(small.shape, large.shape)
    result = np.zeros(sides)
    for kernel, weight in ((small, 1.0 - float(t)), (large, float(t))):
        y, x = (sides - kernel.shape) // 2
        result[y : y + kernel.shape[0], x : x + kernel.shape[1]] += weight * kernel
    return result[::-1, ::-1] if radius < 0 else result


def heart(side=96):
    """A heart as a ComfyUI picture, point down."""
    axis = (np.arange(side) + 0.5) * 2.6 / side - 1.3
    x, y = axis[None, :], -axis[:, None]
    inside = (x**2 + y**2 - 1) ** 3 - x**2 * y**3 <= 0
    return torch.from_numpy(inside.astype(np.float32))[None, ..., None].expand(-1, -1, -1, 3)


SHAPES = {
    "triangle": ApertureShape("polygon", blades=3),
    "pentagon": ApertureShape("polygon", blades=5, rotation_deg=17.0),
    "round hexagon": ApertureShape("polygon", blades=6, curvature=0.4),
    "twelve": ApertureShape("polygon", blades=12, curvature=1.0, edge=0.3),
    "anamorphic": ApertureShape(squeeze=2.0),
    "ring": ApertureShape("ring", inner=0.5),
    "thin ring": ApertureShape("ring", inner=0.95),
    "soft": ApertureShape(edge=-1.0),
    "bubble": ApertureShape(edge=1.0),
    "cat's eye": ApertureShape(cats_eye=0.9),
    "pentagon cat": ApertureShape("polygon", blades=5, cats_eye=0.6),
    "heart": ApertureShape.from_image(heart()),
    "turned heart": ApertureShape.from_image(heart(), rotation_deg=30.0, squeeze=1.3),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
#: Of both symmetries, and quick enough for direct taps.
FEW = ("pentagon", "anamorphic", "ring", "heart")
few_shapes = pytest.mark.parametrize("shape", [SHAPES[name] for name in FEW], ids=FEW)


def moments(kernel):
    """(sum, mean of both second moments)"""
    y, x = (np.arange(n) - n // 2 for n in kernel.shape)
    return kernel.sum(), ((kernel.sum(1) * y**2).sum() + (kernel.sum(0) * x**2).sum()) / 2


def scene(height=37, width=53, radius=6.0, seed=0):
    """A random picture with lights, and signed radii with a zero part and a flat part."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, height, width, generator=random, dtype=torch.float64)
    image[torch.rand(image.shape, generator=random) > 0.995] = 8.0
    radii = radius * (2 * torch.rand(1, height, width, generator=random, dtype=torch.float64) - 1)
    radii[:, : height // 4] = 0.0
    radii[:, :, width // 2 :] = radius
    return image, radii


@settings(max_examples=200)
@given(st.sampled_from(list(SHAPES.values())), st.floats(-120.0, 120.0))
def test_unit_energy_and_second_moment_at_every_radius(shape, radius):
    kernel = shape_kernel(shape, radius, CORNER)
    assert kernel.min() >= 0.0
    total, variance = moments(kernel)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert variance == pytest.approx(radius**2 / 4, rel=1e-9, abs=1e-12)  # float64 sums


@every_shape
def test_levels_are_strictly_wider_and_close_together(shape):
    levels = family(shape, (-0.4, 0.4) if shape.cats_eye else (0.0, 0.0))
    levels.levels_for(200.0)
    variance = levels.variance
    assert variance[0] == 0.0
    assert levels.kernel(0).shape == (1, 1)
    assert np.all(np.diff(variance) > 0)
    radius = 2.0 * np.sqrt(variance)
    # a thin ring misses the lattice now and then
    assert np.all(np.diff(radius)[radius[:-1] > 2] <= np.maximum(1.5, radius[:-1][radius[:-1] > 2] / 16))


@every_shape
def test_below_a_pixel_a_shape_fades_into_the_identity(shape):
    for radius in (1e-3, 0.1, 0.5):
        kernel = shape_kernel(shape, radius, CORNER)
        centre = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        assert centre >= 1.0 - radius**2  # what is elsewhere is at least a pixel away
    assert shape_kernel(shape, 0.0, CORNER).max() == 1.0


def polygon_mask(blades, turn_deg, radius, side, fine=8):
    """A regular polygon by half planes, point up, clockwise; independent of the drawing."""
    axis = (np.arange(side * fine) + 0.5) / fine - side / 2
    x, y = axis[None, :], axis[:, None]
    inside = np.ones((side * fine, side * fine), bool)
    for blade in range(blades):
        angle = math.radians(turn_deg) + (blade + 0.5) * 2 * math.pi / blades
        inside &= x * math.sin(angle) - y * math.cos(angle) <= radius * math.cos(math.pi / blades)
    return inside.reshape(side, fine, side, fine).mean((1, 3))


@pytest.mark.parametrize(("blades", "turn"), [(3, 0.0), (5, 17.0), (6, 0.0), (8, 10.0)])
def test_a_light_looks_like_the_polygon(blades, turn):
    radius = 24.0
    kernel = shape_kernel(ApertureShape("polygon", blades=blades, rotation_deg=turn), radius)
    # second moment per axis of a regular polygon: R² (2 + cos 2π/n) / 12
    corner = radius / 2 / math.sqrt((2 + math.cos(2 * math.pi / blades)) / 12)
    exact = polygon_mask(blades, turn, corner, max(kernel.shape) | 1)
    seen = np.zeros_like(exact)
    y, x = ((exact.shape[0] - n) // 2 for n in kernel.shape)
    seen[y : y + kernel.shape[0], x : x + kernel.shape[1]] = kernel / np.median(kernel[kernel > 0])
    overlap = np.minimum(seen, exact).sum() / np.maximum(seen, exact).sum()
    assert overlap >= 0.96  # two levels are mixed: a soft edge up to a level step wide


def test_ring_bubble_and_apodised_profiles():
    middle = {}
    for name in ("ring", "bubble", "soft"):
        kernel = shape_kernel(SHAPES[name], 20.0)
        line = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2 :]
        middle[name] = line / kernel.max()
    assert middle["ring"][0] == 0.0
    assert middle["bubble"][0] < 0.2
    assert np.all(np.diff(middle["soft"]) <= 1e-12)
    assert middle["soft"][0] > 0.99


def test_squeeze_is_height_over_width():
    kernel = shape_kernel(SHAPES["anamorphic"], 30.0)
    y, x = (np.arange(n) - n // 2 for n in kernel.shape)
    ratio = (kernel.sum(1) * y**2).sum() / (kernel.sum(0) * x**2).sum()
    assert math.sqrt(ratio) == pytest.approx(2.0, rel=2e-3)


def test_cats_eye_closes_towards_the_corners():
    shape, areas = SHAPES["cat's eye"], []
    for far in (0.0, 0.5, 1.0):
        kernel = shape_kernel(shape, 30.0, (far, 0.0))
        y, x = (np.arange(n) - n // 2 for n in kernel.shape)
        areas.append((kernel.sum(0) * x**2).sum() / (kernel.sum(1) * y**2).sum())
    assert areas[0] == pytest.approx(1.0, rel=1e-6)
    assert areas[0] > areas[1] > areas[2]


def test_cats_eye_in_a_picture_points_at_the_centre():
    image = torch.zeros(1, 1, 121, 121, dtype=torch.float64)
    image[..., 20, 60] = image[..., 60, 20] = image[..., 60, 60] = 1.0
    out = torch_stack.gather(
        image, torch.full((1, 121, 121), 8.0, dtype=torch.float64), shape=SHAPES["cat's eye"]
    )
    axis = np.arange(25) - 12

    def ratio(y, x):
        light = out[0, 0, y - 12 : y + 13, x - 12 : x + 13].numpy()
        return (light.sum(1) * axis**2).sum() / (light.sum(0) * axis**2).sum()

    assert ratio(20, 60) < 0.9  # above the centre: flat
    assert ratio(60, 20) > 1.1
    assert ratio(60, 60) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize(
    "operator", [torch_stack.gather, torch_stack.scatter, reference.gather, reference.scatter]
)
def test_upright_behind_and_inverted_in_front(operator):
    light = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    light[..., 20, 20] = 1.0
    shape = SHAPES["heart"]
    seen = {
        r: operator(light, torch.full((1, 41, 41), r, dtype=torch.float64), shape=shape)[0, 0]
        for r in (7.3, -7.3)
    }
    kernel = torch.from_numpy(shape_kernel(shape, 7.3).copy())
    y, x = kernel.shape[0] // 2, kernel.shape[1] // 2
    torch.testing.assert_close(seen[7.3][20 - y : 21 + y, 20 - x : 21 + x], kernel, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[-7.3], seen[7.3].flip(0, 1), rtol=0, atol=1e-12)
    # the heart's point is down behind the focus
    rows = (seen[7.3] > 1e-6).sum(1)
    drawn = rows[rows > 0]
    assert drawn[:3].sum() > drawn[-3:].sum()


@few_shapes
@pytest.mark.parametrize("operator", ["gather", "scatter"])
def test_stack_is_the_definition(shape, operator):
    image, radii = scene()
    exact = getattr(reference, operator)(image, radii, shape=shape)
    slow = getattr(torch_stack, operator)(image, radii, shape=shape)
    torch.testing.assert_close(slow, exact, rtol=0, atol=1e-12)
    fast = getattr(torch_stack, operator)(image.float(), radii.float(), shape=shape)
    assert (fast.double() - exact).abs().max() <= 1e-5 * exact.max()


@pytest.mark.parametrize("operator", ["gather", "scatter"])
def test_stack_is_the_definition_over_the_field(operator):
    image, radii = scene(14, 17, 2.0)
    exact = getattr(reference, operator)(image, radii, shape=SHAPES["pentagon cat"])
    slow = getattr(torch_stack, operator)(image, radii, shape=SHAPES["pentagon cat"])
    torch.testing.assert_close(slow, exact, rtol=0, atol=1e-12)


def test_tiles_leave_no_seam():
    image, radii = scene(140, 270, 3.0)
    radii = radii * torch.linspace(-1, 1, 270, dtype=torch.float64)
    exact = reference.gather(image, radii, shape=SHAPES["pentagon"])
    fast = blur.gather(image.float(), radii.float(), shape=SHAPES["pentagon"])
    assert (fast.double() - exact).abs().max() <= 1e-5 * image.max()


@few_shapes
def test_scatter_is_the_transpose_of_the_inverted_gather(shape):
    image, radii = scene(60, 70, 5.0)
    inner, y = torch.zeros_like(image), torch.zeros_like(image)
    inner[..., 16:-16, 16:-16] = image[..., 16:-16, 16:-16]
    y[..., 16:-16, 16:-16] = image.flip(-1)[..., 16:-16, 16:-16]
    forward = (torch_stack.gather(inner, radii, shape=shape) * y).sum()
    backward = (inner * torch_stack.scatter(y, -radii, shape=shape)).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-12)


@every_shape
def test_adjoint(shape):
    image, radii = scene(30, 34, 4.0) if shape.cats_eye == 0 else scene(10, 12, 1.5)
    x = image.clone().requires_grad_()
    y = torch.rand(image.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for operator in (torch_stack.gather, torch_stack.scatter):
        out = operator(x, radii, shape=shape)
        (back,) = torch.autograd.grad(out, x, y)
        assert (out * y).sum().item() == pytest.approx((image * back).sum().item(), rel=1e-12)


@pytest.mark.parametrize("engine", [reference, torch_stack])
@pytest.mark.parametrize("operator", ["gather", "scatter"])
def test_gradcheck(engine, operator):
    random = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, 5, 5, generator=random, dtype=torch.float64, requires_grad=True)
    radii = (8 * torch.rand(1, 5, 5, generator=random, dtype=torch.float64) - 4).requires_grad_()
    run = getattr(engine, operator)
    shape = SHAPES["pentagon"]
    assert torch.autograd.gradcheck(lambda i, r: run(i, r, shape=shape), (image, radii))


def test_gradients_over_the_field():
    image, radii = scene(12, 15, 2.0)
    weight = image.flip(-1)
    found = []
    for engine in (reference, torch_stack):
        x, r = image.clone().requires_grad_(), radii.clone().requires_grad_()
        out = engine.gather(x, r, shape=SHAPES["pentagon cat"])
        found.append(torch.autograd.grad((out * weight).sum(), (x, r)))
    for exact, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, exact, rtol=0, atol=1e-11)


@every_shape
def test_energy_falls_strictly_with_every_stop(shape):
    image, _ = scene(48, 64)
    depth = torch.linspace(1.2, 6.0, 64, dtype=torch.float64).expand(1, 48, 64)
    energies = []
    for stop in STOPS:
        out = taf_lens(image, depth, Focus(2.0), Camera(stop, 50.0), shape=shape)
        energies.append((out - out.mean((2, 3), keepdim=True)).square().sum().item())
    assert all(wide < narrow for wide, narrow in itertools.pairwise(energies))


@every_shape
def test_constant_is_kept(shape):
    _, radii = scene(40, 60, 9.0)
    out = torch_stack.gather(torch.full((1, 3, 40, 60), 0.7), radii.float(), shape=shape)
    assert (out - 0.7).abs().max() <= 1e-6


def test_zero_radius_is_bit_equal():
    image, radii = scene()
    out = torch_stack.gather(image, radii, shape=SHAPES["pentagon"])
    none = torch_stack.gather(image, torch.zeros_like(radii), shape=SHAPES["pentagon"])
    assert torch.equal(none, image)
    sharp = radii == 0
    assert sharp.any()
    assert torch.equal(out.movedim(1, -1)[sharp], image.movedim(1, -1)[sharp])


def test_a_shape_that_is_a_disc_is_the_disc():
    image, radii = scene()
    for shape in (ApertureShape(), ApertureShape("polygon", curvature=1.0)):
        for engine in ("reference", "stack"):
            same = blur.gather(image, radii, shape=shape, engine=engine)
            assert torch.equal(same, blur.gather(image, radii.abs(), engine=engine))
        fast = blur.gather(image.float(), radii.float(), shape=shape)
        assert torch.equal(fast, blur.gather(image.float(), radii.float().abs()))


def test_margin_moves_the_field_not_the_picture():
    image, radii = scene(24, 30, 2.0)
    pad = torch.nn.functional.pad
    shape = SHAPES["cat's eye"]
    plain = torch_stack.scatter(image, radii, shape=shape)
    margin = torch_stack.scatter(pad(image, (9,) * 4), pad(radii, (9,) * 4), shape=shape, margin_px=9)
    torch.testing.assert_close(margin[..., 9:-9, 9:-9], plain, rtol=0, atol=1e-12)


def test_picture_round_trip():
    """A picture comes back as the light that it draws."""
    picture = heart(65)
    shape = ApertureShape.from_image(picture)
    drawn = drawing(shape)
    exact = picture[0, ..., 0].double().numpy()
    np.testing.assert_allclose(drawn, exact / exact.sum(), atol=1e-15)
    times = 4
    exact = np.kron(exact, np.ones((times, times)))
    y, x = np.indices(exact.shape)
    total = exact.sum()
    variance = sum(((a - (exact * a).sum() / total) ** 2 * exact).sum() / total for a in (x, y)) / 2
    kernel = shape_kernel(shape, 2.0 * math.sqrt(variance))
    seen = kernel / np.median(kernel[kernel > 0])
    around = np.pad(exact, 40)
    windows = np.lib.stride_tricks.sliding_window_view(around, seen.shape)
    row, column = (
        round((around.sum(1 - axis) @ np.arange(around.shape[axis])) / total) - seen.shape[axis] // 2
        for axis in (0, 1)
    )
    window = windows[row, column]
    # two levels are mixed, and the centre of gravity lies between pixels
    assert np.minimum(seen, window).sum() / np.maximum(seen, window).sum() >= 0.95


def test_large_pictures_are_reduced():
    assert drawing(ApertureShape.from_image(heart(2048))).shape == (1024, 1024)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (torch.zeros(1, 8, 8, 3), "black everywhere"),
        (torch.full((1, 8, 8, 3), math.nan), "not a number"),
        (torch.full((1, 8, 8, 3), math.inf), "not a number"),
        (torch.ones(3, 8, 8, 3), "one picture, not a batch"),
        (torch.ones(1, 0, 8, 3), "one picture"),
        (torch.nn.functional.pad(torch.ones(1, 1, 1, 3), (0, 0, 99, 99, 99, 99)), "crop the picture"),
    ],
)
def test_pictures_that_cannot_be(image, sentence):
    with pytest.raises(ValueError, match=sentence):
        ApertureShape.from_image(image)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "star"}, 'Unknown aperture shape "star"'),
        ({"kind": "picture"}, "connect an IMAGE to kernel"),
        ({"blades": 2}, "blades of the aperture shape is 2: it must be from 3 to 12"),
        ({"blades": 5.5}, "whole number"),
        ({"curvature": 1.1}, "curvature"),
        ({"rotation_deg": math.nan}, "rotation"),
        ({"squeeze": 0.0}, "squeeze"),
        ({"inner": 1.0}, "inner"),
        ({"edge": math.nan}, "edge"),
        ({"cats_eye": -0.1}, "cats_eye"),
    ],
)
def test_settings_that_cannot_be(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ApertureShape(**settings)


def test_choice():
    image, radii = torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8)
    assert blur.choose(image, radii, SHAPES["ring"]) == "stack"
    with pytest.raises(ValueError, match="knows only the disc"):
        blur.gather(image, radii, shape=SHAPES["ring"], engine="cpu")
