"""Highlight recovery: bounded, reversible, nothing but highlights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import Camera, Focus, dr_bokeh_lens, taf_lens
from lens_models.highlights import KNEE, compress_highlights, expand_highlights

STOPS = st.floats(0.0, 8.0)


def grey(values):
    return torch.as_tensor(values).expand(1, 3, 1, -1).contiguous()


def test_no_stops_is_the_picture_itself():
    x = torch.rand(1, 3, 4, 4) * 3
    assert expand_highlights(x, 0.0) is x
    assert compress_highlights(x, 0.0) is x


@given(STOPS)
def test_white_goes_up_by_the_stops_and_the_rest_stays_bit_equal(stops):
    x = grey(torch.linspace(0.0, 1.0, 1001))
    out = expand_highlights(x, stops)
    assert out.max().item() == pytest.approx(2.0**stops, rel=1e-5)  # float32 near the pole of the curve
    below = x <= KNEE
    assert torch.equal(out[below], x[below])
    assert (out.diff(dim=-1) > 0).all()


@given(STOPS, st.floats(0.0, 4.0))
def test_there_and_back(stops, brightness):
    colour = torch.tensor([1.0, 0.7, 0.2]).reshape(1, 3, 1, 1) * brightness
    back = compress_highlights(expand_highlights(colour, stops), stops)
    torch.testing.assert_close(back, colour, rtol=1e-4, atol=1e-6)  # float32 through 8 stops and back


def test_slope_is_smooth_at_the_knee():
    x = grey(torch.tensor([KNEE - 1e-3, KNEE, KNEE + 1e-3], dtype=torch.float64))
    steps = expand_highlights(x, 6.0).diff(dim=-1)[0, 0, 0]
    assert steps[1].item() == pytest.approx(steps[0].item(), rel=0.01)  # curvature over 1e-3


def test_transparency_is_not_brightness():
    colour = torch.tensor([1.0, 0.9, 0.8, 1.0]).reshape(1, 4, 1, 1)
    solid, faint = expand_highlights(colour, 3.0), expand_highlights(0.25 * colour, 3.0)
    torch.testing.assert_close(faint[:, :3], 0.25 * solid[:, :3])
    assert faint[0, 3].item() == 0.25


def test_gradients_are_finite():
    x = torch.linspace(0.0, 1.5, 31, dtype=torch.float64).expand(1, 3, 1, -1).clone().requires_grad_()
    compress_highlights(expand_highlights(x, 5.0), 5.0).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_refusal():
    with pytest.raises(ValueError, match="-1 stops"):
        expand_highlights(torch.zeros(1, 3, 1, 1), -1.0)


@pytest.mark.parametrize("lens", [taf_lens, dr_bokeh_lens])
def test_a_clipped_lamp_is_nearer_to_the_true_one(lens):
    """The lamp was 16 times white; the photo cut it at 1. Four stops bring its disc back, no brighter."""
    scene = torch.full((1, 3, 40, 40), 0.05)
    scene[..., 19:22, 19:22] = 16.0
    photo = scene.clamp(0, 1)

    def shot(radiance):
        return lens(radiance, torch.full((1, 40, 40), 8.0), Focus(1.5), Camera(2.8, 200.0))

    truth, dull = shot(scene).clamp(0, 1), shot(photo)
    recovered = compress_highlights(shot(expand_highlights(photo, 4.0)), 4.0)
    error = [(picture - truth).abs().mean().item() for picture in (dull, recovered)]
    assert error[1] < 0.1 * error[0]
    assert recovered.max() <= 1.0 + 1e-5  # float32 through the FFT
