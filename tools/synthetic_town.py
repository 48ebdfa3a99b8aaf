"""A synthetic model town on a table, seen from above: its ground leans, for the pictures of tilt."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, FINER = 640, 427, 2
FOCAL_MM = 50.0
#: The camera looks down by so much at a point of the ground so far away.
DOWN_DEG, AWAY_M = 30.0, 1.0
_BLOCK_M, _ROAD_M = 0.13, 0.035
_SUN = np.array((0.45, 0.8, -0.4)) / np.linalg.norm((0.45, 0.8, -0.4))
_ROOFS = ((0.62, 0.16, 0.08), (0.70, 0.34, 0.12), (0.30, 0.32, 0.36), (0.16, 0.26, 0.42), (0.66, 0.6, 0.5))


def _houses() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Corners and colour of every box; low green ones are hedges."""
    random = np.random.default_rng(5)
    houses = []
    for row in range(-6, 14):
        for column in range(-9, 10):
            for _ in range(3):
                size = random.uniform(0.022, 0.04, 2)
                room = _BLOCK_M - _ROAD_M - size - 0.012
                x, z = np.array((column, row)) * _BLOCK_M + _ROAD_M / 2 + 0.006 + random.random(2) * room
                green = random.random() < 0.3
                height = random.uniform(0.012, 0.02) if green else random.uniform(0.02, 0.07)
                colour = np.array((0.07, 0.22, 0.05) if green else _ROOFS[random.integers(len(_ROOFS))])
                houses.append((np.array((x, 0.0, z)), np.array((x + size[0], height, z + size[1])), colour))
    return houses


def _enter(low, high, origin, ray):
    """Where rays enter a box, in lengths of the ray, inf where they pass it; and the side they enter by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - origin) / ray, (high - origin) / ray
    near, far = np.minimum(a, b), np.maximum(a, b)
    enter = near.max(-1)
    return np.where((enter < far.min(-1)) & (enter > 1e-4), enter, np.inf), near.argmax(-1)


def _frame(low, high, camera, ahead, up):
    """The rows and columns of the picture that a box may cover, None outside it."""
    corners = np.array(
        [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
    depth = (corners - camera) @ ahead
    if depth.min() < 0.1:
        return None
    scale = FOCAL_MM / 36.0 * WIDTH * FINER / depth
    x = WIDTH * FINER / 2 + scale * corners[:, 0]
    y = HEIGHT * FINER / 2 - scale * ((corners - camera) @ up)
    left, top = max(int(x.min()), 0), max(int(y.min()), 0)
    right, bottom = min(int(x.max()) + 2, WIDTH * FINER), min(int(y.max()) + 2, HEIGHT * FINER)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _ground(x, z):
    grain = np.random.default_rng(9).random((64, 64))
    speckle = 0.8 + 0.4 * grain[(z * 500).astype(int) % 64, (x * 500).astype(int) % 64][..., None]
    lawn = np.array((0.16, 0.27, 0.08)) * speckle
    across, along = (np.abs((v + _BLOCK_M / 2) % _BLOCK_M - _BLOCK_M / 2) for v in (x, z))
    edge = np.minimum(across, along)
    rgb = np.where((edge < _ROAD_M / 2 + 0.004)[..., None], (0.42, 0.40, 0.37), lawn)
    rgb = np.where((edge < _ROAD_M / 2)[..., None], np.array((0.075, 0.078, 0.085)) * speckle, rgb)
    dashes = (edge < 0.0013) & (np.where(across < along, z, x) % 0.02 < 0.011)
    return np.where(dashes[..., None], 0.75, rgb)


def town() -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) in linear light, and depth (H, W) in metres."""
    down = np.radians(DOWN_DEG)
    ahead, up = np.array((0, -np.sin(down), np.cos(down))), np.array((0, np.cos(down), np.sin(down)))
    camera = -AWAY_M * ahead
    focal_px = FOCAL_MM / 36.0 * WIDTH
    y, x = (np.mgrid[: HEIGHT * FINER, : WIDTH * FINER] + 0.5) / FINER
    # one length of a ray is one metre along the lens's axis, so that lengths are depth
    ray = ahead - ((y - HEIGHT / 2) / focal_px)[..., None] * up
    ray = ray + ((x - WIDTH / 2) / focal_px)[..., None] * np.array((1.0, 0.0, 0.0))
    depth = -camera[1] / ray[..., 1]
    place = camera + depth[..., None] * ray
    rgb, normal_y = _ground(place[..., 0], place[..., 2]), np.full(depth.shape, _SUN[1])
    houses = [
        (*house, part) for house in _houses() if (part := _frame(*house[:2], camera, ahead, up)) is not None
    ]
    for low, high, colour, part in houses:
        hit, side = _enter(low, high, camera, ray[part])
        seen = hit < depth[part]
        at = camera + np.where(seen, hit, 0)[..., None] * ray[part]
        wall = np.where(side == 0, at[..., 2], at[..., 0])
        tall = high[1] > 0.02
        window = tall & (side != 1) & (wall % 0.009 < 0.004) & (at[..., 1] % 0.012 > 0.005)
        plain = np.where((side == 1)[..., None] | (not tall), colour, (0.62, 0.56, 0.48))
        rgb[part] = np.where(
            seen[..., None], np.where(window[..., None], (0.05, 0.06, 0.08), plain), rgb[part]
        )
        normal_y[part] = np.where(seen, np.choose(side, (0.12, _SUN[1], -_SUN[2])), normal_y[part])
        depth[part] = np.where(seen, hit, depth[part])
    place = camera + depth[..., None] * ray
    lit = np.ones(depth.shape, bool)
    for low, high, _, (rows, columns) in houses:
        # no shadow is longer than this many pixels on any side of its box
        part = (
            slice(max(rows.start - 90, 0), rows.stop + 90),
            slice(max(columns.start - 90, 0), columns.stop + 90),
        )
        blocked, _ = _enter(low, high, place[part] + 2e-4 * _SUN, _SUN)
        lit[part] &= ~np.isfinite(blocked)
    rgb = rgb * (0.35 + 1.1 * normal_y * lit)[..., None]
    rgb = rgb.reshape(HEIGHT, FINER, WIDTH, FINER, 3).mean((1, 3))
    return rgb, depth[FINER // 2 :: FINER, FINER // 2 :: FINER]
