"""Blur monotonicity: theorem F.1, photos through the pack's own disc and lenses, hand counts, odd input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optics import scenes

from lens_models import Camera, Focus, blur, dr_bokeh_lens, taf_lens
from lens_models.light import linear_to_srgb, srgb_to_linear
from lens_models.metrics.monotonicity import blur_monotonicity, energy
from lens_models.show.energy import energy_plot, score_label
from lens_models.stops import FULL_STOPS
from tools import motorcycle
from tools.raytrace import all_in_focus, depth_metres

SIDE = 24


def photo(name: str, step: int = 4) -> torch.Tensor:
    """A photo of scikit-image's wheel as `(1, 3, H, W)` sRGB 0..1, each pixel the mean of step² others."""
    from skimage import data

    picture = torch.from_numpy(np.ascontiguousarray(getattr(data, name)()[..., :3])).movedim(-1, 0)[None]
    return torch.nn.functional.avg_pool2d(picture.double() / 255.0, step)


def disc_sweep(picture: torch.Tensor) -> torch.Tensor:
    """Blurred values, wide open first: the radius is 9 px / N, so 5 px at f/1.8 and 0.41 px at f/22."""
    radii = [torch.full((1, *picture.shape[-2:]), 9.0 / n, dtype=picture.dtype) for n in FULL_STOPS]
    return torch.cat([blur.gather(picture, radius, engine="stack") for radius in radii])


# ------------------------------------------------------------------------------------------ theorem F.1
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 9),
    kind=st.sampled_from(["noise", "one light", "flat", "signed"]),
)
def test_no_kernel_of_unit_sum_adds_energy(seed, size, kind):
    """Circular convolution with any kernel that is not negative and sums to 1; also about the mean."""
    random = np.random.default_rng(seed)
    picture = random.random((SIDE, SIDE))
    if kind == "one light":
        picture = (picture == picture.max()) * 50.0
    elif kind == "flat":
        picture[:] = picture[0, 0]
    elif kind == "signed":
        picture -= 0.7
    kernel = np.zeros((SIDE, SIDE))
    kernel[:size, :size] = random.random((size, size)) ** random.integers(1, 12)
    kernel /= kernel.sum()
    blurred = np.fft.irfft2(np.fft.rfft2(picture) * np.fft.rfft2(kernel), (SIDE, SIDE))
    whole, detail = energy(torch.from_numpy(np.stack([picture, blurred]))[:, None])
    # what rounding of the transform may add, relative to the whole energy
    slack = 1e-12 * whole[0]
    assert whole[1] <= whole[0] + slack
    assert detail[1] <= detail[0] + slack


def test_a_kernel_that_sharpens_is_caught():
    """The theorem needs kernels without negative values: this one adds energy, and the energy says so."""
    picture = np.random.default_rng(0).random((SIDE, SIDE))
    sharper = 1.5 * picture - 0.5 * np.roll(picture, 1, axis=1)
    whole, detail = energy(torch.from_numpy(np.stack([picture, sharper]))[:, None])
    assert whole[1] > whole[0]
    assert detail[1] > detail[0]


def test_energy_by_hand():
    picture = torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])[None]  # two channels of 1 x 2 px
    whole, detail = energy(picture)
    assert whole.tolist() == [1 + 9 + 4 + 4]
    assert detail.tolist() == [1 + 1]
    assert whole.dtype == torch.float64


def test_steps_below_eight_bits_and_below_float32_sums_are_seen():
    """One pixel of a megapixel, lighter by 1e-4: lost in 8 bits, and in a float32 sum of squares."""
    picture = torch.full((1, 3, 600, 600), 0.5)
    lighter = picture.clone()
    lighter[0, 0, 0, 0] += 1e-4
    assert blur_monotonicity(torch.cat([picture, lighter]), [2.0, 4.0]).score == 1.0
    assert (picture.square().sum() == lighter.square().sum()).item()


