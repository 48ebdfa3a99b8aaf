"""The second stage: what each picture's header says. Pixels are not decoded."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from lens_models.photo.exif import read_exif

from .flow import RowWorker, dropped, kept, picture_path
from .options import Exif
from .timeout import call_within

#: PNG's header has the bits of a channel there.
_PNG_BITS = 24
_TIFF_BITS = 258
#: Pillow's modes with more than 8 bits a channel.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_MILLION = 1e6
#: Formats of which a camera writes several pictures into one file, the first being the photo.
_SEVERAL = ("MPO",)


class HeaderWorker(RowWorker):
    """Reads a unit's headers. width, height: px as shown, after `orientation`; lengths: mm."""

    columns = (
        ("mode", pa.string()),
        *((name, pa.int32()) for name in ("width", "height")),
        *((name, pa.float64()) for name in ("f_number", "focal_mm", "focal_35mm")),
        *((name, pa.float64()) for name in ("subject_distance_m", "exposure_s")),
        *((name, pa.string()) for name in ("make", "model", "lens")),
        ("orientation", pa.int8()),
        ("sensor_mm", pa.float64()),
    )

    def verdict(self, row: dict[str, Any]) -> dict[str, Any]:
        options = self.config.exif
        try:
            verdict = call_within(options.timeout_s, header, picture_path(self.config, row), options)
        except Exception as error:  # damaged files fail in every way there is
            return dropped(f"its header cannot be read: {str(error) or type(error).__name__}")
        if verdict["kept"] and not verdict["reason"]:
            verdict["reason"] = row["reason"]
        return verdict


run = HeaderWorker.run


def header(path: Path, options: Exif) -> dict[str, Any]:
    """A photo's verdict and columns. Raises OSError and others for damaged files."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and damaged tags, which are judged below
            with Image.open(path) as picture:
                columns = {"mode": picture.mode, "width": picture.width, "height": picture.height}
                reason = _complaint(picture, path, options)
    except UnidentifiedImageError:
        return dropped("no picture that Pillow opens")
    except Image.DecompressionBombError:
        return dropped(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / _MILLION:.0f} megapixels")
    settings = read_exif(path)
    exif = asdict(settings)
    del exif["reason"]
    if (settings.orientation or 1) >= 5:
        columns["width"], columns["height"] = columns["height"], columns["width"]
    if reason:
        return dropped(reason, **columns, **exif)
    return kept(settings.reason, **columns, **exif)


def _complaint(picture: Any, path: Path, options: Exif) -> str:
    frames = 1 if picture.format in _SEVERAL else getattr(picture, "n_frames", 1)
    megapixels = picture.width * picture.height / _MILLION
    if megapixels > options.max_megapixels:
        return f"{megapixels:.3g} megapixels, more than {options.max_megapixels:g}"
    if frames > 1:
        return f"animated: {frames} frames"
    if not options.sixteen_bit and _bits(picture, path) > 8:
        return f"{_bits(picture, path)} bits a channel"
    if picture.mode not in options.colour:
        return f"colour mode {picture.mode}, not {' or '.join(options.colour)}"
    return ""


def _bits(picture: Any, path: Path) -> int:
    if picture.mode in _DEEP_MODES:
        return 32 if picture.mode in ("I", "F") else 16
    if picture.format == "PNG":
        with path.open("rb") as file:
            return file.read(_PNG_BITS + 1)[-1]
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_TIFF_BITS, 8)
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8
