"""Several focus distances: even steps from near to far, or a list typed by hand."""

from __future__ import annotations

import math
import re

from torch import Tensor

from .rack import LINEAR, Keyframes, rack_focus_m

_EXAMPLE = "write metres such as 1, 1.5, 3, inf"
_PER_M = {"cm": 100.0, "m": 1.0, "": 1.0}
_SPACED_UNIT = re.compile(r"(?<=[\d.])\s+(c?m)\b", re.IGNORECASE)


def focus_steps_m(near_m: float, far_m: float, count: int) -> Tensor:
    """`(count,)` float64 metres from near to far, both included, in even steps of 1/distance.

    Blur is linear in 1/distance, so it changes by the same amount from step to step. Far may be inf. A near
    beyond far goes the other way; a count of 1 is near alone.
    Raises ValueError for distances that are not greater than 0 and for a count below 1.
    """
    for name, distance in (("near", near_m), ("far", far_m)):
        if not distance > 0:
            raise ValueError(f"{name}_m is {distance:g} m: a focus distance is greater than 0 m.")
    if count < 1:
        raise ValueError(f"The sweep has {count} distances: it needs at least 1.")
    ends = Keyframes((0, count - 1), (float(near_m), float(far_m)))
    return rack_focus_m(ends if count > 1 else Keyframes((0,), (float(near_m),)), count, LINEAR)


def parse_distances_m(text: str) -> list[float]:
    """Distances in metres from a list typed by hand, in its order.

    Items stand between commas, semicolons, spaces or line ends; "1.5", "1.5 m", "80 cm", "inf" and "∞" are
    all fine. Raises ValueError that names the first wrong item and its place.

    >>> parse_distances_m("1, 1.5m; 80 cm ∞")
    [1.0, 1.5, 0.8, inf]
    """
    items = [item for item in re.split(r"[,;\s]+", _SPACED_UNIT.sub(r"\1", text or "")) if item]
    if not items:
        raise ValueError(f"The list of distances is empty: {_EXAMPLE}.")
    return [_metres(item, place) for place, item in enumerate(items, start=1)]


def _metres(item: str, place: int) -> float:
    unit = next(unit for unit in _PER_M if item.lower().endswith(unit))
    number = item[: len(item) - len(unit)]
    try:
        distance = math.inf if number == "∞" else float(number) / _PER_M[unit]
    except ValueError:
        raise ValueError(f'"{item}" (item {place}) is not a distance: {_EXAMPLE}.') from None
    if not distance > 0:
        raise ValueError(
            f'"{item}" (item {place}) is not a focus distance, which is greater than 0 m: {_EXAMPLE}.'
        )
    return distance
