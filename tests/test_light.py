"""sRGB and picture layout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import light


def test_known_values():
    # IEC 61966-2-1: the toe ends at 0.04045; middle grey 0.5 decodes to 0.2140411405
    srgb = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    linear = torch.tensor([0.0, 0.04045 / 12.92, ((0.5 + 0.055) / 1.055) ** 2.4, 1.0], dtype=torch.float64)
    torch.testing.assert_close(light.srgb_to_linear(srgb), linear, rtol=1e-14, atol=0)
    assert linear[2].item() == pytest.approx(0.2140411405, abs=5e-11)


@given(st.floats(0.0, 8.0))
def test_round_trip(value):
    x = torch.tensor([value], dtype=torch.float64)
    # the standard's two thresholds meet only to 3e-8
    torch.testing.assert_close(light.linear_to_srgb(light.srgb_to_linear(x)), x, rtol=1e-7, atol=1e-7)


def test_gradients_are_finite_everywhere():
    for function in (light.srgb_to_linear, light.linear_to_srgb):
        x = torch.tensor([-0.5, 0.0, 1e-9, 0.003, 0.04, 0.5, 3.0], requires_grad=True)
        function(x).sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_picture_round_trip(channels):
    image = torch.rand(2, 5, 7, channels, generator=torch.Generator().manual_seed(0))
    back = light.radiance_to_image(light.image_to_radiance(image))
    expected = image.expand(-1, -1, -1, 3) if channels == 1 else image
    torch.testing.assert_close(back, expected, rtol=0, atol=2e-6)  # float32 powers, un-premultiplied


def test_alpha_is_premultiplied_in_linear_light():
    image = torch.tensor([0.5, 0.5, 0.5, 0.25]).reshape(1, 1, 1, 4)
    radiance = light.image_to_radiance(image)
    assert radiance[0, :, 0, 0].tolist() == pytest.approx([0.21404 * 0.25] * 3 + [0.25], abs=1e-5)


def test_transparent_pixels_are_black_not_nan():
    image = light.radiance_to_image(torch.zeros(1, 4, 2, 2))
    assert torch.equal(image, torch.zeros(1, 2, 2, 4))


def test_what_was_opaque_stays_opaque():
    """A rounding error of a blur must not become an alpha of 254 where ComfyUI cuts to 8 bits."""
    radiance = torch.full((1, 4, 1, 2), 0.5)
    radiance[0, 3, 0] = torch.tensor([1.0 - 1.2e-7, 0.999])
    alpha = light.radiance_to_image(radiance)[0, 0, :, 3]
    assert alpha.tolist() == [1.0, pytest.approx(0.999)]
    assert int(255.0 * alpha[0].item()) == 255


def test_wrong_shape_is_a_sentence():
    with pytest.raises(ValueError, match="picture must be"):
        light.image_to_radiance(torch.zeros(1, 4, 4, 2))
