"""A small Monte-Carlo thin-lens ray tracer: the independent oracle of the optics tests.

It knows nothing of `lens_models`: no circle-of-confusion formula, no blur kernel. It follows light
through an ideal thin lens, in metres, and averages what the rays hit.

Where the one equation comes from. The lens sits at the origin, in the plane Z = 0, and looks along
+Z; the sensor lies `v` metres behind it, where the plane at the focus distance f_d is sharp:

    1/f = 1/v + 1/f_d                                    (thin lens)

The sensor point -(X, Y) is written upright as the picture point (X, Y). Of all the rays that reach
it, the one through the lens centre is not bent: at distance Z it is at (X, Y) Z / v. All the others
meet it at Z = f_d. So the ray that crosses the lens at A (metres, |A| <= f / 2N) is, at distance Z,

    P(Z) = A + (Z / f_d) ((X, Y) f_d / v - A) = (X, Y) Z / v + A (1 - Z / f_d)

Scene content is stored as the pinhole at the lens centre sees it, i.e. P is looked up at the picture
point P v / Z. With q = 1/Z this gives

    x' = x + s (q f_d - 1),   s = A v / f_d              (metres on the sensor, then pixels)

which is x' = x + u R (1 - q f_d) for a point u of the unit disc (the sign of u is free: discs are
symmetric) and R = (f / 2N) v / f_d. `trace_metres` below does not use this equation: it bends the
ray at the lens and cuts it with a plane in space; a test holds the two together.

A plane in space, n . P = 1, seen through the pinhole is q = a + b x + c y, linear in the picture, so
the hit has a closed form: with x0 = x - s, q = q(x0) / (1 - f_d (b s_x + c s_y)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

TILE = 1 << 14  # pixels traced together: the working arrays stay in the cache


@dataclass(frozen=True)
class ThinLens:
    """A physical camera. `sensor_mm` is the width that the picture's width spans."""

    focal_mm: float
    f_number: float
    focus_m: float
    sensor_mm: float = 36.0

    @property
    def image_distance_m(self) -> float:
        focal = self.focal_mm / 1000.0
        return 1.0 / (1.0 / focal - 1.0 / self.focus_m)

    @property
    def aperture_radius_m(self) -> float:
        return self.focal_mm / 1000.0 / self.f_number / 2.0

    def pixel_m(self, width: int) -> float:
        return self.sensor_mm / 1000.0 / width

    def image_distance_px(self, width: int) -> float:
        return self.image_distance_m / self.pixel_m(width)

    def shift_px(self, width: int) -> float:
        """|s| of the docstring for a ray at the aperture's rim, in pixels."""
        return self.aperture_radius_m * self.image_distance_m / self.focus_m / self.pixel_m(width)

    def at(self, f_number: float) -> ThinLens:
        return replace(self, f_number=f_number)


@dataclass(frozen=True)
class Layer:
    """A textured plane: premultiplied linear RGBA, as the pinhole sees it, and q = a + b x + c y.

    `texture` covers the frame plus `margin` pixels on each side at `oversample` texels per pixel;
    (x, y) = (0, 0) is the centre of the frame's top-left pixel, q is in 1/metre, q = 0 is the sky.
    """

    texture: np.ndarray
    plane: tuple[float, float, float]
    margin: int
    oversample: int = 2

    def inverse_depth(self, x, y):
        a, b, c = self.plane
        return a + b * x + c * y

    def look_up(self, x, y):
        """Bilinear RGBA at picture points. Content must reach there: nothing is invented beyond it."""
        height, width = self.texture.shape[:2]
        tx = (x + (self.margin + 0.5)) * self.oversample - 0.5
        ty = (y + (self.margin + 0.5)) * self.oversample - 0.5
        ix = np.floor(tx).astype(np.int64)
        iy = np.floor(ty).astype(np.int64)
        if ix.min() < 0 or iy.min() < 0 or ix.max() > width - 2 or iy.max() > height - 2:
            raise ValueError(f"a ray leaves the texture: a margin of {self.margin} px is too small")
        fx = (tx - ix)[:, None]
        fy = (ty - iy)[:, None]
        flat = self.texture.reshape(height * width, 4)
        at = iy * width + ix
        top = flat.take(at, axis=0)
        top += (flat.take(at + 1, axis=0) - top) * fx
        at += width
        low = flat.take(at, axis=0)
        low += (flat.take(at + 1, axis=0) - low) * fx
        low -= top
        low *= fy
        top += low
        return top


@dataclass(frozen=True)
class Scene:
    """Layers front to back, seen in a frame of height x width pixels."""

    name: str
    layers: tuple[Layer, ...]
    height: int
    width: int


def sample_points(rays: int):
    """Evenly spread points: on the unit disc (ux, uy), and in the pixel's unit square (jx, jy).

    The lens is a sunflower: ring k has radius sqrt((k + 1/2) / rays), so equal areas, and turns by the
    golden angle. The pixel part is the R2 sequence (powers of the plastic number) in the same order;
    together they fill the four dimensions evenly.
    """
    k = np.arange(rays)
    radius, angle = np.sqrt((k + 0.5) / rays), k * (np.pi * (3.0 - np.sqrt(5.0)))
    plastic = 1.324717957244746
    return radius * np.cos(angle), radius * np.sin(angle), (k / plastic) % 1.0, (k / plastic**2) % 1.0


