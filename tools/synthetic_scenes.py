"""Pictures of synthetic scenes for the templates: a street at night, a sitter, a hall.

They need no camera and no network, so this runs in the project's environment:
`python -m tools.synthetic_scenes FOLDER` writes street.png, sitter.png (the sitter painted out in its alpha,
as the Mask Editor does) and hall.png, and beside each an EXR file of the depth in metres, channel Z; the
sitter's has no hair, as a network's. hall.jpg is the same hall with the tags of a camera.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from .canvas import Canvas, step, tinted
from .raytrace import Layer, Scene, all_in_focus, depth_metres

WIDTH, HEIGHT, MARGIN = 768, 512, 64
#: Of a 35 mm lens on a full frame, px.
FOCAL_PX = WIDTH * 35.0 / 36.0
EYE_M, HORIZON = 1.5, 215.0
GRID = 2


def canvas() -> Canvas:
    return Canvas(HEIGHT, WIDTH, MARGIN)


def place(x_m: float, up_m: float, depth_m: float) -> tuple[float, float]:
    """Pixel of a point so far to the right of the camera and so high above the ground."""
    return WIDTH / 2 + FOCAL_PX * x_m / depth_m, HORIZON + FOCAL_PX * (EYE_M - up_m) / depth_m


def ground(c: Canvas, far_m: float, rgb: np.ndarray) -> Layer:
    """The floor, as far as that."""
    slope = 1.0 / (FOCAL_PX * EYE_M)
    return c.layer((-slope * HORIZON, 0.0, slope), rgb, step(c.y - place(0.0, 0.0, far_m)[1]))


def upright(c: Canvas, depth_m: float, rgb: np.ndarray, cover: np.ndarray) -> Layer:
    return c.layer((1.0 / depth_m, 0.0, 0.0), rgb, cover)


def box(c: Canvas, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return step(c.x - left) * step(right - c.x) * step(c.y - top) * step(bottom - c.y)


def street() -> Scene:
    """Lamps along both sides of a wet street, coloured bulbs across it, a paper lantern close by."""
    c, layers = canvas(), []
    x, y = place(0.42, 1.62, 2.2)
    paper = tinted(0.5 + 0.5 * np.cos((c.y - y) / 5.5), (0.62, 0.12, 0.03), (0.95, 0.34, 0.08))
    paper *= (1.0 - 0.55 * ((c.x - x) / 75.0) ** 2)[..., None].clip(0.2)
    hung = np.maximum(c.ellipse(x, y, 66.0, 80.0), box(c, x - 1.2, -9.0, x + 1.2, y - 70.0))
    ends = np.maximum(box(c, x - 24, y - 86, x + 24, y - 74), box(c, x - 24, y + 74, x + 24, y + 86))
    paper = np.where(ends[..., None] > 0.5, (0.02, 0.01, 0.01), paper)
    layers.append(upright(c, 2.2, paper, np.maximum(hung, ends)))
    random = np.random.default_rng(7)
    for depth, sag in ((4.5, 0.5), (8.0, 0.6)):
        light, cover = np.zeros((*c.shape, 3)), np.zeros(c.shape)
        for t in np.linspace(-1.0, 1.0, 19):
            bx, by = place(3.2 * t, 3.1 - sag * (1 - t * t), depth)
            spot = c.disc(bx, by, 9.0 / depth + 0.6)
            tint = np.array([(1.0, 0.35, 0.1), (1.0, 0.8, 0.35), (0.2, 0.7, 1.0), (1.0, 0.2, 0.4)])
            light += spot[..., None] * tint[random.integers(4)] * 2.2
            cover = np.maximum(cover, spot)
        layers.append(upright(c, depth, light, cover))
    for depth in (6.0, 9.5, 14.0, 20.0, 30.0):
        light, cover = np.full((*c.shape, 3), (0.012, 0.012, 0.016)), np.zeros(c.shape)
        for side in (-3.4, 3.4):
            lx, top = place(side, 4.0, depth)
            _, foot = place(side, 0.0, depth)
            head = c.disc(lx, top, 90.0 / depth)
            cover = np.maximum(cover, np.maximum(head, box(c, lx - 20 / depth, top, lx + 20 / depth, foot)))
            light = np.where(head[..., None] > 0, np.array((3.2, 2.1, 0.85)), light)
        layers.append(upright(c, depth, light, cover))
    wet = c.noise(3, slope=0.9)
    road = tinted(wet, (0.004, 0.005, 0.008), (0.03, 0.032, 0.04))
    for depth in (6.0, 9.5, 14.0, 20.0, 30.0):
        for side in (-3.4, 3.4):
            lx, ly = place(side, 0.0, depth)
            streak = np.exp(-(((c.x - lx) / (60 / depth + 3)) ** 2)) * np.exp(-np.abs(c.y - ly) / 50.0)
            road += (streak * (wet > 0.45))[..., None] * (0.5, 0.33, 0.15)
    layers.append(ground(c, 60.0, road))
    houses = tinted(c.noise(5), (0.003, 0.004, 0.009), (0.012, 0.014, 0.024))
    roofs = step((c.y - (120 + 60 * np.sin(c.x / 61.0) * np.sin(c.x / 23.0))) / 2.0)
    windows = (np.sin(c.x / 4.1) > 0.35) & (np.sin(c.y / 4.9) > 0.4) & (c.noise(6, finest_px=9) > 0.56)
    houses += windows[..., None] * (0.75, 0.5, 0.2)
    sky = tinted(c.y / HEIGHT, (0.006, 0.010, 0.03), (0.05, 0.03, 0.05))
    houses = houses * roofs[..., None] + sky * (1.0 - roofs[..., None])
    layers.append(upright(c, 60.0, houses, np.ones(c.shape)))
    return Scene("street", tuple(layers), HEIGHT, WIDTH)


def sitter() -> Scene:
    """Head and shoulders with loose hair, before trees and the lights of an evening."""
    c = canvas()
    random = np.random.default_rng(11)
    skin = tinted(c.noise(4, slope=1.2), (0.42, 0.22, 0.15), (0.78, 0.52, 0.4))
    skin *= (1.0 - 0.35 * ((c.x - 330.0) / 150.0).clip(-1, 1))[..., None]
    coat = tinted(c.noise(8, slope=0.7), (0.02, 0.05, 0.12), (0.06, 0.14, 0.28))
    brown = tinted(c.noise(12, slope=0.6), (0.05, 0.025, 0.012), (0.32, 0.16, 0.07))
    face, neck = c.ellipse(380.0, 215.0, 82.0, 108.0), box(c, 342, 280, 418, 400)
    body = c.ellipse(380.0, 560.0, 235.0, 205.0)
    angles = random.uniform(-np.pi - 0.35, 0.35, 260)
    roots = [(380 + 88 * np.cos(a), 205 + 112 * np.sin(a), a + random.normal(0, 0.5)) for a in angles]
    crown = c.ellipse(380.0, 190.0, 100.0, 122.0) * step((128 + 0.011 * (c.x - 380) ** 2 - c.y) / 6.0)
    hair = np.maximum(crown, c.strands(14, roots, 62.0, width_px=(1.0, 2.4)))
    rgb = np.where(body[..., None] > 0.5, coat, skin)
    rgb = np.where((hair * (1 - step((c.y - 330) / 4)))[..., None] > 0.05, brown, rgb)
    for ex in (350.0, 412.0):
        eye = c.ellipse(ex, 208.0, 12.0, 6.5)[..., None]
        rgb = rgb * (1 - eye) + eye * np.array((0.05, 0.04, 0.04))
    mouth = c.ellipse(381.0, 276.0, 24.0, 7.0)[..., None]
    rgb = rgb * (1 - mouth) + mouth * np.array((0.45, 0.12, 0.12))
    cover = np.maximum.reduce([face, neck, body, hair])
    trees = tinted(c.noise(21, slope=0.9), (0.004, 0.012, 0.006), (0.06, 0.12, 0.04))
    crowns = np.maximum(c.ellipse(60.0, 180.0, 190.0, 230.0), c.ellipse(720.0, 150.0, 170.0, 240.0))
    crowns *= step((c.noise(22, slope=1.1) - 0.38) / 0.06)
    far = tinted(c.noise(31, slope=1.3), (0.02, 0.025, 0.06), (0.22, 0.15, 0.2))
    far += c.lights(33, 46, HEIGHT * 0.8, WIDTH, radius_px=1.8, power=(6.0, 16.0))
    layers = (
        upright(c, 1.4, rgb, cover),
        upright(c, 4.5, trees, crowns),
        upright(c, 18.0, far, np.ones(c.shape)),
    )
    return Scene("sitter", layers, HEIGHT, WIDTH)


def hall() -> Scene:
    """A render: pillars and balls on a tiled floor, down to a bright window."""
    c, layers = canvas(), []
    tints = ((0.8, 0.25, 0.12), (0.15, 0.45, 0.75), (0.85, 0.65, 0.15), (0.3, 0.6, 0.3), (0.6, 0.3, 0.6))
    for k, depth in enumerate((1.6, 2.6, 4.0, 6.2, 9.5)):
        x, y = place((-0.35, 0.3, -0.5, 0.6, -0.2)[k] * (0.8 + 0.25 * k), 0.28, depth)
        radius = FOCAL_PX * 0.28 / depth
        u, v = (c.x - x) / radius, (c.y - y) / radius
        up = np.sqrt((1.0 - u * u - v * v).clip(0.0))
        shade = (0.15 + 0.85 * (0.5 * up - 0.6 * v + 0.45 * u).clip(0.0))[..., None] * np.array(tints[k])
        shade += (np.exp(-(((u - 0.35) ** 2 + (v + 0.45) ** 2) / 0.02)) * 6.0)[..., None]
        layers.append((depth, upright(c, depth, shade, c.disc(x, y, radius))))
    for depth in (2.2, 3.6, 5.4, 8.0, 12.0):
        rgb, cover = np.zeros((*c.shape, 3)), np.zeros(c.shape)
        for side in (-1.6, 1.6):
            (x, foot), wide = place(side, 0.0, depth), FOCAL_PX * 0.22 / depth
            round_ = np.sqrt((1.0 - ((c.x - x) / wide) ** 2).clip(0.0))
            stone = 0.75 + 0.25 * c.noise(int(depth * 10), slope=0.8)
            near = box(c, x - wide, -9.0, x + wide, foot)
            lit = (stone * (0.15 + 0.75 * round_))[..., None] * np.array((0.72, 0.66, 0.56))
            rgb, cover = np.where(near[..., None] > 0, lit, rgb), np.maximum(cover, near)
        layers.append((depth, upright(c, depth, rgb, cover)))
    layers = [layer for _, layer in sorted(layers, key=lambda one: one[0])]
    below = (c.y - HORIZON).clip(0.5)
    along, across = FOCAL_PX * EYE_M / below, EYE_M * (c.x - WIDTH / 2) / below
    tiles = (np.floor(along * 1.6) + np.floor(across * 1.6)) % 2
    floor = tinted(tiles, (0.09, 0.08, 0.08), (0.5, 0.46, 0.4)) * (0.5 + 0.5 * c.noise(9))[..., None]
    layers.append(ground(c, 16.0, floor))
    wall = tinted(c.noise(41, slope=1.2), (0.2, 0.17, 0.15), (0.34, 0.3, 0.27))
    window = box(c, 330, 80, 438, 205) * (1 - box(c, 382, 80, 386, 205)) * (1 - box(c, 330, 140, 438, 144))
    wall += window[..., None] * np.array((5.0, 5.6, 6.4))
    layers.append(upright(c, 16.0, wall, np.ones(c.shape)))
    return Scene("hall", tuple(layers), HEIGHT, WIDTH)


def srgb(radiance: np.ndarray) -> np.ndarray:
    """8 bit: what is brighter than white is clipped, as in any photo."""
    v = radiance.clip(0.0, 1.0)
    encoded = np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)


def write(folder: Path) -> list[Path]:
    import OpenEXR

    written = []
    for scene in (street(), sitter(), hall()):
        picture, depth = srgb(all_in_focus(scene, GRID)), depth_metres(scene, GRID)
        photo = Image.fromarray(picture)
        if scene.name == "sitter":
            front = scene.layers[0]
            py, px = (v.ravel().astype(float) for v in np.mgrid[:HEIGHT, :WIDTH])
            matte = front.look_up(px, py)[:, 3].reshape(HEIGHT, WIDTH)
            photo.putalpha(Image.fromarray((255 - matte * 255).round().astype(np.uint8)))
            # a network sees neither strands nor the gaps between leaves
            coarse = Image.fromarray((1.0 / depth).astype(np.float32)).reduce(12)
            inverse = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            depth = 1.0 / np.asarray(inverse).clip(1 / 40, 1)
        files = Path(folder) / f"{scene.name}.png", Path(folder) / f"{scene.name}_depth.exr"
        photo.save(files[0])
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z": depth.astype(np.float32)}).write(str(files[1]))
        written += files
        if scene.name == "hall":
            tags = Image.Exif()
            tags.get_ifd(0x8769).update({33437: 16.0, 37386: 35.0, 41989: 35})  # f-number, focal length twice
            written.append(Path(folder) / "hall.jpg")
            photo.save(written[-1], quality=95, exif=tags)
    return written


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
