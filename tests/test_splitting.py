"""Finding layers piece by piece: the same as in one go, and never long without a chance to interrupt."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lens_models import Camera, Focus, LayeredLens, memory
from lens_models.camera import coc_px
from lens_models.layers import cuts, inpaint, matting, morphology, sharpen

FOCUS, CAMERA = Focus(2.0), Camera(1.4, 85.0)


def scene(height: int = 150, width: int = 211) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured wall with a disc and thin posts before it, and a floor; depth edges a little soft."""
    random = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    depth = torch.where(y > height * 0.7, 9.0 - 6.0 * (y / height - 0.7) / 0.3, 12.0)
    disc = (x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    posts = (x % 23 < 2) & (x > width / 2)
    depth = torch.where(disc, 2.0, torch.where(posts, 1.2, depth))
    soft = torch.nn.functional.avg_pool2d((1.0 / depth)[None, None], 5, 1, 2, count_include_pad=False)
    picture = 0.2 + 0.5 * torch.rand(3, height, width, generator=random) * torch.where(disc, 0.4, 1.0)
    return picture[None], 1.0 / soft[0]


def nearness(depth: torch.Tensor) -> torch.Tensor:
    return coc_px(depth, FOCUS, CAMERA, depth.shape[-1])[0] / -2.0


def bands(monkeypatch, rows: int) -> None:
    """Everything that works in bands of rows does so with bands of so many."""
    monkeypatch.setattr(sharpen, "_BAND_ROWS", rows)
    monkeypatch.setattr(cuts, "_BAND_ROWS", rows)
    for module in (inpaint, cuts, sharpen):
        of = memory.bands_of
        monkeypatch.setattr(module, "bands_of", lambda height, _=0, halo=0, of=of: of(height, rows, halo))


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_bands_leave_no_seam(monkeypatch, rows):
    picture, depth = scene()
    weight = (torch.rand(1, 1, *depth.shape[-2:], generator=torch.Generator().manual_seed(0)) > 0.8).float()

    def made() -> tuple[torch.Tensor, list[float], torch.Tensor]:
        hard = sharpen.sharpened(picture[0], 1.0 / depth[0], 60.0)
        return hard, cuts.find_cuts(nearness(depth), 6), inpaint.push_pull(picture, weight)

    bands(monkeypatch, 10_000)
    whole = made()
    assert not torch.equal(whole[0], 1.0 / depth[0])
    assert len(whole[1]) >= 2
    bands(monkeypatch, rows)
    banded = made()
    assert torch.equal(banded[0], whole[0])
    assert banded[1] == pytest.approx(whole[1], abs=1e-9)  # sums of float64 in another order
    torch.testing.assert_close(banded[2], whole[2], rtol=0, atol=1e-6)  # float32 rounding of a mean


@pytest.mark.parametrize("tile", [(64, 256), (17, 40), (1000, 1000)])
def test_a_matte_is_the_same_from_a_list_and_from_tiles(monkeypatch, tile):
    picture, depth = scene()
    own = nearness(depth) > 1.0
    doubted = morphology.dilate(own, 9) & ~morphology.erode(own, 5)
    trust = torch.where(doubted, 0.01, 1.0)
    monkeypatch.setattr(matting, "_TILE_ON_CPU", tile)
    made = []
    for share in (1.0, 0.0):
        monkeypatch.setattr(matting, "_LISTED_SHARE", share)
        made.append(matting.closed_form_matte(picture[0], own.float(), trust, iterations=200))
    assert (made[0] - own.float()).abs().max() > 0.2
    # they differ in what stands beyond the certain pixels around the band, which hardly counts
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=2e-3)


class Work(TorchDispatchMode):
    """Counts the values that torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        parts = out if isinstance(out, (tuple, list)) else (out,)
        self.values += sum(part.numel() for part in parts if isinstance(part, torch.Tensor))
        return out


def test_it_asks_often_whether_to_go_on():
    """Between two reports lies a stated amount of work: on a large picture well under a second of it."""
    picture, depth = scene(1200, 400)
    with Work() as work:
        last, most, heard = 0, 0, []

        def report(done: int, total: int) -> None:
            nonlocal last, most
            most, last = max(most, work.values - last), work.values
            heard.append(done / total)

        layers = LayeredLens(picture, depth).split(FOCUS, CAMERA, on_progress=report)
    assert len(layers) >= 3
    assert heard == sorted(heard)
    assert most < 250 * depth.numel(), f"{most / depth.numel():.0f} values per pixel"
