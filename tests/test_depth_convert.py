"""Foreign depth into metres: units, grey maps, geometry, holes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models.depth import convert
from lens_models.depth.convert import (
    CONVENTIONS,
    UNITS,
    DepthMap,
    fill_missing,
    from_geometry,
    from_picture,
    from_units,
    resample_depth,
)

NAN, INF = math.nan, math.inf


def rows(*values):
    return torch.tensor([values], dtype=torch.float32)


def test_holes_take_the_farther_neighbour_of_their_row():
    depth = rows([NAN, 2, NAN, NAN, 5, NAN], [3, NAN, 1, NAN, NAN, NAN])
    filled = fill_missing(depth, ~depth.isnan())
    assert filled.tolist() == [[[2, 2, 5, 5, 5, 5], [3, 3, 1, 1, 1, 1]]]


def test_empty_rows_take_the_farther_row_and_sky_is_far():
    depth = rows([NAN, NAN], [1, INF], [NAN, NAN], [4, 4], [NAN, NAN])
    filled = fill_missing(depth, ~depth.isnan())
    assert filled.tolist() == [[[1, INF], [1, INF], [4, INF], [4, 4], [4, 4]]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 1))
def test_filling_against_a_plain_loop(seed, height, width, density):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(1, height, width, generator=generator) + 0.5
    valid = torch.rand(1, height, width, generator=generator) < density
    valid[0, 0, 0] = True
    lines = [[float(depth[0, y, x]) if valid[0, y, x] else None for x in range(width)] for y in range(height)]

    def along(line):
        out = []
        for x, value in enumerate(line):
            left = next((v for v in reversed(line[:x]) if v is not None), None)
            right = next((v for v in line[x + 1 :] if v is not None), None)
            sides = [v for v in (left, right) if v is not None]
            out.append(value if value is not None else (max(sides) if sides else None))
        return out

    across = [along(line) for line in lines]
    down = [along(list(column)) for column in zip(*across, strict=True)]
    expected = torch.tensor(list(zip(*down, strict=True)))
    assert torch.equal(fill_missing(depth, valid)[0], expected)


def test_a_map_without_any_depth_is_refused():
    with pytest.raises(ValueError, match="Map 2 of 2 has no usable depth"):
        from_units(torch.tensor([[[1.0]], [[0.0]]]), "metres")


@pytest.mark.parametrize(
    ("unit", "value"),
    [("metres", 2.5), ("millimetres", 2500), ("centimetres", 250), ("1/metres (disparity)", 0.4)],
)
def test_units(unit, value):
    assert unit in UNITS
    depth = from_units(torch.full((1, 2, 2), float(value)), unit)
    assert depth.metres.unique().item() == pytest.approx(2.5)


def test_a_free_unit():
    kitti = from_units(torch.tensor([[[256.0, 0.0]]]), "", metres_per_unit=1 / 256)
    assert kitti.metres.tolist() == [[[1.0, 1.0]]]
    assert kitti.valid.tolist() == [[[True, False]]]
    assert kitti.filled_share == 0.5
    with pytest.raises(ValueError, match="metres_per_unit is 0"):
        from_units(torch.ones(1, 1, 1), "", metres_per_unit=0.0)
    with pytest.raises(ValueError, match="furlongs"):
        from_units(torch.ones(1, 1, 1), "furlongs")


def test_missing_distances_and_sky():
    depth = from_units(rows([0, -1, NAN, 3, INF, -INF]), "metres")
    assert depth.valid.tolist() == [[[False, False, False, True, True, False]]]
    assert depth.metres.tolist() == [[[3, 3, 3, 3, INF, INF]]]
    assert depth.range_m() == (3.0, 3.0)


def test_missing_disparity_and_sky():
    depth = from_units(rows([0, -1, NAN, 0.5, INF]), "1/metres (disparity)")
    assert depth.valid.tolist() == [[[True, False, False, True, False]]]
    assert depth.metres.tolist() == [[[INF, INF, INF, 2, 2]]]


def picture(*values, channels=3):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1, 1).expand(-1, -1, -1, channels)


def test_bright_and_dark_are_mirror_images():
    bright = from_picture(picture(1.0, 0.5, 0.0), "near is bright", 1, 4).depth.metres
    dark = from_picture(picture(0.0, 0.5, 1.0), "near is dark", 1, 4).depth.metres
    assert torch.allclose(bright, dark)
    assert bright.flatten().tolist() == pytest.approx([1, 1.6, 4])  # 1/1.6 = (1 + 1/4) / 2


def test_spacing_in_metres():
    depth = from_picture(picture(1.0, 0.5, 0.0), "near is bright", 1, 4, "depth").depth.metres
    assert depth.flatten().tolist() == pytest.approx([1, 2.5, 4])


def test_metres_in_a_picture():
    found = from_picture(picture(2.0, 0.0, INF), "metres", 9, 1)
    assert found.depth.metres.flatten().tolist() == [2, INF, INF]
    assert found.warnings == ()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_no_value_of_a_picture_becomes_nan(convention, channels):
    values = picture(NAN, INF, -INF, -3.0, 0.0, 0.5, 1.0, 7.0, channels=channels)
    depth = from_picture(values, convention, 0.5, 20).depth
    assert not depth.metres.isnan().any()
    assert (depth.metres > 0).all()


def test_warnings_name_what_is_odd():
    normalised = from_picture(picture(0.2, 0.9), "metres", 1, 10)
    assert "0.9" in normalised.warnings[0]
    assert "near is bright" in normalised.warnings[0]
    metres = from_picture(picture(0.2, 7.5), "near is bright", 1, 10)
    assert "7.5" in metres.warnings[0]
    assert '"metres"' in metres.warnings[0]
    turbo = from_picture(torch.rand(1, 4, 4, 3), "near is bright", 1, 10)
    assert "coloured" in turbo.warnings[0]
    assert from_picture(picture(0.2, 0.9), "near is bright", 1, 10).warnings == ()


def test_near_beyond_far_is_refused():
    with pytest.raises(ValueError, match="near_m is 10 and far_m is 2"):
        from_picture(picture(0.5), "near is bright", 10, 2)
    with pytest.raises(ValueError, match="near_m is 0"):
        from_picture(picture(0.5), "near is bright", 0, 2)


def test_resampling_keeps_edges_unless_asked():
    depth = rows([1, 1, INF, INF])
    assert set(resample_depth(depth, 3, 9).unique().tolist()) == {1.0, INF}
    smooth = resample_depth(depth, 3, 9, bilinear=True)
    assert not smooth.isnan().any()
    assert smooth.min() == 1.0
    assert smooth.max() == INF
    assert len(smooth.unique()) > 2


def test_a_resized_map_keeps_its_field_of_view():
    depth = DepthMap(torch.ones(1, 4, 6), torch.ones(1, 4, 6, dtype=torch.bool), torch.tensor([5.0]))
    larger = depth.resized(8, 12)
    assert larger.size == (8, 12)
    assert larger.fx_px.item() == 10.0
    assert depth.resized(4, 6) is depth


def test_a_map_must_have_pixels():
    with pytest.raises(ValueError, match="at least one pixel"):
        DepthMap(torch.ones(1, 0, 3), torch.ones(1, 0, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="same size"):
        DepthMap(torch.ones(1, 2, 3), torch.ones(1, 3, 2, dtype=torch.bool))


def moge(**more):
    depth = rows([1, 2, INF, NAN], [1, 2, 3, 4])
    intrinsics = torch.tensor([[[1.25, 0, 0.5], [0, 1.9, 0.5], [0, 0, 1]]])
    return {"depth": depth, "intrinsics": intrinsics, "normal": torch.zeros(1, 2, 4, 3), **more}


def test_moge():
    found = from_geometry(moge())
    assert found.warnings == ()
    assert found.depth.metres.tolist() == [[[1, 2, INF, INF], [1, 2, 3, 4]]]
    assert found.depth.valid.tolist() == [[[True, True, True, False], [True] * 4]]
    assert found.depth.fx_px.item() == pytest.approx(5.0)  # 1.25 of 4 px


def test_moge_mask_is_sky_even_when_it_was_not_applied():
    mask = torch.tensor([[[True, True, False, False], [True, True, True, False]]])
    assert from_geometry(moge(mask=mask)).depth.metres.tolist() == [[[1, 2, INF, INF], [1, 2, 3, INF]]]


def test_moge_v1_is_said_to_have_no_scale_and_takes_one():
    first = {k: v for k, v in moge().items() if k != "normal"}
    found = from_geometry(first, scale=2.0)
    assert "MoGe v1" in found.warnings[0]
    assert found.depth.metres[0, 1].tolist() == [2, 4, 6, 8]


def test_a_panorama_is_refused():
    with pytest.raises(ValueError, match="panorama"):
        from_geometry({"depth": torch.ones(1, 2, 4), "points": torch.ones(1, 2, 4, 3)})


def da3(**more):
    return {"depth": torch.full((1, 378, 504), 2.0), "mode": "mono", **more}


def test_da3_metric_rule_with_a_known_camera():
    sky = torch.zeros(1, 378, 504)
    sky[0, 0] = 0.9
    found = from_geometry(da3(sky=sky), fx_per_width=50 / 36)
    assert found.depth.metres[0, 5, 5].item() == pytest.approx(2.0 * 50 / 36 * 504 / 300)  # 700 px: 4.667 m
    assert found.depth.metres[0, 0].isinf().all()
    assert not any("assumed" in w for w in found.warnings)


def test_da3_metres_do_not_depend_on_the_size_of_the_picture():
    # the network saw 504 px whatever the picture's size, and its answer is scaled up afterwards
    large = {"depth": torch.full((1, 756, 1008), 2.0), "mode": "mono"}
    assert from_geometry(large).depth.metres.max() == from_geometry(da3()).depth.metres.max()
    finer = from_geometry(large, da3_resolution=1008).depth.metres.max()
    assert finer.item() == pytest.approx(2 * from_geometry(large).depth.metres.max().item())


def test_da3_says_what_it_assumed():
    assert any("50 mm on full frame was assumed" in w for w in from_geometry(da3()).warnings)
    as_given = from_geometry(da3(), "as given")
    assert as_given.depth.metres.max() == 2.0
    assert as_given.warnings == ()


def test_da3_relative_models():
    # the network saw the picture at half the size of the depth map: cx = 126 there
    seen = torch.tensor([[[[200.0, 0, 126], [0, 200, 94], [0, 0, 1]]]])
    views = da3(confidence=torch.ones(1, 378, 504), intrinsics=seen)
    found = from_geometry(views)
    assert "relative" in found.warnings[0]
    assert found.depth.metres.max() == 2.0
    assert found.depth.fx_px.item() == 400
    forced = from_geometry(views, "DA3: depth × focal px / 300")
    assert forced.depth.metres.max().item() == pytest.approx(2.0 * 400 / 300)
    unposed = da3(confidence=torch.ones(1, 378, 504), intrinsics=torch.eye(3)[None, None])
    assert from_geometry(unposed).depth.fx_px is None


def test_bad_geometry():
    for nothing in ({}, {"depth": None}, "x", None):
        with pytest.raises(ValueError, match="no depth"):
            from_geometry(nothing)
    with pytest.raises(ValueError, match="no usable depth"):
        from_geometry({"depth": torch.full((1, 2, 2), NAN), "mode": "mono"})
    with pytest.raises(ValueError, match="scale is 0"):
        from_geometry(moge(), scale=0.0)
    with pytest.raises(ValueError, match="choice of units"):
        from_geometry(moge(), "yards")
    assert convert.GEOMETRY_UNITS[0] == "automatic"
