"""Depth as a picture, normals as a picture, and one scale for a clip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models.camera import assumed_fx_px, view_degrees
from lens_models.depth import DepthMap
from lens_models.depth.estimator import steady_factors
from lens_models.depth.normals import normal_picture, normals_from_depth
from lens_models.show.depth import (
    SKY_RGB,
    Range,
    automatic_range,
    colour_map,
    colours,
    depth_preview,
    inverse_grey,
)

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


def a_map(metres, valid=None):
    metres = torch.as_tensor(metres, dtype=torch.float32)
    metres = metres[None] if metres.ndim == 2 else metres
    return DepthMap(metres, torch.ones_like(metres, dtype=torch.bool) if valid is None else valid)


def slope(height=40, width=300, near=2.0, far=10.0):
    """Even steps of 1/d from left to right."""
    return a_map(1.0 / torch.linspace(1 / near, 1 / far, width).expand(height, width))


def oklab(srgb):
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = srgb.new_tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = srgb.new_tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ to_lms.T) ** (1 / 3) @ to_lab.T


def test_grey_is_even_in_inverse_distance_near_white_and_sky_black():
    depth = slope()
    depth.metres[0, :4] = math.inf
    grey = inverse_grey(depth, near_m=2.0, far_m=10.0)
    assert grey.shape == (1, 40, 300, 3)
    # float32 of 1/d
    torch.testing.assert_close(grey[0, 20, :, 1], torch.linspace(1, 0, 300), rtol=0, atol=1e-5)
    assert (grey[0, :4] == 0).all()
    batch = a_map(torch.stack([torch.full((8, 8), 2.0), torch.full((8, 8), 4.0)]))
    near, far = inverse_grey(batch, far_m=8.0)[:, 0, 0, 0]
    torch.testing.assert_close((near, far), (torch.tensor(1.0), torch.tensor(1 / 3)), rtol=1e-3, atol=1e-3)


def test_the_colours_are_even_and_go_from_warm_to_cool():
    shades = colour_map()
    assert shades.shape == (256, 3)
    assert shades.min() >= 0
    assert shades.max() <= 1
    lab = oklab(shades.double())
    assert (lab[1:, 0] < lab[:-1, 0] + 1e-3).all()  # ever darker
    steps = (lab[1:] - lab[:-1]).norm(dim=1)
    assert steps.max() <= 1.6 * steps.median()  # where sRGB ends, steps are a little shorter
    assert steps.min() >= 0.3 * steps.median()
    near, far = shades[0], shades[-1]
    assert near[0] > near[2] + 0.3
    assert far[2] > far[0] + 0.1


def test_colours_are_even_in_inverse_depth():
    depth = slope()
    position = Range(2.0, 10.0).position(depth.metres)[0, 0]
    torch.testing.assert_close(position, torch.linspace(0, 1, 300), atol=1e-5, rtol=0)
    assert Range(2.0, 10.0).position(torch.tensor([1.0, math.inf])).tolist() == [0.0, 1.0]


def test_sky_and_what_was_filled():
    metres = torch.full((40, 60), 3.0)
    metres[:20] = math.inf
    valid = torch.ones(1, 40, 60, dtype=torch.bool)
    valid[0, 20:, :30] = False
    picture = colours(a_map(metres, valid), Range(1.0, 9.0))[0]
    torch.testing.assert_close(picture[0, 0], torch.tensor(SKY_RGB))
    measured, filled = picture[20:, 30:], picture[20:, :30]
    assert len(measured.reshape(-1, 3).unique(dim=0)) == 1
    assert len(filled.reshape(-1, 3).unique(dim=0)) == 2
    assert filled.mean() < measured.mean()
    distances = (colour_map() - torch.tensor(SKY_RGB)).norm(dim=1)
    assert distances.min() > 0.2  # no distance looks like sky


def test_the_range():
    metres = torch.full((100, 100), 5.0)
    metres[0, 0], metres[0, 1] = 0.01, 4000.0  # two specks
    span = automatic_range(a_map(metres))
    assert span.near_m < 5.0 < span.far_m
    assert span.far_m / span.near_m < 1.03
    spread = automatic_range(slope())
    assert spread.near_m == pytest.approx(2.0, rel=0.02)
    assert spread.far_m == pytest.approx(10.0, rel=0.02)
    assert automatic_range(slope(), 0.5, 40.0) == Range(0.5, 40.0)
    assert automatic_range(slope(), near_m=50.0).far_m > 50.0
    assert automatic_range(slope(), far_m=1.0).near_m < 1.0
    assert automatic_range(a_map([[math.inf]])) == Range(1.0, 10.0)
    with pytest.raises(ValueError, match="near_m is 9 and far_m is 2"):
        automatic_range(slope(), 9.0, 2.0)


@given(height=st.integers(1, 40), width=st.integers(1, 400), metres=st.floats(1e-3, 1e5), sky=st.booleans())
def test_every_size_and_distance(height, width, metres, sky):
    depth = torch.full((height, width), metres)
    if sky:
        depth[0] = math.inf
    picture = depth_preview(a_map(depth))
    assert torch.isfinite(picture).all()
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.shape[2] >= 240


def test_the_legend_lies_under_the_picture():
    depth = slope(height=120, width=600)
    plain, with_legend = depth_preview(depth, legend=False), depth_preview(depth)
    assert plain.shape == (1, 120, 600, 3)
    assert with_legend.shape[2] == 600
    assert torch.equal(with_legend[:, :120], plain)
    legend = with_legend[0, 120:]
    # a row of the bar carries the colours in order; text is there in near white
    rows = [row for row in legend if (row[20:580] @ LUMA).std() > 0.15]
    assert any((row[25] - colour_map()[5]).abs().max() < 0.1 for row in rows)
    assert (legend.min(dim=-1).values > 0.9).sum() > 50


def test_a_small_map_is_shown_larger():
    picture = depth_preview(slope(height=8, width=12))
    assert picture.shape[2] == 240
    assert torch.equal(picture[:, :160:20, ::20], depth_preview(slope(height=8, width=12), legend=False))


def test_a_clip_has_one_range():
    near, far = torch.full((30, 300), 2.0), torch.full((30, 300), 8.0)
    clip = a_map(torch.stack([near, far]))
    both = depth_preview(clip, legend=False)
    assert both.shape[0] == 2
    assert (both[0] - both[1]).abs().max() > 0.3
    assert not torch.equal(depth_preview(clip)[0, 30:], depth_preview(clip)[1, 30:])  # own medians


def test_a_wall_faces_the_camera():
    normal = normals_from_depth(torch.full((1, 9, 12), 4.0), torch.tensor([10.0]))
    torch.testing.assert_close(normal, torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1).expand(1, 3, 9, 12))
    torch.testing.assert_close(normal_picture(normal)[0, 0, 0], torch.tensor([0.5, 0.5, 1.0]))


def test_a_floor_points_up():
    # y = 1.5 m below the camera: z = 1.5 · fx / (row - middle)
    rows = torch.arange(60.0) - 29.5
    metres = torch.where(rows > 4, 1.5 * 80.0 / rows, torch.tensor(math.inf))[:, None].expand(60, 40)
    normal = normals_from_depth(metres[None], torch.tensor([80.0]))
    up = torch.tensor([0.0, -1.0, 0.0]).view(3, 1, 1)
    assert ((normal[0, :, 40:-1] - up).abs() < 1e-3).all()
    assert (normal[0, 2, :30] == -1).all()  # sky
    assert normal_picture(normal)[0, 50, 20, 1] > 0.99  # green is up


def test_a_steady_scale():
    torch.manual_seed(0)
    scene = 1.0 + 9.0 * torch.rand(1, 60, 80)
    pumped = torch.tensor([1.0, 1.3, 0.8, 1.1, 0.95])
    clip = scene * pumped.view(-1, 1, 1)
    clip[:, :10] = math.inf
    for frame in range(5):
        clip[frame, 20:40, 10 * frame : 10 * frame + 20] = 0.7  # somebody walks by
    factors = steady_factors(clip)
    torch.testing.assert_close(factors * pumped, torch.ones(5), rtol=1e-4, atol=0)
    assert steady_factors(scene).tolist() == [1.0]
    assert steady_factors(torch.full((3, 4, 5), math.inf)).tolist() == [1.0] * 3


def test_a_default_field_of_view():
    assert assumed_fx_px(1024) == pytest.approx(995.56, abs=0.01)
    assert view_degrees(assumed_fx_px(777), 777) == pytest.approx(54.43, abs=0.01)
