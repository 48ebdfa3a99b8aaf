"""Procedural scenes for the ray tracer: textures, masks, and the small scenes lenses are scored on.

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


# ---- the scenes ---------------------------------------------------------------------------------
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


def hair() -> tuple[Scene, ThinLens]:
    """A head with loose strands, in focus, before a textured wall far behind."""
    canvas = Canvas(HEIGHT, WIDTH, margin=16)
    wall = tinted(canvas.noise(11, slope=1.2), (0.1, 0.25, 0.3), (0.75, 0.8, 0.6))
    wall *= 0.5 + 0.5 * canvas.checker(17.0, angle=0.6)[..., None]
    brown = tinted(canvas.noise(12, slope=0.7), (0.05, 0.02, 0.01), (0.3, 0.14, 0.06))
    random = np.random.default_rng(13)
    angles = random.uniform(-np.pi, 0.3, 60)
    roots = [(80 + 30 * np.cos(a), 80 + 30 * np.sin(a), a + random.normal(0, 0.4)) for a in angles]
    cover = np.maximum(canvas.disc(80.0, 80.0, 32.0), canvas.strands(14, roots, 26.0))
    layers = (
        canvas.layer((1 / LENS.focus_m, 0.0, 0.0), brown, cover),
        canvas.layer((1 / 6, 0.0, 0.0), wall),
    )
    return Scene("hair", layers, HEIGHT, WIDTH), LENS


def behind() -> tuple[Scene, ThinLens]:
    """Focus on a wall, a near thing out of focus before it: what it hides has to be made up."""
    canvas = Canvas(HEIGHT, WIDTH, margin=16)
    wall = tinted(canvas.noise(21), (0.05, 0.08, 0.15), (0.8, 0.75, 0.6))
    wall *= 0.4 + 0.6 * canvas.checker(11.0, angle=0.2)[..., None]
    near = tinted(canvas.noise(22), (0.3, 0.05, 0.02), (0.9, 0.3, 0.1))
    layers = (
        canvas.layer((1.0, 0.0, 0.0), near, canvas.ellipse(70.0, 70.0, 34.0, 28.0)),
        canvas.layer((1 / 4, 0.0, 0.0), wall),
    )
    return Scene("behind", layers, HEIGHT, WIDTH), ThinLens(focal_mm=85.0, f_number=2.8, focus_m=4.0)


def sitter() -> tuple[Scene, ThinLens]:
    """A head in focus, a hedge and a wall behind it, well out of focus: to fit focus and aperture on."""
    height, width = 160, 224
    canvas = Canvas(height, width, margin=20)
    wall = tinted(canvas.noise(31), (0.05, 0.07, 0.1), (0.8, 0.8, 0.75))
    wall *= 0.4 + 0.6 * canvas.checker(21.0, angle=0.3)[..., None]
    hedge = tinted(canvas.noise(32, slope=0.8), (0.01, 0.05, 0.01), (0.3, 0.5, 0.1))
    skin = tinted(canvas.noise(33, slope=0.8), (0.3, 0.15, 0.1), (0.9, 0.65, 0.5))
    layers = (
        canvas.layer((1 / 2, 0.0, 0.0), skin, canvas.ellipse(90.0, 80.0, 36.0, 46.0)),
        canvas.layer((1 / 4, 0.0, 0.0), hedge, canvas.half_plane(150.0, angle=0.2)),
        canvas.layer((1 / 12, 0.0, 0.0), wall),
    )
    return Scene("sitter", layers, height, width), ThinLens(focal_mm=85.0, f_number=1.2, focus_m=2.0)
