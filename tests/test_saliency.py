"""The guess from contrast, and the distance that saliency and masks lead to."""

import math

import pytest
import torch

from lens_models.depth.convert import fill_missing
from lens_models.focus.distance import (
    MASK_WAYS,
    STRATEGIES,
    fitted_mask,
    focus_distance_m,
    focus_from_mask,
    most_salient_region,
)
from lens_models.focus.guess import _shortest, contrast_guess
from lens_models.focus.superpixels import superpixels

MEAN, REGION = STRATEGIES


@pytest.fixture(scope="module")
def motorcycle():
    """The demo's photo `(1, 3, H, W)` and its measured depth, holes filled as a depth node fills them."""
    from tools import motorcycle as photo

    picture, metres = photo.load()
    metres = torch.tensor(metres)[None].float()
    srgb = torch.tensor(picture).permute(2, 0, 1)[None].float() / 255
    return srgb, metres, fill_missing(metres, metres > 0)


def two_planes(height: int = 60, width: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """A red thing at 1.5 m before a grey wall at 6 m: picture, depth."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    srgb, depth = 0.5 + 0.1 * (noise - 0.5), torch.full((1, height, width), 6.0)
    thing = (slice(None), slice(height // 3, height * 4 // 5), slice(width // 2, width * 3 // 4))
    depth[thing] = 1.5
    srgb[:, 0][thing], srgb[:, 2][thing] = 0.9, 0.2
    return srgb, depth


# --- the built-in guess


def test_guess_lands_on_the_motorcycle(motorcycle):
    srgb, measured, filled = motorcycle
    scene = filled[torch.isfinite(filled)].mean().item()
    assert scene > 3.1  # focus by the mean of the scene is on the wall behind
    for depth in (filled, measured):  # with its holes as NaN, too
        saliency = contrast_guess(srgb, depth)
        for strategy in STRATEGIES:
            found = focus_distance_m(depth, saliency, strategy)
            assert 2.2 <= found.metres.item() <= 2.7, strategy  # the range; the bike spans 2.1..2.8 m
            assert found.warnings == ()


def test_guess_covers_the_motorcycle(motorcycle):
    srgb, _, depth = motorcycle
    saliency = contrast_guess(srgb, depth)[0]
    engine, tank, wall, floor = (
        saliency[rows, columns].mean().item()
        for rows, columns in (
            (slice(260, 330), slice(360, 420)),
            (slice(170, 200), slice(330, 400)),
            (slice(60, 140), slice(120, 300)),
            (slice(470, 500), slice(0, 740)),
        )
    )
    assert min(engine, tank) > 0.6
    assert max(wall, floor) < 0.1


@pytest.mark.parametrize("flat", [None, 3.0, math.inf])
def test_guess_without_depth(flat):
    srgb, depth = two_planes()
    on_thing = depth[0] < 2
    saliency = contrast_guess(srgb, None if flat is None else torch.full_like(depth, flat))[0]
    assert saliency.shape == depth.shape[1:]
    assert saliency[on_thing].mean() > 0.8
    assert saliency[~on_thing].mean() < 0.1
    torch.testing.assert_close(saliency, contrast_guess(srgb)[0], rtol=0, atol=0)


def test_guess_by_depth_alone():
    _, depth = two_planes()
    saliency = contrast_guess(torch.full((1, 3, 60, 90), 0.5), depth)[0]
    assert saliency[depth[0] < 2].mean() > 0.8
    assert saliency[depth[0] > 2].mean() < 0.1


def test_steps_that_cost_nothing_are_steps():
    """0 to 1 is free and 1 to 2 costs a half; nothing leads to 3."""
    way = torch.full((4, 4), math.inf).fill_diagonal_(0.0)
    way[0, 1] = way[1, 0] = 0.0
    way[1, 2] = way[2, 1] = 0.5
    assert _shortest(way)[0].tolist() == [0.0, 0.0, 0.5, math.inf]


def test_guess_prefers_the_nearer_of_two():
    srgb, depth = two_planes()
    srgb[0, :, 20:48, 8:26] = srgb[0, :, 20:48, 48:66]  # the same thing again, on the wall behind
    nearer = contrast_guess(srgb, depth)[0]
    assert nearer[25:43, 50:64].mean() > nearer[25:43, 10:24].mean() + 0.3


def test_guess_on_a_photo_of_scikit_image():
    # the cup of coffee, without depth
    from skimage.data import coffee

    srgb = torch.tensor(coffee()).permute(2, 0, 1)[None].float() / 255
    saliency = contrast_guess(srgb)[0]
    assert saliency[60:260, 200:330].mean() > 0.7
    assert saliency[:60, :100].mean() < 0.1
    assert saliency[340:, :80].mean() < 0.1


def test_guess_of_nothing():
    saliency = contrast_guess(torch.full((1, 3, 40, 50), 0.3), torch.full((1, 40, 50), 4.0))
    assert saliency.max() == 0
    found = focus_distance_m(torch.full((1, 40, 50), 4.0), saliency)
    assert found.metres.item() == 4.0
    assert "Nothing is salient" in found.warnings[0]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (7, 5), (400, 3), (900, 1300)])
def test_guess_of_odd_sizes(height, width):
    generator = torch.Generator().manual_seed(1)
    srgb = torch.rand(1, 3, height, width, generator=generator)
    depth = 1 + torch.rand(1, height, width, generator=generator)
    saliency = contrast_guess(srgb, depth)
    assert saliency.shape == (1, height, width)
    assert saliency.isfinite().all()
    assert 0 <= saliency.min() <= saliency.max() <= 1


def test_guess_of_bad_values():
    srgb, depth = two_planes()
    srgb[0, :, 0, 0], srgb[0, :, 0, 1] = math.nan, math.inf
    depth[0, 0, :3] = torch.tensor([math.nan, 0.0, -1.0])
    assert contrast_guess(srgb, depth).isfinite().all()
    without = contrast_guess(srgb, torch.full_like(depth, math.nan))
    torch.testing.assert_close(without, contrast_guess(srgb), rtol=0, atol=0)


def test_guess_of_batches():
    srgb, depth = two_planes()
    pair = torch.cat([srgb, srgb.flip(-1)])
    both = contrast_guess(pair, torch.cat([depth, depth.flip(-1)]))
    torch.testing.assert_close(both[:1], contrast_guess(srgb, depth), rtol=0, atol=0)
    assert contrast_guess(srgb, depth.expand(3, -1, -1)).shape[0] == 3
    with pytest.raises(ValueError, match=r"2 pictures.*3 depths|3 depths.*2 pictures"):
        contrast_guess(pair, depth.expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\).*\(1, 60, 90, 3\)"):
        contrast_guess(srgb.movedim(1, -1))


def test_superpixels_keep_to_edges():
    features = torch.zeros(1, 40, 60)
    features[:, :, 33:] = 5.0
    pieces = superpixels(features, 24, 0.3)
    assert set(pieces.labels[:, 32].tolist()).isdisjoint(pieces.labels[:, 33].tolist())
    assert pieces.area.sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(pieces.border.sum(dim=0), torch.ones(4))
    assert (pieces.touching == pieces.touching.T).all()
    assert pieces.touching.any(dim=1).all()


# --- the other sources


def test_masks_of_any_shape_and_size():
    mask = torch.zeros(1, 20, 30)
    mask[:, :10] = 1.0
    for given in (mask, mask[0], mask[:, None]):
        fitted = fitted_mask(given, 40, 60)
        assert fitted.shape == (1, 40, 60)
        assert fitted[:, :18].min() == 1
        assert fitted[:, 22:].max() == 0
    with pytest.raises(ValueError, match=r"\(batch, height, width\), not \(1, 3, 20, 30\)"):
        fitted_mask(torch.zeros(1, 3, 20, 30), 40, 60)
    with pytest.raises(ValueError, match=r"2 depths.*5 masks"):
        focus_from_mask(torch.ones(2, 40, 60), mask.expand(5, -1, -1))


# --- from saliency to a distance


def test_mean_falls_between_two_subjects_and_the_median_does_not():
    depth = torch.full((1, 40, 60), 10.0)
    depth[:, 10:20, 5:25] = 2.0
    depth[:, 10:20, 40:52] = 5.0
    saliency = (depth < 9).float()
    assert focus_distance_m(depth, saliency, MEAN).metres.item() == pytest.approx((200 * 2 + 120 * 5) / 320)
    assert focus_distance_m(depth, saliency, REGION).metres.item() == 2.0
    # a smaller region that is twice as salient: 120 × 1 beats 200 × 0.55
    saliency[:, 10:20, 5:25] = 0.55
    assert focus_distance_m(depth, saliency, REGION).metres.item() == 5.0


def test_most_salient_region_is_connected():
    saliency = torch.zeros(2, 300, 500)
    saliency[0, 20:200, 30:60] = 1.0
    saliency[0, 100:110, 30:300] = 1.0  # joined to the first
    saliency[0, 20:200, 400:440] = 0.9  # apart, and smaller than both
    saliency[1, 250:, :] = 0.4  # half of the highest is 0.2
    region = most_salient_region(saliency)
    assert region[0, 50, 40]
    assert region[0, 105, 280]
    assert not region[0, 50, 420]
    assert region[1, 280].all()
    assert not region[1, 100].any()


def test_a_spiral_is_one_region():
    cells = torch.zeros(1, 41, 41)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom:
        cells[0, top, left : right + 1] = 1
        cells[0, top : bottom + 1, right] = 1
        cells[0, bottom, left + 2 : right + 1] = 1
        cells[0, top + 4 : bottom + 1, left + 2] = 1
        cells[0, top + 4, left + 2 : left + 5] = 1
        top, left, bottom, right = top + 4, left + 4, bottom - 4, right - 4
    assert torch.equal(most_salient_region(cells), cells > 0)


def test_sky_is_left_out_of_a_distance():
    depth = torch.tensor([[[2.0, 2.0, 3.0, math.inf, math.inf, math.inf]]])
    saliency = torch.tensor([[[0.5, 0.5, 0.5, 1.0, 1.0, 1.0]]])
    for strategy, metres in ((MEAN, 7 / 3), (REGION, 2.0)):
        assert focus_distance_m(depth, saliency, strategy).metres.item() == pytest.approx(metres)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_zero_saliency(strategy):
    depth = torch.tensor([[[4.0, 1.5, math.inf]]])
    found = focus_distance_m(depth, torch.zeros(1, 1, 3), strategy)
    assert found.metres.item() == 1.5
    assert found.warnings == ("Nothing is salient: the focus is on the nearest measured depth, 1.5 m.",)
    depth = torch.tensor([[[4.0, 1.5]], [[math.inf, math.inf]], [[2.0, 3.0]]])
    found = focus_distance_m(depth, torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]]), strategy)
    assert found.metres.tolist() == [1.5, math.inf, 3.0]
    assert found.warnings[0].startswith("Picture 1, 2 of 3: nothing is salient")
    found = focus_distance_m(depth[1:2], torch.ones(1, 1, 2), strategy)
    assert "there is only sky, so the focus is at infinity" in found.warnings[0]


def test_distance_of_other_sizes_and_batches():
    depth = torch.tensor([1.0, 3.0]).repeat_interleave(20).expand(1, 30, 40)
    saliency = torch.tensor([0.0, 1.0]).repeat_interleave(40).expand(3, 60, 80)
    found = focus_distance_m(depth, saliency)
    # the edge of the resized map is soft and takes in a little of the near half
    torch.testing.assert_close(found.metres, torch.full((3,), 3.0), rtol=0.01, atol=0)
    with pytest.raises(ValueError, match=r"2 depths.*3 saliency|3 saliency.*2 depths"):
        focus_distance_m(depth.expand(2, -1, -1), saliency)
    with pytest.raises(ValueError, match='"mode" is not a strategy'):
        focus_distance_m(depth, saliency, "mode")


# --- from a mask to a distance


def test_focus_from_mask():
    depth = torch.arange(1.0, 101.0).reshape(1, 10, 10)
    mask = torch.zeros(1, 10, 10)
    mask[:, 2:4] = 1.0  # 21..40 m
    assert focus_from_mask(depth, mask).metres.item() == 30.0
    assert focus_from_mask(depth, mask, "nearest").metres.item() == 21.0
    for percentile, metres in ((0, 21.0), (25, 25.0), (90, 38.0), (100, 40.0)):
        found = focus_from_mask(depth, mask, "percentile", percentile=percentile)
        assert found.metres.item() == metres
        assert found.warnings == ()


def test_soft_mask_weighs():
    depth = torch.tensor([[[1.0, 2.0, 3.0]]])
    mask = torch.tensor([[[0.4, 0.3, 1.0]]])
    assert focus_from_mask(depth, mask).metres.item() == 3.0
    assert focus_from_mask(depth, mask, "nearest").metres.item() == 3.0  # 1 m is covered by less than half
    assert focus_from_mask(depth, 0.4 * mask, "nearest").metres.item() == 1.0


def test_mask_over_the_sky():
    depth = torch.tensor([[[2.0, 3.0, math.inf, math.inf]]])
    sky = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    for how in MASK_WAYS:
        found = focus_from_mask(depth, sky, how)
        assert math.isinf(found.metres.item())
        assert found.warnings == ("The mask covers only sky: the focus is at infinity.",)
        assert focus_from_mask(depth, torch.ones_like(sky), how).metres.item() == 2.0  # sky is left out
    found = focus_from_mask(depth, torch.zeros_like(sky))
    assert found.metres.item() == 2.0
    assert found.warnings == ("The mask covers nothing: the focus is on the nearest measured depth, 2 m.",)


def test_mask_of_another_size_or_batch():
    depth = torch.ones(1, 30, 40)
    depth[:, :, 20:] = 4.0
    mask = torch.zeros(2, 60, 80)
    mask[0, :, :30], mask[1, :, 50:] = 1.0, 1.0
    found = focus_from_mask(depth, mask)
    assert found.metres.tolist() == [1.0, 4.0]
    assert found.warnings == ()
    stretched = focus_from_mask(depth, mask[:, :40])
    assert "masks are 80 × 40 px and the depth is 40 × 30" in stretched.warnings[0]
    with pytest.raises(ValueError, match=r"3 depths.*2 masks|2 masks.*3 depths"):
        focus_from_mask(depth.expand(3, -1, -1), mask)
    for bad in (-1.0, 101.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 100"):
            focus_from_mask(depth, mask, "percentile", percentile=bad)
    with pytest.raises(ValueError, match='"mean" is not a way'):
        focus_from_mask(depth, mask, "mean")


def test_mask_with_the_depth_of_a_network():
    # the mask comes with a gradient or in half floats, the depth as it is
    depth = torch.linspace(1, 5, 100).reshape(1, 10, 10).requires_grad_()
    mask = torch.ones(1, 10, 10, dtype=torch.float16)
    found = focus_from_mask(depth, mask)
    assert found.metres.item() == pytest.approx(3.0, abs=0.05)  # one step of the ramp is 0.04 m
    found.metres.sum().backward()
    assert depth.grad.sum() == 1
