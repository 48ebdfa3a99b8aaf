"""The small procedural scenes that lenses are scored on. All colours are linear light."""

from __future__ import annotations

import numpy as np

from tools.canvas import Canvas, tinted
from tools.raytrace import Scene, ThinLens

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
