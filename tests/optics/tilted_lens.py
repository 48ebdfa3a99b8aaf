"""A thin lens that is really tilted, traced ray by ray: the independent oracle of the leaning plane.

It refracts and cuts planes, in metres; it knows no circle of confusion and nothing of `lens_models`.
X is right, Y down, Z ahead; pictures are `(H, W, ...)`.
"""

from __future__ import annotations

import math

import numpy as np


def normal(tilt_deg, swing_deg):
    """n of the plane n . P = f_d: top away for tilt > 0, right side away for swing > 0; Y points down."""
    return np.array([-math.tan(math.radians(swing_deg)), math.tan(math.radians(tilt_deg)), 1.0])


def directions(fx_px, height, width):
    """(X/Z, Y/Z, 1) of every pixel centre, `(H, W, 3)`, by the picture's own pinhole."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([(x - width / 2) / fx_px, (y - height / 2) / fx_px, np.ones_like(x)], axis=-1)


def depth_of_plane(plane, c, towards):
    """Z of the plane n . P = c along directions, `(H, W)` metres; +inf where it is not ahead."""
    inverse = towards @ plane / c
    return np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), np.inf)


class TiltedLens:
    """An ideal thin lens whose axis is really tilted, behind it a sensor that is not. Metres.

    Its axis is `m`; a point P is imaged to P / (1 - m . P / f), so a ray through a lens point A (m . A = 0)
    from the sensor point S leaves it on the line to what S is the image of, S / (1 + m . S / f).
    """

    def __init__(self, focal_m, f_number, lens_tilt, image_m):
        self.f, self.rim, self.v = focal_m, focal_m / f_number / 2, image_m
        # > 0 turns the lens to look down, which leans the plane's top away: Y points down
        self.m = np.array([0.0, math.sin(lens_tilt), math.cos(lens_tilt)])
        self.across, self.down = np.array([1.0, 0.0, 0.0]), np.array([0.0, self.m[2], -self.m[1]])

    def rays(self, x, y, u, w):
        """Starts and directions of rays of sensor points seen upright at (x, y) metres through (u, w)."""
        sensor = np.stack([-x, -y, np.full_like(x, -self.v)], axis=-1)
        start = self.rim * (u[..., None] * self.across + w[..., None] * self.down)
        image = sensor / (1.0 + sensor @ self.m / self.f)[..., None]
        towards = image - start
        return start, towards / towards[..., 2:]


def traced(lens, surfaces, seen, rays=256):
    """What the tilted lens records, `(H, W, 3)`, at sensor points `seen`, x and y in metres.

    surfaces: front to back, planes n . P = c as (n, c, colour and coverage as functions of X/Z, Y/Z).
    """
    k = np.arange(rays)
    radius, angle = np.sqrt((k + 0.5) / rays), k * math.pi * (3.0 - math.sqrt(5.0))
    total = 0.0
    for u, w in zip(radius * np.cos(angle), radius * np.sin(angle), strict=True):
        start, towards = lens.rays(*seen, np.full_like(seen[0], u), np.full_like(seen[0], w))
        through = 1.0
        for plane, c, colour, coverage in surfaces:
            met = start + towards * ((c - start @ plane) / (towards @ plane))[..., None]
            x, y = met[..., 0] / met[..., 2], met[..., 1] / met[..., 2]
            total = total + through * coverage(x, y)[..., None] * colour(x, y)
            through = through * (1.0 - coverage(x, y)[..., None])
    return total / rays
