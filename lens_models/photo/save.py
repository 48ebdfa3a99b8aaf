"""A rendered picture as a photo file: the camera's settings inside it and in its name, never over another.

Tags follow Exif 2.32. The integer 35-mm equivalent cannot hold a sensor exactly, so the focal plane's
resolution is written as well; `lens_models.photo.camera` reads both.
"""

from __future__ import annotations

import errno
import io
import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational
from torch import Tensor

from ..camera import Camera, Focus, full_frame_equivalent_mm
from ..light import image_to_radiance, linear_to_srgb

SOFTWARE = "Fine Defocus for ComfyUI"
PNG, JPEG, WEBP = "PNG", "JPEG", "WebP"
SUFFIXES = {PNG: ".png", JPEG: ".jpg", WEBP: ".webp"}
#: Longest side a file of the format can have, px.
LONGEST_PX = {PNG: 2**31 - 1, JPEG: 65500, WEBP: 16383}
#: WebP at this quality keeps every value.
LOSSLESS = 100

#: Tags for ComfyUI's JSON texts: maker, description and name of the document; then tags that mean nothing.
_TEXTS, _PRIVATE = (Base.Make, Base.ImageDescription, Base.DocumentName), 0xC800
_CENTIMETRE, _MM_PER_UNIT, _SRGB, _INCH, _CENTRED = 3, 10.0, 1, 2, 1
#: The largest number of a fraction, which as a distance stands for infinity.
_MOST = 0xFFFFFFFF


def camera_tags(
    camera: Camera | None, focus: Focus | None, width_px: int, height_px: int
) -> dict[int, object]:
    """EXIF tags of one picture by number: f-number, focal length, its 35-mm equivalent, sensor, distance.

    camera, focus: single settings; None leaves their tags out. A distance that is not positive is left out,
    infinity is written as the standard does.
    The 35-mm equivalent compares diagonals, of the part of the sensor that the picture shows.
    """
    tags: dict[int, object] = {
        Base.ExifVersion: b"0232",
        Base.ColorSpace: _SRGB,
        Base.ExifImageWidth: width_px,
        Base.ExifImageHeight: height_px,
    }
    if camera is not None:
        framed = camera.framed(width_px, height_px)
        sensor, focal = _one(framed.sensor_mm), _one(framed.focal_mm)
        per_unit = _rational(width_px / sensor * _MM_PER_UNIT)
        tags |= {
            Base.FNumber: _rational(_one(framed.f_number)),
            Base.FocalLength: _rational(focal),
            Base.FocalPlaneXResolution: per_unit,
            Base.FocalPlaneYResolution: per_unit,
            Base.FocalPlaneResolutionUnit: _CENTIMETRE,
        }
        diagonal = sensor * math.hypot(1.0, height_px / width_px)
        equivalent = round(full_frame_equivalent_mm(focal, diagonal))
        if 1 <= equivalent <= 0xFFFF:
            tags[Base.FocalLengthIn35mmFilm] = equivalent
    if focus is not None:
        distance = _one(focus.distance_m)
        if distance > 0:
            tags[Base.SubjectDistance] = Fraction(_MOST) if math.isinf(distance) else _rational(distance)
    return tags


def exif_block(
    tags: Mapping[int, object], workflow: Mapping[str, str] | None = None, *, jpeg: bool = False
) -> Image.Exif:
    """Pillow's EXIF of a file.

    tags: from `camera_tags`. jpeg: with what the standard wants in JPEG files alone.
    workflow: JSON texts by name, laid out as ComfyUI does in WebP: `prompt` in the tag of the camera's model,
    the others in that of its maker and downwards, as far as the tags there are texts.
    """
    block = Image.Exif()
    block[Base.Software] = SOFTWARE
    inner = block.get_ifd(IFD.Exif)
    for tag, value in tags.items():
        inner[tag] = IFDRational(value.numerator, value.denominator) if isinstance(value, Fraction) else value
    if jpeg:
        block[Base.XResolution] = block[Base.YResolution] = IFDRational(72)
        block[Base.ResolutionUnit], block[Base.YCbCrPositioning] = _INCH, _CENTRED
        inner[Base.FlashPixVersion] = b"0100"
    places = itertools.chain(_TEXTS, itertools.count(_PRIVATE))
    for name, text in (workflow or {}).items():
        block[Base.Model if name == "prompt" else next(places)] = f"{name}:{text}"
    return block


