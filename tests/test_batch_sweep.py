"""Batches of pictures, distances and apertures: how they combine, what they share, and focus sweeps."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_models import Camera, Focus
from lens_models.batch import EVERY, ORDERS, SIDE, item_labels, planned, taken
from lens_models.depth import DepthMap
from lens_models.focus.sweep import focus_steps_m, parse_distances_m
from lens_models.scene import run_stop

NUMBERS = st.integers(1, 5)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_every_combination_is_there_once_and_in_order(pictures, distances, apertures):
    plan = planned(EVERY, pictures, distances, apertures)
    found = list(zip(plan.picture.tolist(), plan.distance.tolist(), plan.aperture.tolist(), strict=True))
    assert found == list(itertools.product(range(pictures), range(distances), range(apertures)))
    assert plan.count == pictures * distances * apertures


@given(NUMBERS, NUMBERS, NUMBERS)
def test_side_by_side_is_the_first_with_the_first_or_names_both_numbers(pictures, distances, apertures):
    numbers = (pictures, distances, apertures)
    several = {n for n in numbers if n > 1}
    if len(several) > 1:
        with pytest.raises(ValueError, match="do not go with") as refused:
            planned(SIDE, *numbers)
        said = str(refused.value)
        assert sum(f"{n} " in said for n in several) >= 2
        assert "'every combination'" in said
        return
    plan = planned(SIDE, *numbers)
    assert plan.count == max(numbers)
    for n, index in zip(numbers, (plan.picture, plan.distance, plan.aperture), strict=True):
        assert index.tolist() == (list(range(n)) if n > 1 else [0] * plan.count)


def test_what_a_plan_says():
    assert planned(EVERY, 2, 3, 8).summary() == "2 pictures × 3 distances × 8 apertures = 48"
    assert planned(EVERY, 1, 1, 1).summary() == "1 picture × 1 distance × 1 aperture = 1"
    assert planned(EVERY, 3, 1, 2).summary("depth") == "3 depths × 1 distance × 2 apertures = 6"
    assert planned(SIDE, 1, 4, 4).summary() == "4 side by side: 1 picture, 4 distances, 4 apertures"
    with pytest.raises(ValueError, match=r'"diagonal" is not an order .* every combination, side by side'):
        planned("diagonal", 1, 1, 1)


@given(st.sampled_from(ORDERS), NUMBERS, NUMBERS, NUMBERS)
def test_settings_follow_the_plan(order, pictures, distances, apertures):
    if order == SIDE:
        distances = apertures = pictures
    plan = planned(order, pictures, distances, apertures)
    camera = taken(Camera(torch.arange(1.0, apertures + 1), 50.0), plan.aperture)
    focus = taken(Focus(torch.arange(1.0, distances + 1), torch.tensor(1.5)), plan.distance)
    image = taken(torch.arange(float(pictures)).reshape(-1, 1, 1, 1), plan.picture)
    for i in range(plan.count):
        assert camera.part(i, i + 1).f_number.item() == plan.aperture[i] + 1
        assert focus.part(i, i + 1).distance_m.item() == plan.distance[i] + 1
        assert (image[i] if len(image) > 1 else image[0]).item() == plan.picture[i]
    assert camera.focal_mm == 50.0
    assert focus.scale == 1.5


def test_what_is_single_or_wanted_as_it_is_is_not_copied():
    photo, depth = (
        torch.rand(1, 4, 6, 3),
        DepthMap(torch.ones(1, 4, 6), torch.ones(1, 4, 6, dtype=torch.bool)),
    )
    plan = planned(EVERY, 1, 3, 4)
    assert taken(photo, plan.picture) is photo
    assert taken(depth, plan.picture).metres is depth.metres
    photos = torch.rand(3, 4, 6, 3)
    assert taken(photos, planned(SIDE, 3, 3, 1).picture) is photos
    assert taken(photos, planned(EVERY, 3, 1, 2).picture).shape[0] == 6


def test_depth_goes_with_its_picture():
    metres = torch.tensor([1.0, 2.0]).reshape(2, 1, 1).expand(2, 2, 3)
    depth = DepthMap(metres, metres > 1.5, torch.tensor([10.0, 20.0]), "test")
    there = taken(depth, planned(EVERY, 2, 3, 1).picture)
    assert there.metres[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert there.valid[:, 0, 0].tolist() == [False] * 3 + [True] * 3
    assert there.fx_px.tolist() == [10, 10, 10, 20, 20, 20]
    assert there.source == "test"


def labels(order, pictures, f_numbers, distances, word="picture"):
    plan = planned(order, pictures, len(distances), len(f_numbers))
    camera = Camera(torch.tensor(f_numbers) if len(f_numbers) > 1 else f_numbers[0], 50.0)
    focus = Focus(torch.tensor(distances) if len(distances) > 1 else distances[0])
    return item_labels(plan, taken(camera, plan.aperture), taken(focus, plan.distance), word)


def test_labels_tell_the_items_apart():
    assert labels(EVERY, 2, [1.8, 4.0], [1.5, torch.inf]) == [
        "picture 1   f/1.8   1.5 m",
        "picture 1   f/4   1.5 m",
        "picture 1   f/1.8   ∞",
        "picture 1   f/4   ∞",
        "picture 2   f/1.8   1.5 m",
        "picture 2   f/4   1.5 m",
        "picture 2   f/1.8   ∞",
        "picture 2   f/4   ∞",
    ]
    assert labels(SIDE, 2, [1.8, 4.0], [2.0], "depth") == ["depth 1   f/1.8", "depth 2   f/4"]
    assert labels(EVERY, 2, [2.8], [2.0]) == ["picture 1", "picture 2"]
    assert labels(EVERY, 1, [2.8], [2.0]) == ["f/2.8   50 mm   focus 2 m"]


# ------------------------------------------------------------------------------- runs of one scene


def runs(count, *parts):
    found, start = [], 0
    while start < count:
        stop = run_stop(start, count, *parts)
        found.append((start, stop))
        start = stop
    return found


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12))
def test_runs_are_those_of_equal_neighbours(items):
    pictures, distances = (torch.tensor(values, dtype=torch.float64) for values in zip(*items, strict=True))
    wanted, start = [], 0
    for _, group in itertools.groupby(items):
        wanted.append((start, start := start + len(list(group))))
    assert runs(len(items), pictures.reshape(-1, 1, 1, 1), Focus(1 + distances)) == wanted


def test_every_field_and_part_ends_a_run_and_what_is_single_does_not():
    photos, steady = torch.rand(1, 5, 4, 3).expand(4, 5, 4, 3), torch.rand(1, 5, 4)
    assert runs(4, photos, steady, Focus(2.0), Focus(torch.full((4,), 2.0))) == [(0, 4)]
    moved = torch.tensor([1.0, 1.0, 1.0, 2.0])
    for focus in (Focus(moved), Focus(2.0, moved), Focus(2.0, 1.0, moved), Focus(2.0, 1.0, 0.0, moved)):
        assert runs(4, photos, focus) == [(0, 3), (3, 4)]
    depth = steady.repeat(4, 1, 1)
    depth[2, 4, 3] += 1e-6  # the last pixel of one
    assert runs(4, photos, depth) == [(0, 2), (2, 3), (3, 4)]
    assert runs(1, photos[:1]) == [(0, 1)]


def test_infinity_is_equal_to_itself():
    assert runs(3, Focus(torch.tensor([torch.inf, torch.inf, 1.0])), torch.full((3, 2, 2), torch.inf)) == [
        (0, 2),
        (2, 3),
    ]


# ------------------------------------------------------------------------------- focus sweeps


@given(st.floats(0.05, 1000), st.floats(0.05, 1000) | st.just(float("inf")), st.integers(2, 40))
def test_steps_are_even_in_blur_and_keep_their_ends(near, far, count):
    metres = focus_steps_m(near, far, count)
    assert len(metres) == count
    assert metres[0].item() == near
    assert metres[-1].item() == far
    steps = (1 / metres).diff()
    # float64 rounding of 1/distance, which is up to 20
    torch.testing.assert_close(
        steps, torch.full_like(steps, (1 / far - 1 / near) / (count - 1)), atol=1e-13, rtol=0
    )


def test_a_single_step_is_near_and_bad_ends_are_sentences():
    assert focus_steps_m(2.0, 4.0, 1).tolist() == [2.0]
    for near, far, said in (
        (0.0, 1.0, "near_m is 0 m"),
        (1.0, -2.0, "far_m is -2 m"),
        (1, torch.nan, "far_m is nan"),
    ):
        with pytest.raises(ValueError, match=said):
            focus_steps_m(near, far, 3)
    with pytest.raises(ValueError, match="0 distances"):
        focus_steps_m(1.0, 2.0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "1, 1.5, 0.8, inf",
        "1 1.5 .8 ∞",
        "1\n1.5\n80cm\nInfinity",
        "1 m; 1.5 m, 80 cm; INF",
        " 1m,,1.5,\t80 CM ∞ ",
    ],
)
def test_lists_as_people_write_them(text):
    assert parse_distances_m(text) == [1.0, 1.5, 0.8, torch.inf]


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=9), st.sampled_from([",", " ", ";\n", " m, "]))
def test_a_list_comes_back_as_it_was_written(metres, between):
    assert parse_distances_m(between.join(map(str, metres))) == metres


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The list of distances is empty: write metres such as 1, 1.5, 3, inf"),
        (" ,; ", "is empty"),
        ("1, near", r'"near" \(item 2\) is not a distance'),
        ("1, 5 mm", r'"mm" \(item 3\) is not a distance'),
        ("m", r'"m" \(item 1\) is not a distance'),
        ("2, 0", r'"0" \(item 2\) is not a focus distance, which is greater than 0 m'),
        ("-1", r'"-1" \(item 1\) is not a focus distance'),
        ("nan", r'"nan" \(item 1\) is not a focus distance'),
    ],
)
def test_lists_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse_distances_m(text)
