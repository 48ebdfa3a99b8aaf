"""Photos to learn blur from: folders of labelled ones, and degraded copies of sharp ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lens_models.disc import disc_kernel
from lens_models.light import linear_to_srgb, srgb_to_linear

from ..options import Blur
from ..pixels import open_photo, to_tensor, views_of
from .net import CLASSES

NONE, _, UNDESIRABLE = range(len(CLASSES))
_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
#: Long side of the photos that are degraded, px: on more pixels, larger kernels look the same and cost more.
_DEGRADED_PX = 2048
#: Longest shake and largest disc, as a share of the photo's long side.
_MOST_SHAKE, _MOST_DISC = 0.03, 0.012
_LEAST_SHAKE_PX, _LEAST_DISC_PX = 7.0, 3.0
_SHAKE_STEPS, _TURN = 96, 0.35


@dataclass(frozen=True)
class Sample:
    """A labelled photo. label: place in CLASSES. mask: a picture that is white where the photo is blurred."""

    path: str
    label: int
    mask: str | None = None


@dataclass(frozen=True)
class Example:
    """An input of the network with its targets: views uint8 `(V, 3, S, S)`, label, where they are blurred.

    blurred: 0..1 `(V, S, S)`, NaN where it is not known.
    """

    views: Tensor
    label: int
    blurred: Tensor


def list_photos(folder: str | Path) -> list[str]:
    """All pictures below a folder, in order. Raises FileNotFoundError without any."""
    paths = [str(path) for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in _ENDINGS]
    if not paths:
        raise FileNotFoundError(f"There are no pictures in {folder}.")
    return paths


def from_folder(folder: str | Path, label: str) -> list[Sample]:
    """All pictures of one class."""
    return [Sample(path, CLASSES.index(label)) for path in list_photos(folder)]


def from_masks(photos: str | Path, masks: str | Path, label: str) -> list[Sample]:
    """Pictures with masks of the same names, as the public sets of defocus and motion blur have them.

    Raises ValueError where masks are missing.
    """
    by_name = {Path(path).stem: path for path in list_photos(masks)}
    paths = list_photos(photos)
    missing = [path for path in paths if Path(path).stem not in by_name]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(paths)} photos in {photos} have no mask, such as {missing[0]}."
        )
    return [Sample(path, CLASSES.index(label), by_name[Path(path).stem]) for path in paths]


def split(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """To learn from, to calibrate with, to test with; the last two are `share` together.

    A photo's place follows from its name alone, so it stays where it is, and pairs of one name stay together.
    """
    parts: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
    for sample in samples:
        value = int(hashlib.sha256(Path(sample.path).name.encode()).hexdigest()[:8], 16) / 2**32
        parts[0 if value >= share else 1 if value >= share / 2 else 2].append(sample)
    return parts


def example(sample: Sample, options: Blur, random: np.random.Generator | None = None) -> Example:
    """The views of a sample; with `random`, crops at random places, mirrored half of the time."""
    sharp = 0.0 if sample.label == NONE else math.nan
    mask = sharp if sample.mask is None else open_photo(sample.mask)
    return _example(open_photo(sample.path), sample.label, mask, options, random)


def degraded(sample: Sample, options: Blur, random: np.random.Generator) -> Example:
    """A sharp sample as a failed photo: shaken, or out of focus all over."""
    from PIL import Image

    photo = open_photo(sample.path)
    photo.thumbnail((_DEGRADED_PX, _DEGRADED_PX), Image.Resampling.LANCZOS)
    picture = to_tensor(photo).float()[None] / 255.0
    long = max(photo.size)
    if random.random() < 0.5:
        length = random.uniform(_LEAST_SHAKE_PX, max(_LEAST_SHAKE_PX, _MOST_SHAKE * long))
        kernel = shake_kernel(length, random)
    else:
        radius = random.uniform(_LEAST_DISC_PX, max(_LEAST_DISC_PX, _MOST_DISC * long))
        kernel = torch.from_numpy(np.asarray(disc_kernel(radius), np.float32))
    blurred = (convolve(picture, kernel)[0].permute(1, 2, 0) * 255.0).round().clamp(0, 255).to(torch.uint8)
    return _example(Image.fromarray(blurred.numpy()), UNDESIRABLE, 1.0, options, random)


def shake_kernel(length_px: float, random: np.random.Generator) -> Tensor:
    """The way of a hand-held camera during one exposure, `(k, k)` of sum 1: a walk that turns slowly."""
    headings = random.uniform(0, 2 * math.pi) + np.cumsum(random.normal(0.0, _TURN, _SHAKE_STEPS))
    steps = np.stack([np.sin(headings), np.cos(headings)]) * length_px / _SHAKE_STEPS
    way = np.cumsum(steps, axis=1)
    way -= way.mean(axis=1, keepdims=True)
    reach = math.ceil(np.abs(way).max()) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    corner = np.floor(way).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.prod(np.abs(1 - np.array([[dy], [dx]]) - (way - corner)), axis=0)
            np.add.at(kernel, (corner[0] + dy + reach, corner[1] + dx + reach), share)
    return torch.from_numpy(kernel / kernel.sum())


def convolve(srgb: Tensor, kernel: Tensor) -> Tensor:
    """sRGB `(B, 3, H, W)` convolved with one kernel `(k, k)`, in linear light; borders replicate."""
    reach = kernel.shape[-1] // 2
    linear = srgb_to_linear(srgb)
    # a border wider than the picture cannot be replicated in one step
    padded = functional.pad(linear, (reach,) * 4, mode="replicate")
    size = [padded.shape[-2], padded.shape[-1]]
    transform = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(padded), s=size)
    whole = torch.fft.irfft2(transform, s=size)
    return linear_to_srgb(whole[..., 2 * reach :, 2 * reach :].clamp_min(0.0)).clamp(0.0, 1.0)


def _example(photo: Any, label: int, mask: Any, options: Blur, random: np.random.Generator | None) -> Example:
    """mask: a picture, or one value for all of it: 0 for sharp, NaN for not known."""
    from PIL import Image, ImageOps

    masked = isinstance(mask, Image.Image)
    if masked:
        mask = mask.resize(photo.size, Image.Resampling.BILINEAR)
    if random is not None and random.random() < 0.5:
        photo, mask = ImageOps.mirror(photo), ImageOps.mirror(mask) if masked else mask
    places = None if random is None else [tuple(random.random(2)) for _ in range(options.crops)]
    views = views_of(photo, options.crop_px, options.crops, places)
    if masked:
        blurred = views_of(mask, options.crop_px, options.crops, places)[:, 0].float() / 255.0
    else:
        blurred = torch.full_like(views[:, 0], mask, dtype=torch.float32)
    return Example(views, label, blurred)