# ------------------------------------------------------------------------------- photos and the own disc
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("light", ["srgb values", "linear light"])
def test_disc_blurs_of_photos_score_everything(name, light):
    """Blurred as it is measured: both columns are 100 %."""
    picture = photo(name)
    found = blur_monotonicity(
        disc_sweep(srgb_to_linear(picture) if light == "linear light" else picture), FULL_STOPS
    )
    assert (found.score, found.detail_score) == (1.0, 1.0)
    assert found.failed == found.detail_failed == ()


def test_blur_in_linear_light_can_raise_the_energy_of_srgb_codes():
    """Why there is a second column: the codes' mean rises with blur, their detail falls."""
    codes = linear_to_srgb(disc_sweep(srgb_to_linear(photo("astronaut"))))
    found = blur_monotonicity(codes, FULL_STOPS)
    assert found.score < 0.5
    assert found.detail_score == 1.0


def test_brightness_alone_fools_the_first_column_only():
    picture = photo("chelsea")
    blurred = disc_sweep(picture).flip(0)  # the wrong way round: blur grows with the f-number
    lighter = blurred + 0.05 * torch.arange(8.0).reshape(-1, 1, 1, 1)
    found = blur_monotonicity(lighter, FULL_STOPS)
    assert found.score == 1.0
    assert found.detail_score == 0.0


# -------------------------------------------------------------------------------------------- hand counts
def values(*levels: float) -> torch.Tensor:
    """Pictures whose energy, with and about the mean, grows with the level."""
    return torch.tensor(levels).reshape(-1, 1, 1, 1) * torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)


def test_a_shuffled_sweep_gets_what_is_counted_by_hand():
    # energies in order of f-number 9 16 4 25 1: up, down, up, down
    found = blur_monotonicity(values(3, 4, 2, 5, 1), [1.8, 2.8, 4.0, 5.6, 8.0])
    assert found.score == found.detail_score == 2 / 4
    assert found.failed == found.detail_failed == ((2.8, 4.0), (5.6, 8.0))
    assert found.energies == (9.0, 16.0, 4.0, 25.0, 1.0)
    assert found.details == (4.5, 8.0, 2.0, 12.5, 0.5)


def test_a_shuffled_sweep_of_a_photo():
    sweep = disc_sweep(photo("coffee"))
    order = [3, 0, 1, 2, 7, 6, 4, 5]  # 3>0 0<1 1<2 2<7 7>6 6>4 4<5: four of seven grow
    found = blur_monotonicity(sweep[order], FULL_STOPS)
    assert found.score == found.detail_score == 4 / 7
    assert found.failed == ((1.8, 2.8), (8.0, 11.0), (11.0, 16.0))


def test_pictures_are_put_in_order_of_f_number():
    mixed = blur_monotonicity(values(5, 1, 3), torch.tensor([8.0, 1.8, 4.0], dtype=torch.float64))
    assert mixed.f_numbers == (1.8, 4.0, 8.0)
    assert mixed.energies == (1.0, 9.0, 25.0)
    assert mixed.score == 1.0


def test_ties_count_nothing():
    found = blur_monotonicity(values(1, 1, 2), [2.0, 2.8, 4.0])
    assert found.score == found.detail_score == 0.5
    assert found.failed == ((2.0, 2.8),)
    assert blur_monotonicity(torch.full((3, 3, 4, 4), 0.3), [2.0, 2.8, 4.0]).score == 0.0


# ------------------------------------------------------------------------------------- the pack's lenses
def motorcycle_small() -> tuple[torch.Tensor, torch.Tensor]:
    """Every third pixel of the demo's photo, linear light, and its depth with holes as far as the scene."""
    picture, depth = motorcycle.load()
    srgb = torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None].float() / 255.0
    metres = torch.from_numpy(depth)[None].float()
    metres = torch.where(metres.isnan(), metres.nan_to_num(0.0).amax(), metres)
    return srgb_to_linear(srgb)[..., ::3, ::3], metres[:, ::3, ::3]