def encoded(
    picture: Tensor,
    file_format: str,
    quality: int,
    tags: Mapping[int, object] | None,
    workflow: Mapping[str, str] | None = None,
) -> bytes:
    """One picture as the bytes of a file.

    picture: `(H, W, C)` sRGB 0..1, C = 1 (grey), 3, or 4 with straight alpha; values are rounded to 8 bits.
        PNG and WebP keep alpha; JPEG has none and shows what is transparent on white.
    file_format: PNG, JPEG or WEBP. quality: 1..100, not used for PNG; 100 makes WebP lossless.
    tags: from `camera_tags`; None writes no EXIF at all, and no workflow.
    workflow: JSON texts by name, written into PNG (text chunks) and WebP (EXIF). JPEG cannot hold one.
    Raises ValueError for a picture larger than the format can be.
    """
    height, width = picture.shape[:2]
    if max(height, width) > LONGEST_PX[file_format]:
        raise ValueError(
            f"{file_format} holds at most {LONGEST_PX[file_format]} px a side, and the picture is {width} × "
            f"{height} px: choose {PNG}, or make it smaller."
        )
    srgb = torch.nan_to_num(picture.detach().float().cpu(), nan=0.0).clamp(0.0, 1.0)
    if file_format == JPEG and srgb.shape[-1] == 4:
        radiance = image_to_radiance(srgb[None])
        srgb = linear_to_srgb(radiance[0, :3] + 1.0 - radiance[0, 3:]).movedim(0, -1)
    values = (srgb * 255.0).round().to(torch.uint8).numpy()
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    options: dict[str, Any] = {}
    if tags is not None:
        in_exif = workflow if file_format == WEBP else None
        options["exif"] = exif_block(tags, in_exif, jpeg=file_format == JPEG)
    if file_format == PNG:
        options["compress_level"] = 4
        if tags is not None and workflow:
            texts = PngInfo()
            for name, text in workflow.items():
                texts.add_text(name, text)
            options["pnginfo"] = texts
    elif file_format == JPEG:
        # full colour resolution: lights out of focus have hard coloured rims
        options |= {"quality": quality, "subsampling": 0, "optimize": True}
    else:
        options |= {"quality": quality, "lossless": quality >= LOSSLESS, "exact": True, "method": 4}
    file = io.BytesIO()
    image.save(file, format=file_format, **options)
    return file.getvalue()


def values_name(camera: Camera | None, focus: Focus | None) -> str:
    """One picture's settings as part of a file's name; empty without any.

    >>> values_name(Camera(2.8, 50.0), Focus(1.5)), values_name(Camera(11.0, 50.0), Focus(float("inf")))
    ('_f2.8_1.5m', '_f11_infinity')
    """
    name = "" if camera is None else f"_f{_plain(_one(camera.f_number))}"
    if focus is not None:
        distance = _one(focus.distance_m)
        name += "_infinity" if math.isinf(distance) else f"_{_plain(distance)}m"
    return name


def write_new(folder: Path, name_of: Callable[[int], str], counter: int, content: bytes) -> Path:
    """Writes a file under a name that is free; its path.

    name_of: the file's name for a number; numbers are tried from `counter` on, and no file is overwritten.
    Raises ValueError when it cannot be written whole; nothing of it stays then.
    """
    while True:
        path = folder / name_of(counter)
        try:
            file = path.open("xb")
        except FileExistsError:
            counter += 1
            continue
        except OSError as error:
            raise ValueError(f"{path.name} cannot be written into {folder}: {_why(error)}.") from error
        try:
            with file:
                file.write(content)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise ValueError(
                f"{path.name} ({len(content) / 1e6:.1f} MB) was not saved: {_why(error)}. Make room in "
                f"{folder}, then run again."
            ) from error
        return path


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "the disk is full"
    return (error.strerror or str(error)).lower()


def _one(value: float | Tensor) -> float:
    return float(torch.as_tensor(value, dtype=torch.float64).reshape(-1)[0])


def _plain(value: float) -> str:
    """Three significant digits without an exponent."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:.{min(max(digits, 0), 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rational(value: float) -> Fraction:
    """The nearest fraction that two unsigned 32-bit numbers hold, nominal marks as they are: 2.8 is 14/5."""
    value = min(max(value, 1.0 / _MOST), float(_MOST - 1))
    # a batch of settings may be float32, whose 2.8 is not that of float64
    exact = Fraction(float(f"{value:.7g}"))
    return exact.limit_denominator(max(1, min(10**6, int(_MOST / value))))
