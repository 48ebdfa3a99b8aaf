"""Focus at a point: which pixel, what distance, ranges that are sharp at both ends, depth for the browser."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import Camera, Focus, coc_px
from lens_models.depth import DepthMap
from lens_models.focus.point import (
    FAR_M,
    PATCH,
    POINT,
    SUBJECT,
    distance_at,
    f_number_for_range,
    fitted_size,
    packed_depth,
    pixel_at,
    points_json,
    range_coc_px,
    range_focus_m,
)

CAMERA = Camera(2.0, 85.0)
WIDTH = 1200
metres = st.floats(0.3, 500.0)


def depth_map(values, valid=None):
    values = torch.as_tensor(values, dtype=torch.float32)
    values = values[None] if values.ndim == 2 else values
    return DepthMap(values, torch.ones_like(values, dtype=torch.bool) if valid is None else valid)


@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_a_pixels_centre_is_that_pixel(width, height, data):
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    assert pixel_at((column + 0.5) / width, (row + 0.5) / height, width, height) == (column, row)


def test_the_edges_belong_to_the_picture():
    assert pixel_at(0.0, 1.0, 640, 480) == (0, 479)
    with pytest.raises(ValueError, match=r"x is 1\.2: it must lie between 0"):
        pixel_at(1.2, 0.5, 640, 480)


def test_point_patch_and_subject_measure_different_things():
    plane = torch.full((100, 200), 4.0)
    plane[50, 100] = 1.0  # one noisy pixel
    plane[:20, :20] = 2.0
    depth, subject = depth_map(plane), torch.zeros(1, 50, 100)
    subject[:, :10, :10] = 1.0
    at = (100.5 / 200, 50.5 / 100)
    assert distance_at(depth, *at, POINT).metres.tolist() == [1.0]
    assert distance_at(depth, *at, PATCH).metres.tolist() == [4.0]
    assert distance_at(depth, *at, SUBJECT, subject).metres.tolist() == [2.0]
    without = distance_at(depth, *at, SUBJECT)
    assert without.metres.tolist() == [4.0]
    assert "Nothing is connected to subject" in without.warnings[0]


def test_every_frame_has_its_focus():
    frames = torch.stack([torch.full((20, 30), float(d)) for d in (1, 2, 3)])
    assert distance_at(depth_map(frames), 0.5, 0.5, PATCH).metres.tolist() == [1.0, 2.0, 3.0]


def test_sky_is_far_and_said():
    frames = torch.full((2, 20, 30), torch.inf)
    frames[1] = 3.0
    found = distance_at(depth_map(frames), 0.5, 0.5, PATCH)
    assert found.metres.tolist() == [FAR_M, 3.0]
    (said,) = found.warnings
    assert said == "In 1 of 2 pictures: The point is on the sky, so the focus is far away, at 10000 m."


def test_a_subject_that_is_all_sky_is_far_and_said_once():
    found = distance_at(depth_map(torch.full((20, 30), torch.inf)), 0.5, 0.5, SUBJECT, torch.ones(1, 20, 30))
    assert found.metres.tolist() == [FAR_M]
    assert len(found.warnings) == 1


def test_a_patch_takes_what_was_measured():
    plane, valid = torch.full((1, 100, 100), 9.0), torch.zeros(1, 100, 100, dtype=torch.bool)
    plane[:, 50, 51], valid[:, 50, 51] = 2.0, True
    at = (50.5 / 100, 50.5 / 100)
    assert distance_at(depth_map(plane, valid), *at, PATCH).metres.tolist() == [2.0]
    filled = distance_at(depth_map(plane, valid), *at, POINT)
    assert filled.metres.tolist() == [9.0]
    assert "no measurement at the point" in filled.warnings[0]


@given(metres, metres)
def test_a_range_is_equally_sharp_at_both_ends(one, other):
    focus = Focus(range_focus_m(*torch.tensor([one, other], dtype=torch.float64)).item())
    ends = coc_px(torch.tensor([[[one, other]]], dtype=torch.float64), focus, CAMERA, WIDTH).flatten()
    assert ends.sum().abs().item() <= 1e-9 + 1e-6 * ends.abs().max().item()
    assert ends.abs().max().item() == pytest.approx(range_coc_px(one, other, CAMERA, WIDTH), abs=1e-9)


def test_a_range_to_the_sky_is_the_hyperfocal_rule():
    far = range_focus_m(torch.tensor(3.0), torch.tensor(torch.inf))
    assert far.item() == pytest.approx(6.0)


@given(metres, metres)
def test_the_f_number_asked_for_is_enough_and_not_wasteful(one, other):
    sharp = 1.0
    wanted = f_number_for_range(one, other, CAMERA, WIDTH, sharp)
    assert range_coc_px(one, other, CAMERA.replace(f_number=wanted), WIDTH) <= sharp * (1 + 1e-5)
    if wanted > 1.0:
        wider = CAMERA.replace(f_number=wanted / 2 ** (1 / 2))
        assert range_coc_px(one, other, wider, WIDTH) >= sharp * 0.99


def test_points_are_what_sam3_reads():
    assert json.loads(points_json([(0.5, 0.25), (1.0, 0.0)], 640, 480)) == [
        {"x": 320, "y": 120},
        {"x": 639, "y": 0},
    ]


def test_packed_depth_keeps_sixteen_bits_and_the_sky():
    plane = torch.linspace(0.8, 60.0, 64 * 64).reshape(64, 64)
    plane[0, 0] = torch.inf
    codes, near, far = packed_depth(depth_map(plane))
    code = codes[..., 0].double() * 256 + codes[..., 1].double()
    assert (near, far) == (pytest.approx(plane[0, 1].item()), pytest.approx(60.0))
    assert code[0, 0] == 0
    assert code.flatten()[1:].min() == 1
    q = 1 / far + (code - 1) / 65534 * (1 / near - 1 / far)
    error = (q - 1 / plane.double()).flatten()[1:].abs()
    assert error.max().item() <= 0.51 * (1 / near - 1 / far) / 65534
    assert (codes[..., 2] == 255).all()


def test_packed_depth_of_nothing_but_sky():
    codes, near, far = packed_depth(depth_map(torch.full((4, 5), torch.inf)))
    assert (near, far) == (None, None)
    assert not codes[..., :2].any()


def test_flat_depth_packs():
    codes, near, far = packed_depth(depth_map(torch.full((4, 5), 2.5)))
    assert near == far == pytest.approx(2.5)
    assert (codes[..., 0].int() * 256 + codes[..., 1].int() == 1).all()


def test_a_preview_keeps_its_shape():
    assert fitted_size(741, 500, 768) == (741, 500)
    assert fitted_size(2000, 3000, 768) == (512, 768)
    assert fitted_size(10000, 10, 768) == (768, 1)
