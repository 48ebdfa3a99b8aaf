"""The focus overlay: sides, zone, odd input."""

import pytest
import torch

from lens_models.show.overlay import acceptable_coc_px, focus_overlay, saliency_overlay


def test_near_is_warm_far_is_cool_and_the_zone_keeps_its_colours():
    image = torch.full((1, 40, 90, 3), 0.5)
    image[..., 1] = 0.7
    coc = torch.linspace(-30, 30, 90).expand(1, 40, 90)
    out = focus_overlay(image, coc)
    near, far, middle = out[0, 20, 0], out[0, 20, -1], out[0, 20, 44]
    assert near[0] > near[1] > near[2]
    assert far[2] > far[1] > far[0]
    assert coc[0, 20, 44].abs() < 1
    assert torch.equal(middle, image[0, 20, 44])


def test_tints_grow_with_blur():
    image = torch.full((1, 1, 3, 3), 0.5)
    warm = focus_overlay(image, torch.tensor([[[-1.1, -1.5, -40.0]]]), sharp_px=1.0)[0, 0]
    redness = warm[:, 0] - warm[:, 2]
    assert redness[0] < redness[1] <= redness[2]


def test_the_zone_is_outlined_outside_itself():
    coc = torch.full((1, 21, 21), 9.0)
    coc[:, 5:15, 5:15] = 0.2
    out = focus_overlay(torch.zeros(1, 21, 21, 3), coc)
    assert out[0, 4, 8, 1] > 0.9
    assert out[0, 5, 8].sum() == 0
    assert out[0, 2, 8, 1] < 0.3


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_any_channels_no_nan(size, channels):
    image = torch.rand(1, *size, channels)
    image[0, 0, 0] = torch.nan
    coc = torch.randn(2, *size) * 20
    coc[0, 0, 0], coc[1, -1, -1] = torch.nan, torch.inf
    out = focus_overlay(image, coc)
    assert out.shape == (2, *size, 3)
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


def test_acceptable_blur():
    assert acceptable_coc_px(512, 512) == 1.0
    assert acceptable_coc_px(3600, 2400) == pytest.approx(2.884, abs=1e-3)


def test_what_stands_out_keeps_its_colour():
    image = torch.rand(1, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    saliency = torch.zeros(1, 40, 60)
    saliency[:, 10:30, 20:40] = 1.0
    out = saliency_overlay(image, saliency)
    assert torch.equal(out[:, 12:28, 22:38], image[:, 12:28, 22:38])
    outside = out[:, :8]
    assert torch.equal(outside[..., 0], outside[..., 2])  # grey
    assert outside.mean() < 0.6 * image[:, :8].mean()
    grey = saliency_overlay(image[..., :1], torch.ones(2, 40, 60))
    assert torch.equal(grey[1], image[0, ..., :1].expand(-1, -1, 3))
