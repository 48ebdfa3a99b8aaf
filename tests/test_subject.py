"""Depth along a subject's mask, against scenes whose depth is known."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_models.layers.subject import along_the_mask

HEIGHT, WIDTH = 96, 128
Y, X = torch.meshgrid(torch.arange(HEIGHT) * 1.0, torch.arange(WIDTH) * 1.0, indexing="ij")
HEAD = ((X - 60).square() + (Y - 50).square() < 30**2).float()
NEAR, FAR, SCALE = 0.7, 0.1, 40.0


def softened(step: torch.Tensor, reach: int) -> torch.Tensor:
    side = 2 * reach + 1
    return torch.nn.functional.avg_pool2d(step[None, None], side, 1, reach, count_include_pad=False)[0, 0]


@settings(max_examples=20)
@given(reach=st.integers(1, 3))
def test_a_soft_step_comes_to_lie_on_the_mask(reach):
    found = along_the_mask(softened(FAR + (NEAR - FAR) * HEAD, reach), HEAD, SCALE)
    # what is left is a twentieth of the step: a quarter of _AWAY, at its largest
    assert (found - (FAR + (NEAR - FAR) * HEAD)).abs().max() < 0.06 * (NEAR - FAR)


def test_strands_that_the_depth_does_not_know_get_the_subjects():
    strands = torch.where((X % 9 < 2) & (Y > 10) & (Y < 22), 1.0, HEAD)
    found = along_the_mask(FAR + (NEAR - FAR) * HEAD, strands, SCALE)
    torch.testing.assert_close(found, FAR + (NEAR - FAR) * strands, atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(slope=st.floats(-0.1, 0.1), wall=st.floats(-0.1, 0.1))
def test_depth_that_agrees_with_the_mask_keeps_its_slopes(slope, wall):
    here = 0.7 + slope * (X - 60) / 60 + slope * (Y - 50) / 60
    depth = torch.where(HEAD > 0.5, here, 0.1 + wall * (X - 60).abs() / 120)
    found = along_the_mask(depth, HEAD, SCALE)
    # within the band (4 px) a slope of 0.1 per 60 px is off its continuation by 0.007, 1 % of the step
    assert (found - depth).abs().max() < 0.01
    far = (HEAD > 0.5) & (((X - 60).square() + (Y - 50).square()) < 20**2)
    assert torch.equal(found[far], depth[far])


def test_where_the_subject_stands_on_the_ground_nothing_changes():
    ground = 0.2 + 0.5 * Y / HEIGHT
    feet = ((X - 60).abs() < 10) & (Y > 40)
    depth = torch.where(feet, 0.2 + 0.5 * Y / HEIGHT, ground)
    # 0.5 / 96 per px: over the band less than what matters, 2 px of 40 per 1/m
    torch.testing.assert_close(along_the_mask(depth, feet.float(), SCALE), depth, atol=0.02, rtol=0)


def test_a_mask_without_an_inside_or_an_outside_changes_nothing():
    depth = softened(FAR + (NEAR - FAR) * HEAD, 3)
    for mask in (torch.zeros_like(depth), torch.ones_like(depth), (X % 4 < 2).float()):
        assert torch.equal(along_the_mask(depth, mask, SCALE), depth)


def test_sky_is_a_depth_like_others():
    found = along_the_mask(softened(NEAR * HEAD, 3), HEAD, SCALE)
    assert found.isfinite().all()
    assert (found - NEAR * HEAD).abs().max() < 0.06 * NEAR
