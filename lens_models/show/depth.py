"""Depth as a picture for people: warm is near, cool is far, with a legend in metres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..depth.convert import DepthMap
from ..labels import metres_label, share_label
from ..light import linear_to_srgb

#: The colours from near to far: OKLab lightness and chroma, hue in degrees. Lightness falls evenly.
_ENDS_L = (0.92, 0.27)
_PATH = (
    (0.0, 0.135, 96.0),
    (0.22, 0.175, 62.0),
    (0.45, 0.20, 24.0),
    (0.68, 0.18, -28.0),
    (1.0, 0.115, -86.0),
)
_SHADES = 256
_LMS_FROM_LAB = (
    (1, 0.3963377774, 0.2158037573),
    (1, -0.1055613458, -0.0638541728),
    (1, -0.0894841775, -1.2914855480),
)
_RGB_FROM_LMS = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
#: Sky is a pale blue that the colours do not have; pixels without a measurement carry dark stripes.
SKY_RGB = (0.78, 0.86, 0.93)
_PAPER, _INK, _FAINT = (28, 28, 30), (238, 238, 238), (140, 140, 146)
#: Share of the pixels that may lie beyond either end of the colours when the ends are automatic.
_OUTLIERS = 0.002
#: The two ends are at least this far apart, as a ratio.
_LEAST_SPAN = 1.02
_SAMPLES = 1 << 20
#: A legend needs a picture so wide.
_LEAST_LEGEND_PX = 240
_ROUND_STEPS = (1.0, 2.0, 5.0, 3.0, 4.0, 7.0, 1.5, 2.5)


@dataclass(frozen=True)
class Range:
    """What the ends of the colours stand for, metres; near < far."""

    near_m: float
    far_m: float

    def position(self, metres: Tensor) -> Tensor:
        """0 at the near end, 1 at the far end, evenly in 1/d, as blur is; clamped to the ends."""
        near, far = 1.0 / self.near_m, 1.0 / self.far_m
        return ((near - 1.0 / metres) / (near - far)).clamp(0.0, 1.0)


@cache
def colour_map() -> Tensor:
    """The colours from near to far, `(256, 3)` sRGB 0..1, at even perceived distances (OKLab)."""
    t = torch.linspace(0.0, 1.0, 4 * _SHADES, dtype=torch.float64)
    stops, chroma, hue = (torch.tensor(column, dtype=torch.float64) for column in zip(*_PATH, strict=True))
    lab = _lab(t, stops, chroma, torch.deg2rad(hue))
    # even steps of colour difference along the path
    travelled = F.pad((lab[1:] - lab[:-1]).norm(dim=1).cumsum(0), (1, 0))
    even = _interpolated(torch.linspace(0.0, 1.0, _SHADES, dtype=torch.float64), travelled / travelled[-1], t)
    return _srgb_from_oklab(_lab(even, stops, chroma, torch.deg2rad(hue))).float()


def _lab(t: Tensor, stops: Tensor, chroma: Tensor, hue: Tensor) -> Tensor:
    c, h = _interpolated(t, stops, chroma), _interpolated(t, stops, hue)
    lightness = _ENDS_L[0] + (_ENDS_L[1] - _ENDS_L[0]) * t
    return torch.stack([lightness, c * torch.cos(h), c * torch.sin(h)], dim=1)


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    upper = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    t = (at - x[upper - 1]) / (x[upper] - x[upper - 1])
    return y[upper - 1] + t * (y[upper] - y[upper - 1])


def _srgb_from_oklab(lab: Tensor) -> Tensor:
    """Ottosson's OKLab to sRGB, clamped to its gamut."""
    to_lms, to_rgb = lab.new_tensor(_LMS_FROM_LAB), lab.new_tensor(_RGB_FROM_LMS)
    return linear_to_srgb(((lab @ to_lms.T) ** 3 @ to_rgb.T).clamp(0.0, 1.0))


