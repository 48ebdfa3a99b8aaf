"""Rack focus: keyframes as people write them, easing in 1/distance, smoothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models.focus.rack import EASINGS, HOLD, LINEAR, SMOOTH, rack_focus_m, read_keyframes, smoothed_m


def rack(text, count=48, easing=LINEAR, **named):
    return rack_focus_m(read_keyframes(text, count, named), count, easing)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(2, 200))
def test_even_means_even_in_inverse_depth(first, last, count):
    metres = rack(f"0: {first!r}\n-1: {last!r}", count)
    assert metres[0].item() == first
    assert metres[-1].item() == last
    even = torch.linspace(1 / first, 1 / last, count, dtype=torch.float64)
    torch.testing.assert_close(1 / metres, even, rtol=0, atol=1e-6)  # the figure; float64 does better


def test_smooth_starts_and_stops_gently_and_meets_the_middle():
    inverse = 1 / rack("0: 1\n40: 5", 41, SMOOTH)
    steps = inverse.diff().abs()
    assert steps[0] < 0.2 * steps[20]
    assert steps[-1] < 0.2 * steps[20]
    assert inverse[20].item() == pytest.approx(0.6)


def test_hold_jumps_on_the_keyframe():
    metres = rack("0: 1, 10: 4, 20: 2", 24, HOLD)
    assert metres[:10].tolist() == [1.0] * 10
    assert metres[10:20].tolist() == [4.0] * 10
    assert metres[20:].tolist() == [2.0] * 4


@pytest.mark.parametrize("easing", EASINGS)
def test_before_the_first_and_after_the_last_it_stays(easing):
    metres = rack("5: 2; 10: 3", 20, easing)
    assert metres[:6].tolist() == [2.0] * 6
    assert metres[10:].tolist() == [3.0] * 10
    assert rack("7: 2.5", 3, easing).tolist() == [2.5] * 3


def test_to_infinity_and_back():
    metres = rack("0: 2\n10: inf\n20: 2 m", 21)
    assert metres[10].item() == math.inf
    assert metres[5].item() == pytest.approx(4.0)
    torch.testing.assert_close(metres, metres.flip(0))


def test_connected_focus_by_letter():
    assert rack("0: a, 4: B", 5, A=1.0, B=2.0).tolist()[::4] == [1.0, 2.0]
    spread = read_keyframes("  ", 11, {"A": 1.0, "B": 4.0, "C": 2.0})
    assert spread.frames == (0, 5, 10)
    assert read_keyframes("", 11, {"A": 3.0}).frames == (0,)


def test_what_is_odd_is_said():
    mixed = read_keyframes("20: 2\n0: 1", 24)
    assert mixed.frames == (0, 20)
    assert "sorted" in mixed.warnings[0]
    beyond = read_keyframes("0: 1\n60: 2", 48)
    assert "Keyframe 60 lies beyond the clip, whose last frame is 47" in beyond.warnings[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no keyframes"),
        ("soon: 2", '"soon: 2" is not a keyframe'),
        ("0: D", "D is neither metres nor a connected focus. Connected are A"),
        ("0: -2", "greater than 0 m"),
        ("0: nan", "greater than 0 m"),
        ("3: 1, 3: 2", "two keyframes for frame 3"),
        ("-50: 1", "lies before the first frame"),
    ],
)
def test_refusals(text, said):
    named = {} if not text else {"A": 1.0}
    with pytest.raises(ValueError, match=said):
        read_keyframes(text, 48, named)


def test_smoothing_calms_and_keeps_what_is_still():
    still = torch.full((12,), 3.0)
    torch.testing.assert_close(smoothed_m(still, 2.0), still)
    random = torch.Generator().manual_seed(0)
    shaky = 3.0 + 0.3 * torch.randn(60, generator=random)
    calm = smoothed_m(shaky, 3.0)
    assert calm.diff().abs().mean() < 0.2 * shaky.diff().abs().mean()
    assert (1 / calm).mean().item() == pytest.approx((1 / shaky).mean().item(), rel=0.02)
    assert torch.equal(smoothed_m(shaky, 0.0), shaky)
    assert smoothed_m(torch.tensor([math.inf, 2.0, math.inf]), 1.0).isfinite().all()
    with pytest.raises(ValueError, match="-1 frames"):
        smoothed_m(shaky, -1)
