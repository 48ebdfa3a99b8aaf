"""Distances and shares as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def metres_label(distance_m: float) -> str:
    """A distance as people read it.

    >>> metres_label(2.3456), metres_label(0.085), metres_label(42.0), metres_label(float("inf"))
    ('2.35 m', '8.5 cm', '42 m', '∞')
    """
    if math.isinf(distance_m):
        return "∞"
    if abs(distance_m) < 1.0:
        return f"{distance_m * 100:.3g} cm"
    return f"{distance_m:.3g} m" if distance_m < 1000 else f"{distance_m:.0f} m"


def distances_label(distances_m: Sequence[float]) -> str:
    """One distance, or how many and from where to where.

    >>> distances_label([2.0]), distances_label([3.0, 1.5])
    ('2 m', '2 × focus, 1.5 m to 3 m')
    """
    if len(distances_m) == 1:
        return metres_label(distances_m[0])
    near, far = metres_label(min(distances_m)), metres_label(max(distances_m))
    return f"{len(distances_m)} × focus, {near} to {far}"


def share_label(share: float) -> str:
    """A share of a picture as people read it.

    >>> share_label(0.0731), share_label(0.0002)
    ('7.3 %', 'less than 0.1 %')
    """
    return f"{share * 100:.1f} %" if share >= 0.001 else "less than 0.1 %"
