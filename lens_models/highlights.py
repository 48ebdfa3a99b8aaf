"""Clipped highlights given back some of the light that 8 bits cut off, and the way back afterwards.

A lamp that a photo shows as 1.0 may have been 2, 10 or 1000 times as bright. Blurred as it is it turns into
a dull grey spot; expanded before the lens it opens into a disc. What is nearly white is expanded along
a curve with a stated end, everything else keeps its value to the bit, and the same curve backwards after the
lens leaves what is in focus as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Linear light from which a pixel counts as a highlight: 0.9 in sRGB, 230 of 255.
KNEE = 0.787


def expand_highlights(radiance: Tensor, stops: float) -> Tensor:
    """Radiance with white at 2^stops: m' = k + (1 - k) u / (1 - c u), u = (m - k) / (1 - k), for m > k.

    radiance: `(B, 3 or 4, H, W)` linear, premultiplied. m is a pixel's largest channel, so colour is kept.
    stops: >= 0; 0 changes nothing. Above 1, in a picture with more than 8 bits, everything is 2^stops
    brighter. Slope 1 at the knee, strictly rising, differentiable. `compress_highlights` is its inverse.
    Raises ValueError for negative stops.
    """
    white, bend = _curve(stops)
    if white == 1.0:
        return radiance
    brightest = _brightest(radiance)
    above = ((brightest - KNEE) / (1.0 - KNEE)).clamp(0.0, 1.0)
    curved = KNEE + (1.0 - KNEE) * above / (1.0 - bend * above)
    factor = torch.where(brightest < 1.0, curved / brightest.clamp_min(KNEE), white)
    return _scaled(radiance, factor, brightest)


def compress_highlights(radiance: Tensor, stops: float) -> Tensor:
    """Inverse of `expand_highlights` with the same stops."""
    white, bend = _curve(stops)
    if white == 1.0:
        return radiance
    brightest = _brightest(radiance)
    above = (brightest.clamp(KNEE, white) - KNEE) / (1.0 - KNEE)
    curved = KNEE + (1.0 - KNEE) * above / (1.0 + bend * above)
    factor = torch.where(brightest < white, curved / brightest.clamp_min(KNEE), 1.0 / white)
    return _scaled(radiance, factor, brightest)


def _curve(stops: float) -> tuple[float, float]:
    """Where white goes, and the constant c that takes it there."""
    if not stops >= 0.0:
        raise ValueError(f"highlight recovery is {stops:g} stops: it must be 0 or more.")
    white = 2.0**stops
    return white, 1.0 - (1.0 - KNEE) / (white - KNEE)


def _brightest(radiance: Tensor) -> Tensor:
    """Largest colour channel `(B, 1, H, W)`, without the premultiplied alpha."""
    brightest = radiance[:, :3].amax(1, keepdim=True)
    if radiance.shape[1] == 3:
        return brightest
    return brightest / radiance[:, 3:].clamp_min(1e-6)


def _scaled(radiance: Tensor, factor: Tensor, brightest: Tensor) -> Tensor:
    colour = torch.where(brightest > KNEE, radiance[:, :3] * factor, radiance[:, :3])
    return torch.cat([colour, radiance[:, 3:]], dim=1)
