"""Photos as pixels: upright, in sRGB, and never kept."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .timeout import call_within

#: Mean and standard deviation of the pixels that networks on ImageNet were trained with.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SRGB_NAMES = ("srgb", "iec61966-2.1", "iec 61966-2.1")


def open_photo(path: str | Path, *, timeout_s: float = 60.0, draft_px: int | None = None) -> Any:
    """A photo as a Pillow RGB picture, turned upright and converted from its colour profile to sRGB.

    draft_px: the shorter side may come out smaller, but not below this (JPEG alone; several times as fast).
    Raises OSError, ValueError and others for what cannot be decoded, TimeoutError for what takes too long.
    """
    return call_within(timeout_s, _decode, Path(path), draft_px)


def _decode(path: Path, draft_px: int | None) -> Any:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            if draft_px is not None and picture.format in ("JPEG", "MPO"):
                short = min(picture.size)
                picture.draft(None, tuple(max(1, side * draft_px // short) for side in picture.size))
            picture.load()
            profile = picture.info.get("icc_profile")
            # turned before it is converted, which would lose the tag
            upright = ImageOps.exif_transpose(picture)
            return _to_srgb(upright, profile)


def _to_srgb(picture: Any, profile: bytes | None) -> Any:
    from PIL import ImageCms

    # a damaged profile is no reason to lose the photo
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        if profile and picture.mode in ("RGB", "CMYK", "L"):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if not any(name in ImageCms.getProfileDescription(source).lower() for name in _SRGB_NAMES):
                target = ImageCms.createProfile("sRGB")
                return ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    return picture.convert("RGB")


def to_tensor(picture: Any) -> Tensor:
    """Pillow RGB to uint8 `(3, H, W)`."""
    import numpy as np

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def square(picture: Any, side: int) -> tuple[Any, tuple[int, int], float]:
    """The centre of a photo, its shorter side scaled to `side` px.

    Returns the square, what was cut off at the top and left, px after scaling, and the scale.
    """
    from PIL import Image

    width, height = picture.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return picture.crop((left, top, left + side, top + side)), (top, left), scale


def views_of(picture: Any, side: int, count: int, places: list[tuple[float, float]] | None = None) -> Tensor:
    """A Pillow picture made small, black around it, and its `crops`, uint8 `(1 + count, 3, side, side)`."""
    from PIL import ImageOps

    views = [ImageOps.pad(picture, (side, side)), *crops(picture, side, count, places)]
    return torch.stack([to_tensor(view) for view in views])


def crops(picture: Any, side: int, count: int, places: list[tuple[float, float]] | None = None) -> list[Any]:
    """Squares in the photo's own pixels: the centre, the corners, then a grid; smaller photos are padded.

    count: at least 1. places: 0..1 of the way from left to right and from top to bottom, in place of those.
    """
    width, height = max(picture.width, side), max(picture.height, side)
    # Pillow crops black from beyond a picture
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    corners = [
        (round(u * (width - side)) - left, round(v * (height - side)) - top)
        for u, v in places or _places(count)
    ]
    return [picture.crop((x, y, x + side, y + side)) for x, y in corners]


def _places(count: int) -> list[tuple[float, float]]:
    places = [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    cells = 2
    while len(places) < count:
        cells += 1
        further = [(x / cells, y / cells) for y in range(cells + 1) for x in range(cells + 1)]
        places += [place for place in further if place not in places]
    return places[:count]
