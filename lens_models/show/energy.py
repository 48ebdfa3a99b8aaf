"""The energy of a sweep over its f-numbers, drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..metrics.monotonicity import Monotonicity
from ..stops import label

_PAPER, _GRID, _INK = (28, 28, 28), (66, 66, 66), (237, 237, 237)
_ENERGY, _DETAIL, _FAILED = (120, 190, 255), (255, 196, 92), (255, 82, 82)
#: Room at the top and bottom of the curves, as a share of their span, and the smallest span of the axis.
_MARGIN, _SMALLEST_SPAN = 0.06, 1e-6
_GRID_LINES = 5


def energy_plot(sweep: Monotonicity, width: int = 960, height: int = 600, title: str = "") -> Tensor:
    """Both columns over the f-number, each as a share of its own largest value; f-numbers in stops.

    Steps at which the energy does not grow are red. width, height: px, at least 320 × 200.
    Returns `(1, height, width, 3)` sRGB 0..1.
    """
    if width < 320 or height < 200:
        raise ValueError(f"The plot needs at least 320 × 200 px; {width} × {height} px were asked for.")
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    size = max(10, height // 32)
    font = ImageFont.load_default(size)
    left, right, top, bottom = 5 * size, width - 3 * size, 5 * size, height - 4 * size
    curves = (
        (_shares(sweep.energies), sweep.failed, sweep.score, _ENERGY, "energy"),
        (_shares(sweep.details), sweep.detail_failed, sweep.detail_score, _DETAIL, "energy about the mean"),
    )
    values = [value for curve, *_ in curves for value in curve]
    margin = _MARGIN * max(max(values) - min(values), _SMALLEST_SPAN)
    low, high = min(values) - margin, max(values) + margin
    # so many that they tell the lines of the grid apart
    decimals = max(0, math.ceil(1.0 - math.log10(100.0 * (high - low) / (_GRID_LINES - 1))))
    stops = [math.log2(n) for n in sweep.f_numbers]

    def x_of(stop: float) -> float:
        return left + (right - left) * (stop - stops[0]) / (stops[-1] - stops[0])

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    for k in range(_GRID_LINES):
        value = low + (high - low) * k / (_GRID_LINES - 1)
        draw.line([(left, y_of(value)), (right, y_of(value))], fill=_GRID)
        text = f"{100.0 * value:.{decimals}f} %"
        draw.text((left - size // 2, y_of(value)), text, fill=_INK, font=font, anchor="rm")
    end = -math.inf
    for n, stop in zip(sweep.f_numbers, stops, strict=True):
        draw.line([(x_of(stop), top), (x_of(stop), bottom)], fill=_GRID)
        half = font.getlength(label(n)) / 2.0
        if x_of(stop) - half > end + size // 2:  # labels of close apertures would run into each other
            draw.text((x_of(stop), bottom + size), label(n), fill=_INK, font=font, anchor="mt")
            end = x_of(stop) + half
    for row, (curve, failed, score, colour, name) in enumerate(curves):
        points = [(x_of(s), y_of(v)) for s, v in zip(stops, curve, strict=True)]
        for i in range(len(points) - 1):
            wrong = (sweep.f_numbers[i], sweep.f_numbers[i + 1]) in failed
            draw.line(points[i : i + 2], fill=_FAILED if wrong else colour, width=max(2, size // 5))
        r = max(2, size // 4)
        for x, y in points:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        at = (left + size, 2.2 * size + row * 1.3 * size)
        draw.line([(left, at[1]), (left + 0.7 * size, at[1])], fill=colour, width=max(2, size // 5))
        draw.text(at, f"{name}: {score_label(score)}", fill=_INK, font=font, anchor="lm")
    if title:
        draw.text((left, size), title, fill=_INK, font=font, anchor="lm")
    return torch.from_numpy(np.array(canvas))[None] / 255.0


def score_label(share: float) -> str:
    """A score as the paper writes it.

    >>> score_label(1.0), score_label(6 / 7)
    ('100 %', '85.71 %')
    """
    return f"{100.0 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _shares(energies: Sequence[float]) -> list[float]:
    largest = max(energies)
    return [e / largest if largest > 0 else 1.0 for e in energies]
