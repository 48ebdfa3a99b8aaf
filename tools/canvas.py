"""Textures and masks of procedural scenes for the ray tracer.

All colours are linear light. Textures are made at two texels per pixel, with real content in a margin
around the frame, so that neither the truth nor its border is invented.
"""

from __future__ import annotations

import numpy as np

from .raytrace import Layer


class Canvas:
    """The texel grid of a layer: `x`, `y` in pixels of the frame (0, 0 = centre of its first pixel)."""

    def __init__(self, height: int, width: int, margin: int, oversample: int = 2):
        self.margin, self.oversample = margin, oversample
        self.shape = ((height + 2 * margin) * oversample, (width + 2 * margin) * oversample)
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]].astype(float)
        self.x = (columns + 0.5) / oversample - 0.5 - margin
        self.y = (rows + 0.5) / oversample - 0.5 - margin

    def layer(self, plane, rgb, alpha=1.0) -> Layer:
        rgba = np.empty((*self.shape, 4))
        rgba[..., 3] = alpha
        rgba[..., :3] = np.asarray(rgb) * rgba[..., 3:]
        return Layer(rgba, tuple(float(v) for v in plane), self.margin, self.oversample)

    # ---- textures: (h, w) in 0..1 unless said otherwise -------------------------------------------
    def noise(self, seed: int, slope: float = 1.0, finest_px: float = 1.5):
        """1/f^slope noise: every scale down to `finest_px`, mean 0.5, mostly within 0..1."""
        fy = np.fft.fftfreq(self.shape[0])[:, None] * self.oversample
        fx = np.fft.rfftfreq(self.shape[1])[None] * self.oversample
        frequency = np.hypot(fy, fx)
        frequency[0, 0] = 1.0
        spectrum = frequency**-slope * np.exp(-((frequency * finest_px) ** 2))
        spectrum[0, 0] = 0.0
        phase = np.random.default_rng(seed).random(spectrum.shape) * 2 * np.pi
        field = np.fft.irfft2(spectrum * np.exp(1j * phase), self.shape)
        return np.clip(0.5 + 0.18 * field / field.std(), 0.0, 1.0)

    def checker(self, size_px: float, angle: float = 0.0):
        u, v = self.turned(angle)
        return ramp(np.sin(np.pi * u / size_px) * np.sin(np.pi * v / size_px), np.pi / size_px)

    def stripes(self, period_px: float, angle: float = 0.0):
        u, _ = self.turned(angle)
        return ramp(np.sin(2 * np.pi * u / period_px), 2 * np.pi / period_px)

    def lights(self, seed: int, count: int, height: int, width: int, radius_px=0.8, power=(8.0, 40.0)):
        """HDR point lights (h, w, 3): values far above 1, each with a tint."""
        random = np.random.default_rng(seed)
        field = np.zeros((*self.shape, 3))
        for _ in range(count):
            cx, cy = random.random(2) * (width - 1, height - 1)
            tint = random.uniform(0.4, 1.0, 3)
            spot = self.disc(cx, cy, radius_px, soft_px=1.0)
            field += spot[..., None] * tint * random.uniform(*power)
        return field

    # ---- masks: coverage (h, w), soft over `soft_px` ------------------------------------------------
    def disc(self, cx, cy, radius_px, soft_px: float = 0.5):
        return step((radius_px - np.hypot(self.x - cx, self.y - cy)) / soft_px)

    def ellipse(self, cx, cy, rx, ry, soft_px: float = 0.5):
        distance = (1.0 - np.hypot((self.x - cx) / rx, (self.y - cy) / ry)) * min(rx, ry)
        return step(distance / soft_px)

    def half_plane(self, cx, angle: float = 0.0, soft_px: float = 0.5):
        u, _ = self.turned(angle)
        return step((u - cx) / soft_px)

    def spot(self, cx, cy, sigma_px):
        """A smooth point of light: cheap to integrate, its variance known."""
        return np.exp(-((self.x - cx) ** 2 + (self.y - cy) ** 2) / (2 * sigma_px**2))

    def strands(self, seed, roots, length_px, width_px=(0.6, 1.8), bend=0.8, pieces=6):
        """Hair: curves from each root (x, y, angle), thinner towards the tip."""
        random = np.random.default_rng(seed)
        cover = np.zeros(self.shape)
        for x, y, angle in roots:
            step_px = length_px * random.uniform(0.5, 1.2) / pieces
            turn, width = random.uniform(-bend, bend) / pieces, random.uniform(*width_px)
            for k in range(pieces):
                nx, ny = x + step_px * np.cos(angle), y + step_px * np.sin(angle)
                near = self.around((x, nx), (y, ny), width + 1.0)
                gx, gy = self.x[near], self.y[near]
                along = ((gx - x) * (nx - x) + (gy - y) * (ny - y)) / step_px**2
                along = np.clip(along, 0.0, 1.0)
                distance = np.hypot(gx - x - along * (nx - x), gy - y - along * (ny - y))
                half = 0.5 * width * (1.0 - 0.7 * (k + along) / pieces)
                # a strand narrower than a texel covers that share of it
                share = step((half - distance) / 0.5) * np.minimum(1.0, 4.0 * half)
                cover[near] = np.maximum(cover[near], share)
                x, y, angle = nx, ny, angle + turn
        return cover

    def around(self, xs, ys, reach_px: float) -> tuple[slice, slice]:
        """Rows and columns of the texels within `reach_px` of these points' box."""

        def texels(values, count):
            first, last = ((v + 0.5 + self.margin) * self.oversample for v in (min(values), max(values)))
            wide = reach_px * self.oversample
            return slice(max(0, int(first - wide)), max(0, min(count, int(last + wide) + 1)))

        return texels(ys, self.shape[0]), texels(xs, self.shape[1])

    def turned(self, angle: float):
        cos, sin = np.cos(angle), np.sin(angle)
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin


def step(t):
    """A linear edge of width 1 around 0: the box coverage of a straight edge."""
    return np.clip(t + 0.5, 0.0, 1.0)


def ramp(wave, steepness):
    """A square wave from a sine, its edges half a pixel wide."""
    return np.clip(wave / (0.5 * steepness) + 0.5, 0.0, 1.0)


def tinted(value, dark, light):
    return np.asarray(dark) + value[..., None] * (np.asarray(light, float) - np.asarray(dark))
