"""Photos to learn blur from: folders of labelled ones, and spoiled copies of sharp ones."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
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
from ..pixels import open_photo, thumbnail, to_tensor
from .net import CLASSES

NONE, DESIRABLE, UNDESIRABLE = range(len(CLASSES))
_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
#: Long side of the photos that are spoiled, px: on more pixels, larger kernels look the same and cost more.
_SPOILED_PX = 2048
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
class Learned:
    """What the network is shown: views uint8 `(V, 3, S, S)`, label, where the views are blurred.

    blurred: 0..1 `(V, S, S)`, NaN where nobody knows.
    """

    views: Tensor
    label: int
    blurred: Tensor


def photos_in(folder: str | Path) -> list[str]:
    """All pictures below a folder, in order. Raises FileNotFoundError without any."""
    found = [str(p) for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in _ENDINGS]
    if not found:
        raise FileNotFoundError(f"There are no pictures in {folder}.")
    return found


def from_folder(folder: str | Path, label: str) -> list[Sample]:
    """All pictures of one class."""
    return [Sample(path, CLASSES.index(label)) for path in photos_in(folder)]


def from_masks(photos: str | Path, masks: str | Path, label: str) -> list[Sample]:
    """Pictures with masks of the same names, as the public sets of defocus and motion blur have them.

    Raises ValueError where masks are missing.
    """
    there = {Path(path).stem: path for path in photos_in(masks)}
    paths = photos_in(photos)
    lacking = [path for path in paths if Path(path).stem not in there]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(paths)} photos in {photos} have no mask, such as {lacking[0]}."
        )
    return [Sample(path, CLASSES.index(label), there[Path(path).stem]) for path in paths]


def from_table(file: str | Path) -> list[Sample]:
    """Labels by hand: a CSV with the columns path and label; paths may be relative to the file."""
    file = Path(file)
    found = []
    with file.open(encoding="utf-8", newline="") as lines:
        for number, line in enumerate(csv.DictReader(lines), start=2):
            if line.get("label") not in CLASSES or not line.get("path"):
                raise ValueError(
                    f"Line {number} of {file.name} must be path,label: one of {', '.join(CLASSES)}."
                )
            found.append(Sample(str(file.parent / line["path"]), CLASSES.index(line["label"])))
    return found


def split(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """To learn from, to calibrate with, to test with; the last two are `share` together.

    A photo's place follows from its name alone, so it stays where it is, and pairs of one name stay together.
    """
    parts: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
    for sample in samples:
        value = int(hashlib.sha256(Path(sample.path).name.encode()).hexdigest()[:8], 16) / 2**32
        parts[0 if value >= share else 1 if value >= share / 2 else 2].append(sample)
    return parts


def learned(sample: Sample, options: Blur, random: np.random.Generator | None = None) -> Learned:
    """The views of a sample; with `random`, crops at random places, mirrored half of the time."""
    return _viewed(open_photo(sample.path), sample.label, _mask(sample), options, random)


def spoiled(sample: Sample, options: Blur, random: np.random.Generator) -> Learned:
    """A sharp sample as a failed photo: shaken, or out of focus all over."""
    from PIL import Image

    photo = open_photo(sample.path)
    photo.thumbnail((_SPOILED_PX, _SPOILED_PX), Image.Resampling.LANCZOS)
    picture = to_tensor(photo).float()[None] / 255.0
    long = max(photo.size)
    if random.random() < 0.5:
        kernel = shake_kernel(
            random.uniform(_LEAST_SHAKE_PX, max(_LEAST_SHAKE_PX, _MOST_SHAKE * long)), random
        )
    else:
        radius = random.uniform(_LEAST_DISC_PX, max(_LEAST_DISC_PX, _MOST_DISC * long))
        kernel = torch.from_numpy(np.asarray(disc_kernel(radius), np.float32))
    blurred = (blur_all(picture, kernel)[0].permute(1, 2, 0) * 255.0).round().clamp(0, 255).to(torch.uint8)
    return _viewed(Image.fromarray(blurred.numpy()), UNDESIRABLE, 1.0, options, random)


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


def blur_all(srgb: Tensor, kernel: Tensor) -> Tensor:
    """sRGB `(B, 3, H, W)` convolved with one kernel `(k, k)`, in linear light; borders replicate."""
    reach = kernel.shape[-1] // 2
    linear = srgb_to_linear(srgb)
    # a border wider than the picture cannot be replicated in one step
    padded = functional.pad(linear, (reach,) * 4, mode="replicate")
    size = [padded.shape[-2], padded.shape[-1]]
    transform = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(padded), s=size)
    whole = torch.fft.irfft2(transform, s=size)
    return linear_to_srgb(whole[..., 2 * reach :, 2 * reach :].clamp_min(0.0)).clamp(0.0, 1.0)


def _mask(sample: Sample) -> Any:
    """A picture, 0 for sharp all over, or None for not known."""
    if sample.mask is not None:
        return open_photo(sample.mask)
    return 0.0 if sample.label == NONE else None


def _viewed(photo: Any, label: int, mask: Any, options: Blur, random: np.random.Generator | None) -> Learned:
    from PIL import Image, ImageOps

    if mask is not None and not isinstance(mask, float):
        mask = mask.resize(photo.size, Image.Resampling.BILINEAR)
    if random is not None and random.random() < 0.5:
        photo = ImageOps.mirror(photo)
        mask = ImageOps.mirror(mask) if isinstance(mask, Image.Image) else mask
    places = None if random is None else [tuple(random.random(2)) for _ in range(options.crops)]
    seen = _stack(photo, options, places)
    shape = (seen.shape[0], *seen.shape[2:])
    if isinstance(mask, Image.Image):
        blurred = _stack(mask, options, places)[:, 0].float() / 255.0
    else:
        blurred = torch.full(shape, math.nan if mask is None else mask)
    return Learned(seen, label, blurred)


def _stack(picture: Any, options: Blur, places: list[tuple[float, float]] | None) -> Tensor:
    from ..pixels import crops

    side = options.crop_px
    shown = [thumbnail(picture, side), *crops(picture, side, options.crops, places)]
    return torch.stack([to_tensor(view) for view in shown])


def shuffled(count: int, seed: int) -> Iterator[int]:
    """0..count−1 in ever new orders."""
    random = np.random.default_rng(seed)
    while True:
        yield from (int(i) for i in random.permutation(count))
