"""The preview's shader in a real browser against the lenses it stands for. No ComfyUI is needed."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from lens_models import Camera, Focus, dr_bokeh_lens, taf_lens
from lens_models.camera import inverse_depth, radius_line
from lens_models.light import image_to_radiance, radiance_to_image
from tools import motorcycle
from tools.provision import REPO

pytestmark = [pytest.mark.browser]

ORIGIN = "http://fine-defocus.test"
DRAW = """async ([module, scenes]) => {
    const { Renderer, QUALITY } = await import(module)
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))
    const renderer = new Renderer()
    const drawn = scenes.map(({ width, height, picture, inverse, look, quality }) => {
        const depths = new Float32Array(bytes(inverse).buffer)
        const scene = { width, height, picture: bytes(picture), inverse: depths }
        const canvas = renderer.draw(scene, { ...look, quality: QUALITY[quality] })
        const copy = new OffscreenCanvas(width, height)
        const context = copy.getContext('2d')
        // what is drawn smaller is laid over the sharp picture
        context.putImageData(new ImageData(new Uint8ClampedArray(scene.picture), width), 0, 0)
        context.drawImage(canvas, 0, 0, width, height)
        const { data } = context.getImageData(0, 0, width, height)
        let text = ''
        for (const byte of data) text += String.fromCharCode(byte)
        return [width, height, btoa(text)]
    })
    const error = renderer.gl.getError()
    renderer.destroy()
    return { drawn, error, software: renderer.software }
}"""


def slanted():
    """A textured wall that leans away, from 1 m on the left to 4 m on the right."""
    y, x = torch.meshgrid(torch.arange(200), torch.arange(300), indexing="ij")
    stripes = ((x // 6 + y // 6) % 2).float() * 0.7 + 0.15
    picture = torch.stack([stripes, 0.5 + 0.4 * torch.sin(x / 9.0), 0.5 + 0.4 * torch.cos(y / 7.0)], dim=-1)
    return picture, 1.0 / torch.linspace(1.0, 0.25, 300).expand(200, 300).contiguous(), 2.0


def two_planes():
    """A red disc at 1 m before a green wall of lights at 4 m, focused on the wall."""
    y, x = torch.meshgrid(torch.arange(220.0), torch.arange(300.0), indexing="ij")
    disc = (x - 150) ** 2 + (y - 110) ** 2 < 60**2
    wall = torch.tensor([0.05, 0.45, 0.2]).expand(220, 300, 3).clone()
    wall[((x % 30 < 2) & (y % 30 < 2))] = 1.0
    picture = torch.where(disc[..., None], torch.tensor([0.85, 0.1, 0.1]), wall)
    return picture, torch.where(disc, 1.0, 4.0), 4.0


def photo():
    """The motorcycle at half its size, focused on the wall behind it."""
    picture, depth = motorcycle.load()
    depth = np.where(np.isnan(depth), np.nanmax(depth), depth)
    return (
        torch.from_numpy(picture[::2, ::2].astype(np.float32) / 255),
        torch.from_numpy(depth[::2, ::2].astype(np.float32)),
        4.5,
    )


SCENES = {"slanted": slanted, "two planes": two_planes, "photo": photo}
CAMERA = Camera(1.4, 135.0)


@pytest.fixture(scope="module")
def draw(chromium):
    """Renders looks of scenes with the pack's own modules, served from the disk."""
    page = chromium.new_page()

    def answer(route):
        path = REPO / "web" / route.request.url.removeprefix(ORIGIN).lstrip("/")
        if path.is_file():
            route.fulfill(body=path.read_text(), content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html>", content_type="text/html")

    page.route(f"{ORIGIN}/**", answer)
    page.goto(ORIGIN)

    def drawn(*asked):
        answered = page.evaluate(DRAW, [f"{ORIGIN}/js/focus/gpu.js", list(asked)])
        assert answered["error"] == 0
        return [
            np.frombuffer(base64.b64decode(data), np.uint8).reshape(h, w, 4)[..., :3].astype(np.float64)
            for w, h, data in answered["drawn"]
        ]

    yield drawn
    page.close()


def asked(name, *, quality="full", **look):
    picture, depth, focus_m = SCENES[name]()
    height, width = depth.shape
    opaque = torch.cat([picture, torch.ones(height, width, 1)], dim=-1)
    gain = radius_line(Focus(focus_m), CAMERA, width)[1][0].item()
    text = lambda array: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()  # noqa: E731
    return {
        "width": width, "height": height, "quality": quality,
        "picture": text((opaque * 255 + 0.5).to(torch.uint8).numpy()),
        "inverse": text(inverse_depth(depth).float().numpy()),
        "look": {
            "focus": 1 / focus_m, "gain": gain, "maxRadius": 128, "sharpRadius": 0.5, "blur": True,
            "zone": False, "spread": False, **look,
        },
    }  # fmt: skip


def rendered(lens, name):
    picture, depth, focus_m = SCENES[name]()
    picture = (picture * 255 + 0.5).to(torch.uint8).float() / 255
    shown = radiance_to_image(
        lens(image_to_radiance(picture[None]), depth[None].float(), Focus(focus_m), CAMERA)
    )
    return (shown[0].clamp(0, 1) * 255).numpy().astype(np.float64)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one - other) ** 2))


@pytest.fixture(scope="module")
def truth():
    """Each scene through both lenses."""
    return {lens: {name: rendered(lens, name) for name in SCENES} for lens in (taf_lens, dr_bokeh_lens)}


def test_the_preview_gathers_like_the_taf_lens(draw, truth, capsys):
    """Up to 8 px of radius the taps are the lens's own; half floats and 8 bits leave 57 dB. Wider kernels are
    sampled from mips, whose edges are softer."""
    for name, shown in zip(SCENES, draw(*(asked(name) for name in SCENES)), strict=True):
        score = psnr(shown, truth[taf_lens][name])
        with capsys.disabled():
            print(f"\npreview as TAF Lens, {name}: {score:.1f} dB")
        assert score >= 48.0


LEAST = {
    "full": {"slanted": 42.0, "two planes": 42.0, "photo": 30.0},
    "modest": {"slanted": 20.0, "two planes": 27.0, "photo": 26.0},
}


@pytest.mark.parametrize("quality", LEAST)
def test_the_foreground_spreads_as_in_dr_bokeh_lens(draw, truth, capsys, quality):
    """Two layers and no mattes: along the depth edges of a real photo that is a sketch of the layered lens.

    The modest quality, for software rendering, is half the size laid over the sharp picture."""
    drawn = draw(*(asked(name, quality=quality, spread=True) for name in SCENES))
    for name, shown in zip(SCENES, drawn, strict=True):
        score = psnr(shown, truth[dr_bokeh_lens][name])
        gathered = psnr(truth[taf_lens][name], truth[dr_bokeh_lens][name])
        with capsys.disabled():
            print(f"\n{quality} preview as Dr.Bokeh Lens, {name}: {score:.1f} dB, TAF Lens {gathered:.1f}")
        assert score >= LEAST[quality][name]
        assert quality != "full" or score > gathered + 4.0


def test_what_is_sharp_stays_and_the_zone_is_tinted(draw):
    picture = (two_planes()[0] * 255 + 0.5).to(torch.uint8).numpy().astype(np.float64)
    sharp, tinted = draw(asked("two planes", blur=False), asked("two planes", blur=False, zone=True))
    assert np.abs(sharp - picture).max() <= 1.0
    near = tinted[110, 150]
    assert near[0] > near[2] + 40, "warm in front"
    assert np.abs(tinted[10, 10] - picture[10, 10]).max() <= 1.0, "its own colours in focus"
