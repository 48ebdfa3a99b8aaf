"""F-number scales, sweeps and hand-typed lists."""

import pytest

from lens_models.stops import (
    FULL_STOPS,
    THIRD_STOPS,
    label,
    nominal,
    parse_f_numbers,
    stops_of,
    sweep_between,
)


def test_the_third_stop_scale_is_geometric():
    for k, mark in enumerate(THIRD_STOPS):
        assert mark == pytest.approx(2 ** (k / 6), rel=0.06)
    assert (THIRD_STOPS[0], THIRD_STOPS[-1], len(THIRD_STOPS)) == (1.0, 32.0, 31)


def test_every_mark_comes_back_from_its_stops():
    for k, mark in enumerate(THIRD_STOPS):
        assert stops_of(mark) == pytest.approx(k / 3)
        assert nominal(k / 3) == mark


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        (2.8, 22, 1, [2.8, 4, 5.6, 8, 11, 16, 22]),
        (22, 2.8, 1, [22, 16, 11, 8, 5.6, 4, 2.8]),
        (1, 2.8, 1 / 2, [1, 1.2, 1.4, 1.7, 2, 2.4, 2.8]),
        (1.8, 2.8, 1 / 3, [1.8, 2, 2.2, 2.5, 2.8]),
        (1.8, 4, 1, [1.8, 2.5, 3.5]),
        (1.8, 2.6, 1 / 2, [1.8, 2.1, 2.5]),
        (8, 8, 1, [8]),
        (0.7, 1.4, 1, [0.7, 1, 1.4]),
        (64, 256, 1, [64, 91, 130, 180, 260]),
    ],
)
def test_sweeps(start, end, step, expected):
    assert sweep_between(start, end, step) == expected


def test_a_sweep_starts_at_the_number_asked_for():
    assert sweep_between(1.95, 4, 1) == [1.95, 2.8, 3.9]


@pytest.mark.parametrize(
    "text", ["1.8,2.8 , 4", "f/1.8 f/2.8 F4", "1.8;2.8;4;", "\n1.8\n2.8\n4\n", "ƒ/ 1.8\t2.8\r\n4"]
)
def test_lists_are_read_as_people_write_them(text):
    assert parse_f_numbers(text) == [1.8, 2.8, 4.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2.8, banana", r'"banana" \(item 2\) is not an f-number: write numbers such as 1\.8, 2\.8, 4'),
        ("", "empty"),
        (" , ;\n", "empty"),
        ("2.8, 0", r'"0" \(item 2\)'),
        ("-4", r'"-4" \(item 1\)'),
        ("nan", r'"nan" \(item 1\)'),
        ("4 inf", r'"inf" \(item 2\)'),
        ("1.8.2", "not an f-number"),
    ],
)
def test_garbage_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_f_numbers(text)


def test_bad_ends_are_named():
    with pytest.raises(ValueError, match="start of the sweep is 0"):
        sweep_between(0, 8, 1)
    with pytest.raises(ValueError, match="end of the sweep is nan"):
        sweep_between(2, float("nan"), 1)
    with pytest.raises(ValueError, match="step"):
        sweep_between(2, 8, 0)


def test_labels():
    assert [label(n) for n in FULL_STOPS] == [
        "f/1.8", "f/2.8", "f/4", "f/5.6", "f/8", "f/11", "f/16", "f/22",
    ]  # fmt: skip
    assert label(0.95) == "f/0.95"
    assert label(128) == "f/128"
