"""Two small packed sets of made-up scenes: what the smoke run trains on, and a look at the format.

A scene is a textured wall and a disc before it. The deep set sees it sharp at f/16, the shallow one through
the TAF Lens at f/2, focused on the disc.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_models import Camera, Focus, taf_lens
from lens_models.light import linear_to_srgb, srgb_to_linear

from .pack import PackedWriter, Record, jpeg_bytes

FOCAL_MM, SENSOR_MM, NEAR_M, FAR_M = 50.0, 36.0, 1.5, 6.0
F_NUMBERS = {"deep": 16.0, "shallow": 2.0}
_COLOURS = ("red", "green", "blue")


def scene(number: int, side: int) -> tuple[Tensor, Tensor, str]:
    """Picture, sRGB `(1, 3, side, side)`, depth `(1, side, side)`, m, and caption."""
    random = torch.Generator().manual_seed(number)

    def texture(cells: int, colour: int) -> Tensor:
        coarse = torch.rand(1, 3, cells, cells, generator=random)
        coarse[:, colour] += 0.7
        return torch.nn.functional.interpolate(coarse / 1.7, size=(side, side), mode="bilinear")

    wall, disc = (int(torch.randint(3, (), generator=random)) for _ in range(2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    at = torch.rand(2, generator=random) - 0.5
    inside = (x - at[0]).square() + (y - at[1]).square() < 0.2
    picture = torch.where(inside, texture(side // 2, disc), texture(side // 4, wall))
    depth_m = torch.where(inside, NEAR_M, FAR_M)[None]
    return picture, depth_m, f"a {_COLOURS[disc]} disc before a {_COLOURS[wall]} wall"


def photograph(number: int, side: int, set_name: str) -> tuple[Tensor, str]:
    """A scene as the camera of a set sees it, sRGB `(1, 3, side, side)`, and its caption."""
    picture, depth_m, caption = scene(number, side)
    if set_name == "shallow":
        camera = Camera(F_NUMBERS[set_name], FOCAL_MM, SENSOR_MM)
        picture = linear_to_srgb(taf_lens(srgb_to_linear(picture), depth_m, Focus(NEAR_M), camera))
    return picture.clamp(0.0, 1.0), caption


@torch.no_grad()
def write(folder: str | Path, vae: Any, size_px: int, count: int) -> list[Path]:
    """Pack `count` scenes into `folder/deep` and as many others into `folder/shallow`.

    vae: the autoencoder of the run that reads them. Raises FileExistsError for a set that is there.
    """
    written = []
    for i, set_name in enumerate(("deep", "shallow")):
        path = Path(folder) / set_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with PackedWriter(path, about={"made by": "training toy-sets"}) as writer:
            for number in range(count):
                srgb, caption = photograph(i * count + number, size_px, set_name)
                found = vae.encode(2.0 * srgb - 1.0).latent_dist
                sample = f"{set_name}-{number:05d}", found.mean[0], found.std[0]
                camera = F_NUMBERS[set_name], FOCAL_MM, SENSOR_MM
                jpeg = jpeg_bytes((srgb[0] * 255).round().to(torch.uint8))
                writer.add(Record(*sample, *camera, caption, original=(size_px, size_px), jpeg=jpeg))
        written.append(path)
    return written