def hit(layer: Layer, x, y, sx, sy, focus_m: float):
    """Where the rays of pixel (x, y) through lens shift (sx, sy) meet the layer: x', y', q, met."""
    a, b, c = layer.plane
    if b == 0.0 and c == 0.0:
        k = a * focus_m - 1.0
        return x + sx * k, y + sy * k, a, None
    x0, y0 = x - sx, y - sy
    q = layer.inverse_depth(x0, y0) / (1.0 - focus_m * (b * sx + c * sy))
    return x0 + sx * (q * focus_m), y0 + sy * (q * focus_m), q, q > 0.0


def _accumulate(scene, x, y, sx, sy, focus_m):
    """One ray per pixel, front to back: premultiplied 'over'."""
    colour = np.zeros((x.size, 3))
    through = np.ones((x.size, 1))
    for layer in scene.layers:
        hx, hy, _, met = hit(layer, x, y, sx, sy, focus_m)
        if met is None:
            rgba = layer.look_up(hx, hy)
        else:  # rays that pass over the horizon of a slanted plane never meet it
            rgba = layer.look_up(np.where(met, hx, 0.0), np.where(met, hy, 0.0)) * met[:, None]
        colour += through * rgba[:, :3]
        through *= 1.0 - rgba[:, 3:]
    return colour


def trace(scene: Scene, lens: ThinLens, rays: int, seed: int = 0, pixel: float = 1.0) -> np.ndarray:
    """The defocused picture (H, W, 3): `rays` per pixel over the aperture and the pixel's own square.

    One set of points (`sample_points`) serves all pixels; each pixel turns the lens part by its own
    angle and wraps the pixel part by its own offset, so the error that remains is unbiased noise that
    does not repeat from pixel to pixel. `pixel=0` samples at pixel centres.
    """
    reach = lens.shift_px(scene.width)
    ux, uy, ox, oy = sample_points(rays)
    random = np.random.default_rng(seed).random((scene.height * scene.width, 3))
    out = np.empty((scene.height * scene.width, 3))
    for start in range(0, len(out), TILE):
        index = np.arange(start, min(start + TILE, len(out)))
        py, px = np.divmod(index.astype(float), scene.width)
        turn, jx, jy = random[index].T
        cos, sin = reach * np.cos(2 * np.pi * turn), reach * np.sin(2 * np.pi * turn)
        total = np.zeros((index.size, 3))
        for k in range(rays):
            x = px + pixel * ((ox[k] + jx) % 1.0 - 0.5)
            y = py + pixel * ((oy[k] + jy) % 1.0 - 0.5)
            sx, sy = ux[k] * cos - uy[k] * sin, ux[k] * sin + uy[k] * cos
            total += _accumulate(scene, x, y, sx, sy, lens.focus_m)
        out[index] = total / rays
    return out.reshape(scene.height, scene.width, 3)


def all_in_focus(scene: Scene, grid: int = 8) -> np.ndarray:
    """The same picture through a pinhole: the pixel's square on a regular grid, no noise."""
    py, px = (v.ravel().astype(float) for v in np.mgrid[: scene.height, : scene.width])
    steps = (np.arange(grid) + 0.5) / grid - 0.5
    total = np.zeros((px.size, 3))
    for oy in steps:
        for ox in steps:
            total += _accumulate(scene, px + ox, py + oy, 0.0, 0.0, 1.0)
    return (total / grid**2).reshape(scene.height, scene.width, 3)


def depth_metres(scene: Scene, grid: int = 4) -> np.ndarray:
    """Nearest layer that covers at least half of the pixel, else the farthest; inf = sky."""
    py, px = (v.ravel().astype(float) for v in np.mgrid[: scene.height, : scene.width])
    steps = (np.arange(grid) + 0.5) / grid - 0.5
    inverse = np.zeros(px.size)
    found = np.zeros(px.size, bool)
    for layer in scene.layers:
        q = np.maximum(layer.inverse_depth(px, py), 0.0)
        cover = sum(layer.look_up(px + ox, py + oy)[:, 3] for oy in steps for ox in steps) / grid**2
        met = (q > 0.0) | (layer.plane[1:] == (0.0, 0.0))  # a slanted plane ends at its horizon
        take = ~found & met & (cover >= 0.5)
        inverse = np.where(take, q, inverse)
        found |= take
    last = np.maximum(scene.layers[-1].inverse_depth(px, py), 0.0)
    inverse = np.where(found, inverse, last)
    with np.errstate(divide="ignore"):
        return (1.0 / inverse).reshape(scene.height, scene.width)


def render(scene: Scene, lens: ThinLens, rays: int = 512, seed: int = 0):
    """(truth, aif, depth): linear light float64 (H, W, 3) twice, metres (H, W)."""
    return trace(scene, lens, rays, seed), all_in_focus(scene), depth_metres(scene)


def trace_metres(lens: ThinLens, sensor_xy_m, lens_xy_m, plane_normal):
    """One real ray in space, the slow way, as a check on `hit`.

    From the sensor point to the lens point; bent there as an ideal thin lens bends a ray (its slope
    falls by height / f); cut with the plane n . P = 1. Returns the point of the plane in metres.
    """
    focal = lens.focal_mm / 1000.0
    sensor = np.array([*sensor_xy_m, -lens.image_distance_m])
    at_lens = np.array([*lens_xy_m, 0.0])
    slope = (at_lens - sensor)[:2] / lens.image_distance_m
    slope = slope - at_lens[:2] / focal
    direction = np.array([*slope, 1.0])
    normal = np.asarray(plane_normal, float)
    z = (1.0 - normal @ at_lens) / (normal @ direction)
    return at_lens + z * direction