def traced(name: str) -> tuple[torch.Tensor, torch.Tensor, Focus, float]:
    scene, lens = getattr(scenes, name)()
    picture = torch.from_numpy(all_in_focus(scene, 4)).movedim(-1, 0)[None].float()
    return picture, torch.from_numpy(depth_metres(scene))[None].float(), Focus(lens.focus_m), lens.focal_mm


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
@pytest.mark.parametrize("name", ["motorcycle", "slant", "portrait"])
def test_both_lenses_lose_energy_with_every_stop(lens, name):
    """In linear light both columns, in sRGB codes the one about the mean, are 100 %."""
    if name == "motorcycle":
        (picture, metres), focus, focal_mm = motorcycle_small(), Focus(2.4), 85.0
    else:
        picture, metres, focus, focal_mm = traced(name)
    camera = Camera(torch.tensor(FULL_STOPS), focal_mm)
    sweep = lens(picture, metres, focus, camera)
    light, codes = (blur_monotonicity(p, FULL_STOPS) for p in (sweep, linear_to_srgb(sweep)))
    assert light.failed == light.detail_failed == codes.detail_failed == ()


# -------------------------------------------------------------------------------------------- odd input
def test_one_picture_is_no_sweep():
    with pytest.raises(ValueError, match="at least 2 pictures; there is 1"):
        blur_monotonicity(values(1), [2.8])


def test_counts_that_do_not_go_together():
    with pytest.raises(ValueError, match="3 pictures and 2 f-numbers"):
        blur_monotonicity(values(1, 2, 3), [2.8, 4.0])


def test_an_aperture_twice():
    with pytest.raises(ValueError, match=r"Pictures 1 and 3 are both at f/2\.8"):
        blur_monotonicity(values(1, 2, 3), [2.8, 4.0, 2.8])


@pytest.mark.parametrize("n", [0.0, -2.0, float("inf"), float("nan")])
def test_no_f_number(n):
    with pytest.raises(ValueError, match="is no aperture"):
        blur_monotonicity(values(1, 2), [2.8, n])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_without_energy(value):
    sweep = values(1, 2, 3)
    sweep[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="Picture 2 of 3 holds 1 values that are NaN or infinite"):
        blur_monotonicity(sweep, [2.0, 4.0, 8.0])


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0, 4)])
def test_no_pictures(shape):
    with pytest.raises(ValueError, match="Energy is measured of pictures"):
        energy(torch.zeros(shape))


# --------------------------------------------------------------------------------------------- the plot
def shows(plot: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return ((plot - torch.tensor(colour) / 255.0).abs().amax(dim=-1) < 1e-3).any().item()


RED, BLUE, YELLOW = (255, 82, 82), (120, 190, 255), (255, 196, 92)


def test_the_plot_has_both_curves_and_red_only_where_a_step_fails():
    good = energy_plot(blur_monotonicity(values(1, 2, 3), [2.0, 4.0, 8.0]), 640, 400, "a title")
    bad = energy_plot(blur_monotonicity(values(1, 3, 2), [2.0, 4.0, 8.0]), 640, 400)
    assert good.shape == bad.shape == (1, 400, 640, 3)
    assert all(shows(plot, colour) for plot in (good, bad) for colour in (BLUE, YELLOW))
    assert not shows(good, RED)
    assert shows(bad, RED)
    assert not shows(bad[:, :, :320], RED)  # f/2 to f/4, the left half, grows
    assert shows(bad[:, :, 320:], RED)


@pytest.mark.parametrize("levels", [(0, 0, 0), (2, 2, 2), (1, 1 + 1e-9, 1 + 2e-9)])
def test_plots_of_next_to_nothing(levels):
    """No division by a span or an energy of zero."""
    plot = energy_plot(blur_monotonicity(values(*levels).double(), [1.0, 1.1, 64.0]), 320, 200)
    assert torch.isfinite(plot).all()
    assert shows(plot, YELLOW)


def test_a_plot_too_small_to_read():
    with pytest.raises(ValueError, match="at least 320 × 200 px; 100 × 100 px"):
        energy_plot(blur_monotonicity(values(1, 2), [2.0, 4.0]), 100, 100)


def test_scores_as_the_paper_writes_them():
    assert [score_label(s) for s in (0.0, 0.9391, 0.9689, 1.0, 6 / 7)] == [
        "0 %",
        "93.91 %",
        "96.89 %",
        "100 %",
        "85.71 %",
    ]
