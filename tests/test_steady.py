"""Layers of a clip do not pop: from frame to frame they change as little as focus and depth do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lens_models import Camera, Focus, LayeredLens, coc_px, composite, dr_bokeh_lens
from lens_models.camera import radius_line
from lens_models.layers.steady import SteadyCuts
from lens_models.light import linear_to_srgb

CAMERA = Camera(2.2, 60.0)
#: Focus of a rack from 1.7 m to 5.1 m, even in inverse depth as the eye sees it.
RACK_M = [1.0 / (0.6 - 0.045 * i) for i in range(10)]


def scene(height: int = 160, width: int = 224) -> tuple[torch.Tensor, torch.Tensor]:
    """A figure on a floor behind a fence, depth a little soft: cuts that are hardly worth it."""
    random = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inverse = torch.where(y > height * 0.45, 0.12 + (y / height - 0.45) * 0.9, 0.1)
    fence = ((x % 28 < 3) | ((y - 50) % 60 < 3)) & (y < 130)
    figure = ((x - 120) / 22.0) ** 2 + ((y - 85) / 45.0) ** 2 < 1
    inverse = torch.where(fence, 0.55, torch.where(figure, 0.33, inverse))
    inverse = F.avg_pool2d(inverse[None, None], 3, 1, 1, count_include_pad=False)
    blocks = 0.25 + 0.5 * torch.rand(1, 3, height // 4, width // 4, generator=random)
    picture = F.interpolate(blocks, size=(height, width), mode="nearest")
    return picture * torch.where(figure, 0.5, 1.0) * torch.where(fence, 0.35, 1.0), 1.0 / inverse[0]


def split(picture, depth, focus, camera=CAMERA, after: LayeredLens | None = None) -> LayeredLens:
    """A lens with the layers of a frame, cut near those of the frame before."""
    lens = LayeredLens(picture, depth, after=after)
    lens.split(focus, camera)
    return lens


def steps(frames: list[torch.Tensor]) -> torch.Tensor:
    """The largest change of an 8 x 8 block from each frame to the next, sRGB 0..1."""
    blocks = torch.cat([F.avg_pool2d(linear_to_srgb(frame), 8) for frame in frames])
    return (blocks[1:] - blocks[:-1]).abs().flatten(1).amax(1)


def test_a_rack_does_not_pop():
    """Beside layers that are found once, and so cannot pop: 5 % more at most, where new ones pop by 50 %."""
    picture, depth = scene()
    clip, once, anew, counts = None, split(picture, depth, Focus(2.0)).layers, [], []
    kept, fixed = [], []
    for distance_m in RACK_M:
        focus = Focus(distance_m)
        clip = split(picture, depth, focus, after=clip)
        kept.append(composite(clip.layers, focus, CAMERA))
        fixed.append(composite(once, focus, CAMERA))
        layers = split(picture, depth, focus).layers
        counts.append(len(layers))
        anew.append(composite(layers, focus, CAMERA))
    assert len(set(counts)) > 1, "this scene asks for as many layers at every focus: it cannot pop"
    smooth = steps(fixed).max()
    assert steps(anew).max() > 1.5 * smooth
    assert steps(kept).max() <= 1.05 * smooth


def test_the_lens_keeps_the_layers_of_a_rack():
    picture, depth = scene()
    clip = dr_bokeh_lens(picture, depth, Focus(torch.tensor(RACK_M)), CAMERA)
    alone = torch.cat([dr_bokeh_lens(picture, depth, Focus(distance_m), CAMERA) for distance_m in RACK_M])
    together, apart = (steps(list(frames.split(1))).max() for frames in (clip, alone))
    assert together < 0.7 * apart


def test_a_cut_follows_what_it_parts():
    """A figure that walks 1.5 m closer stays in one piece, in front of the wall."""
    height, width = 96, 128
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    figure = ((x - 60) / 20.0) ** 2 + ((y - 50) / 30.0) ** 2 < 1
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    clip, focus, camera = None, Focus(8.0), Camera(1.4, 85.0)
    for distance_m in torch.linspace(4.0, 2.5, 10):
        leaning = distance_m + 0.2 * (y / height)  # a body has some depth, too
        depth = torch.where(figure, leaning, 8.0)[None]
        clip = split(picture, depth, focus, camera, after=clip)
        layers = clip.layers
        assert len(layers) == 2
        # a matte of noise errs by a pixel along the outline, which is 2 % of the picture
        assert ((layers[0].alpha[0, 0] > 0.5) != figure).float().mean() < 0.01


@pytest.mark.parametrize("changed", ["picture", "depth"])
def test_another_scene_begins_anew(changed):
    picture, depth = scene()
    other, plain = picture, depth.flip(-1) * 1.5
    if changed == "picture":
        other, plain = torch.rand(picture.shape, generator=torch.Generator().manual_seed(9)).square(), depth
    focus = Focus(2.0)
    first = split(picture, depth, Focus(5.0))
    second = split(other, plain, focus, after=first).layers
    alone = split(other, plain, focus).layers
    assert len(second) == len(alone)
    for one, two in zip(second, alone, strict=True):
        for name in ("radiance", "alpha", "depth_m"):
            assert torch.equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("other", [Camera(1.6, 60.0), Camera(2.2, 75.0), Camera(2.2, 60.0, 24.0)])
def test_cuts_stand_in_the_scene_not_in_the_blur(other):
    """Another aperture, focal length or sensor moves all radii; the distances of the cuts stay."""
    picture, depth = scene()
    depth = torch.where(depth < 2.2, 1.8, torch.where(depth < 4.0, 3.0, 10.0))
    clip, focus = SteadyCuts(), Focus(2.0)

    def distances(camera: Camera) -> list[float]:
        nearness = coc_px(depth, focus, camera, depth.shape[-1])[0] / -2.0
        p, g = (value.item() for value in radius_line(focus, camera, depth.shape[-1]))
        return [p + cut / g for cut in clip.find(picture, nearness, focus, camera, 6)]

    first = distances(CAMERA)
    assert first
    assert distances(other) == pytest.approx(first, rel=1e-9)
