"""Procedural scenes for the ray tracer: textures, masks, and the two small scenes lenses are scored on.

All colours are linear light. Textures are made at two texels per pixel, with real content in a margin
around the frame, so that neither the truth nor its border is invented.
"""

from __future__ import annotations

import numpy as np
from optics.raytrace import Layer, Scene, ThinLens


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


# ---- the two scenes ---------------------------------------------------------------------------------
HEIGHT, WIDTH = 128, 160
LENS = ThinLens(focal_mm=85.0, f_number=1.4, focus_m=1.5)  # R = 8.1 px at this size


def slant() -> tuple[Scene, ThinLens]:
    """One textured plane that runs through focus: behind it on the left, in front on the right."""
    canvas = Canvas(HEIGHT, WIDTH, margin=16)
    middle = 1.0 / LENS.focus_m
    tilt = 0.8 * middle / WIDTH
    plane = (middle - tilt * (WIDTH - 1) / 2 - 0.2 * tilt * (HEIGHT - 1) / 2, tilt, 0.2 * tilt)
    colour = tinted(canvas.noise(1), (0.02, 0.03, 0.05), (0.9, 0.7, 0.45))
    colour *= 0.3 + 0.7 * canvas.checker(9.0, angle=0.35)[..., None]
    return Scene("slant", (canvas.layer(plane, colour),), HEIGHT, WIDTH), LENS


def portrait() -> tuple[Scene, ThinLens]:
    """A far background with HDR lights, a subject in focus before it, a leaf close to the lens."""
    canvas = Canvas(HEIGHT, WIDTH, margin=16)
    far = tinted(canvas.noise(2, slope=1.2), (0.01, 0.03, 0.02), (0.35, 0.5, 0.7))
    far += canvas.stripes(13.0, angle=1.2)[..., None] * (0.3, 0.25, 0.1)
    far += canvas.lights(3, 10, HEIGHT * 0.6, WIDTH)
    skin = tinted(canvas.noise(4, slope=0.8), (0.35, 0.16, 0.1), (0.85, 0.6, 0.45))
    head = canvas.ellipse(84.0, 52.0, 24.0, 30.0)
    body = canvas.ellipse(84.0, 134.0, 52.0, 56.0)
    leaf = tinted(canvas.noise(5), (0.02, 0.08, 0.01), (0.15, 0.5, 0.1))
    near = canvas.ellipse(8.0, 128.0, 40.0, 34.0, soft_px=1.5)
    layers = (
        canvas.layer((1.0, 0.0, 0.0), leaf, near),
        canvas.layer((1 / LENS.focus_m, 0.0, 0.0), skin, np.maximum(head, body)),
        canvas.layer((1 / 12, 0.0, 0.0), far),
    )
    return Scene("portrait", layers, HEIGHT, WIDTH), LENS
