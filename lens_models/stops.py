"""F-numbers as photographers write them: nominal marks, sweeps in stops, lists typed by hand.

A stop is a factor √2 in f-number; nominal marks round the exact values (f/2.8 stands for 2√2).
"""

from __future__ import annotations

import math
import re

#: The eight full stops of the paper's aperture sweeps.
FULL_STOPS = (1.8, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0)

#: Nominal marks of the third-stop scale from f/1 to f/32, as engraved on lenses.
THIRD_STOPS = (
    1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.5, 2.8, 3.2, 3.5, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0, 10.0,
    11.0, 13.0, 14.0, 16.0, 18.0, 20.0, 22.0, 25.0, 29.0, 32.0,
)  # fmt: skip

_FASTER = (0.5, 0.56, 0.63, 0.7, 0.8, 0.9)
_SLOWER = (36.0, 40.0, 45.0, 51.0, 57.0, 64.0)
_HALF_STOPS = (1.2, 1.7, 2.4, 3.3, 4.8, 6.7, 9.5, 13.0, 19.0, 27.0)

#: stops from f/1 -> nominal mark; third stops come first because f/1.2 and f/13 are on both scales
_MARKS = {k / 3.0: mark for k, mark in enumerate(_FASTER + THIRD_STOPS + _SLOWER, start=-len(_FASTER))}
_MARKS |= {j + 0.5: mark for j, mark in enumerate(_HALF_STOPS)}
_NEAR_STOPS = 0.02
_PREFIX = re.compile(r"[fƒ]\s*/?\s*(?=[\d.])", re.IGNORECASE)


def label(f_number: float) -> str:
    """The usual way to write an f-number.

    >>> label(2.8), label(22.0)
    ('f/2.8', 'f/22')
    """
    return f"f/{f_number:.3g}"


def stops_of(f_number: float) -> float:
    """Stops above f/1; a nominal mark counts as the exact value it stands for, so f/2.8 is 3.0."""
    for stops, mark in _MARKS.items():
        if abs(f_number - mark) <= 0.002 * mark:
            return stops
    return 2.0 * math.log2(f_number)


def nominal(stops: float) -> float:
    """Nominal f-number at so many stops above f/1; two significant digits where no scale has a mark."""
    for at, mark in _MARKS.items():
        if abs(at - stops) < _NEAR_STOPS:
            return mark
    return float(f"{2.0 ** (stops / 2.0):.2g}")


def sweep_between(start: float, end: float, step_stops: float) -> list[float]:
    """Nominal f-numbers from `start` towards `end` in equal steps; never past `end`.

    start, end: f-numbers; a start above the end sweeps downwards. step_stops: step in stops, > 0.
    The list begins with `start` itself. Raises ValueError for values that are no f-numbers.

    >>> sweep_between(2.8, 8, 1)
    [2.8, 4.0, 5.6, 8.0]
    """
    for name, value in (("start", start), ("end", end)):
        _check(value, f"{name} of the sweep is {value:g}")
    if not step_stops > 0:
        raise ValueError(f"the step of the sweep is {step_stops:g} stops: it must be greater than 0.")
    first, last = stops_of(start), stops_of(end)
    direction = 1.0 if last >= first else -1.0
    steps = math.floor(abs(last - first) / step_stops + _NEAR_STOPS / step_stops)
    return [float(start)] + [nominal(first + direction * step_stops * i) for i in range(1, steps + 1)]


def parse_f_numbers(text: str) -> list[float]:
    """F-numbers from a list typed by hand.

    Items stand between commas, semicolons, spaces or line ends; "2.8" and "f/2.8" are both fine.
    Raises ValueError that names the first wrong item and its place.

    >>> parse_f_numbers("f/1.8; 2.8, 4")
    [1.8, 2.8, 4.0]
    """
    items = [item for item in re.split(r"[,;\s]+", _PREFIX.sub(" ", text or "")) if item]
    if not items:
        raise ValueError("The list of f-numbers is empty: write numbers such as 1.8, 2.8, 4.")
    values = []
    for place, item in enumerate(items, start=1):
        try:
            value = float(item)
        except ValueError:
            raise ValueError(
                f'"{item}" (item {place}) is not an f-number: write numbers such as 1.8, 2.8, 4.'
            ) from None
        _check(value, f'"{item}" (item {place}) is not an f-number')
        values.append(value)
    return values


def _check(value: float, what: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what}: an f-number is greater than 0, such as 2.8.")