def automatic_range(depth: DepthMap, near_m: float = 0.0, far_m: float = 0.0) -> Range:
    """The ends of the colours for a batch: all but the outermost 0.2 % of its finite distances.

    near_m, far_m: metres that replace the automatic ends, 0 = automatic.
    Raises ValueError when near is not smaller than far.
    """
    if near_m > 0 and far_m > 0 and near_m >= far_m:
        raise ValueError(f"near_m is {near_m:g} and far_m is {far_m:g}: near must be smaller than far.")
    finite = _sampled(depth.metres[torch.isfinite(depth.metres)])
    if finite.numel():
        ends = finite.new_tensor([_OUTLIERS, 1.0 - _OUTLIERS])
        low, high = torch.quantile(finite, ends).tolist()
    else:
        low, high = 1.0, 10.0
    near, far = near_m or low, far_m or high
    if far < near * _LEAST_SPAN:  # flat depth, or all of it beyond the end that was given
        if near_m > 0:
            far = near * _LEAST_SPAN
        elif far_m > 0:
            near = far / _LEAST_SPAN
        else:
            middle, apart = math.sqrt(near * far), math.sqrt(_LEAST_SPAN)
            near, far = middle / apart, middle * apart
    return Range(near, far)


def _sampled(values: Tensor) -> Tensor:
    """At most a million of them: quantiles need no more."""
    return values[:: max(1, values.numel() // _SAMPLES)].float().flatten()


def colours(depth: DepthMap, span: Range) -> Tensor:
    """Depth as colours, `(B, H, W, 3)` sRGB 0..1. Sky is pale blue; what had no measurement is striped."""
    metres = depth.metres
    shades = colour_map().to(metres.device)
    picture = shades[(span.position(metres) * (_SHADES - 1)).round().long()]
    picture = torch.where(torch.isinf(metres)[..., None], picture.new_tensor(SKY_RGB), picture)
    height, width = depth.size
    period = max(6, min(height, width) // 60)
    row, column = (torch.arange(n, device=metres.device) for n in (height, width))
    striped = (row[:, None] + column) % period < period // 3
    hidden = ~depth.valid.to(metres.device) & striped
    return torch.where(hidden[..., None], 0.35 * picture, picture)


def inverse_grey(depth: DepthMap, *, near_m: float = 0.0, far_m: float = 0.0) -> Tensor:
    """A depth map as a depth ControlNet reads it: grey evenly in 1/d, near is white, sky is black.

    The whole batch shares one range; near_m, far_m as in `depth_preview`.
    Returns `(B, H, W, 3)` 0..1 float32 on the CPU.
    Raises ValueError when near is not smaller than far.
    """
    shade = 1.0 - automatic_range(depth, near_m, far_m).position(depth.metres.float())
    return shade[..., None].expand(-1, -1, -1, 3).cpu()


def depth_preview(depth: DepthMap, *, near_m: float = 0.0, far_m: float = 0.0, legend: bool = True) -> Tensor:
    """A depth map as a picture, with a legend under it.

    The whole batch shares one range of colours, so a clip does not flicker.
    near_m, far_m: metres at the ends of the colours, 0 = automatic. legend: distribution of the distances,
        colours evenly in 1/d, and the metres of the ends, of round distances and of the picture's median.
    Returns `(B, H', W, 3)` sRGB 0..1 float32 on the CPU; W is the map's width, at least 240 px with a legend.
    Raises ValueError when near is not smaller than far.
    """
    span = automatic_range(depth, near_m, far_m)
    frames = colours(depth, span).float().cpu()
    if not legend:
        return frames
    times = -(-_LEAST_LEGEND_PX // frames.shape[2])  # small maps in whole-number steps larger
    frames = frames.repeat_interleave(times, 1).repeat_interleave(times, 2)
    width = frames.shape[2]
    strips = [
        _legend(metres.cpu(), valid.cpu(), span, width)
        for metres, valid in zip(depth.metres, depth.valid, strict=True)
    ]
    return torch.cat([frames, torch.stack(strips)], dim=1)


def _legend(metres: Tensor, valid: Tensor, span: Range, width: int) -> Tensor:
    """Histogram, colour bar, ticks and labels, `(h, width, 3)` sRGB."""
    text = max(11, min(22, round(width / 52)))
    font = ImageFont.load_default(text)
    margin, gap = round(1.2 * text), round(0.5 * text)
    bar_height, chart_height = round(1.1 * text), round(2.6 * text)
    left, right = margin, width - margin - 1
    top = gap + round(1.5 * text)
    bar_top = top + chart_height + 2
    bottom = bar_top + bar_height
    height = bottom + round(2.2 * text)
    strip = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(strip)

    shades = (colour_map() * 255.0).round().to(torch.uint8).tolist()
    finite = _sampled(metres[torch.isfinite(metres) & valid])
    places = right - left + 1
    heights = [0] * places
    if finite.numel():
        share = torch.histc(span.position(finite), bins=places, min=0.0, max=1.0)
        smooth = F.avg_pool1d(share[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
        # the square root keeps thin slices visible beside a wall
        high = (smooth / smooth.max().clamp_min(1e-9)).sqrt() * chart_height
        heights = high.round().int().tolist()
    for x, high in enumerate(heights):
        shade = tuple(shades[round(x / max(1, places - 1) * (_SHADES - 1))])
        if high:
            draw.line([(left + x, bar_top - 2 - high), (left + x, bar_top - 3)], fill=shade)
        draw.line([(left + x, bar_top), (left + x, bottom - 1)], fill=shade)

    def at(distance_m: float) -> float:
        return left + span.position(torch.tensor(distance_m)).item() * (places - 1)

    label_y = bottom + round(1.15 * text)
    taken = []
    ends = ((span.near_m, left, "lm"), (span.far_m, right + 1, "rm"))
    for distance, x, anchor in ends:
        label = metres_label(distance)
        draw.text((x, label_y), label, fill=_INK, font=font, anchor=anchor)
        long = font.getlength(label)
        taken.append((x, x + long) if anchor == "lm" else (x - long, x))
    for distance in _round_distances(span):
        x, label = at(distance), metres_label(distance)
        half = font.getlength(label) / 2.0
        if all(x + half + text < start or x - half - text > end for start, end in taken):
            draw.line([(x, bottom), (x, bottom + round(0.35 * text))], fill=_FAINT)
            draw.text((x, label_y), label, fill=_FAINT, font=font, anchor="mm")
            taken.append((x - half, x + half))

    header_y = gap + round(0.6 * text)
    right_edge = float(right + 1)
    sky, missing = torch.isinf(metres).double().mean().item(), 1.0 - valid.double().mean().item()
    for note, share, swatch in (("sky", sky, True), ("filled", missing, False)):
        if share <= 0:
            continue
        note = f"{note} {share_label(share)}"
        draw.text((right_edge, header_y), note, fill=_INK, font=font, anchor="rm")
        right_edge -= font.getlength(note) + 0.5 * text
        if swatch:
            box = [(right_edge - 0.8 * text, header_y - 0.4 * text), (right_edge, header_y + 0.4 * text)]
            draw.rectangle(box, fill=tuple(round(255 * c) for c in SKY_RGB))
            right_edge -= 0.8 * text
        right_edge -= text
    if finite.numel():
        middle = finite.median().item()
        label = f"median {metres_label(middle)}"
        x, half = at(middle), font.getlength(label) / 2.0
        centre = max(left + half, min(x, right_edge - half))
        if centre - half >= left:
            draw.text((centre, header_y), label, fill=_INK, font=font, anchor="mm")
        draw.line([(x, header_y + 0.75 * text), (x, bottom - 1)], fill=_INK, width=max(1, text // 9))
    return torch.from_numpy(np.array(strip)) / 255.0


def _round_distances(span: Range) -> list[float]:
    """1, 10, 2, 20, ... metres inside the range, the roundest first."""
    first, last = math.floor(math.log10(span.near_m)), math.ceil(math.log10(span.far_m))
    distances = [step * 10.0**power for step in _ROUND_STEPS for power in range(first, last + 1)]
    return [d for d in distances if span.near_m < d < span.far_m]
