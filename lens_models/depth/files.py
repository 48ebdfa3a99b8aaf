"""Depth files as numbers: 16-bit PNG, TIFF, EXR, NPY, NPZ. Units are `convert.from_units`' business."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .exr import read_exr

SUFFIXES = (".png", ".exr", ".npy", ".npz", ".tif", ".tiff")


@dataclass(frozen=True)
class DepthFile:
    """What a file holds, before its unit is applied.

    values: `(B, H, W)` float32, as stored. channel: what was read out of a file with several parts, or "".
    warnings: sentences for the artist.
    """

    values: Tensor
    channel: str = ""
    warnings: tuple[str, ...] = ()


def read_depth_file(path: str | Path, channel: str = "") -> DepthFile:
    """Read a depth file without changing its numbers.

    channel: key of an NPZ archive, channel of an EXR file; empty takes the one that looks like depth.
    Raises ValueError, with a sentence for the artist, when the file is missing, unreadable, in colour,
    or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path.name} is not there: put it into ComfyUI's input folder, or choose another file."
        )
    suffix = path.suffix.lower()
    warnings: tuple[str, ...] = ()
    read = ""
    if suffix == ".npy":
        values = _load_numpy(path)
    elif suffix == ".npz":
        values, read = _from_archive(path, channel)
    elif suffix == ".exr":
        values, read = read_exr(path, channel)
    elif suffix in SUFFIXES:
        values, warnings = _from_picture(path)
    else:
        raise ValueError(f"{path.name} is not a depth file: use one of {', '.join(SUFFIXES)}.")
    return DepthFile(_batched(values, path.name), read, warnings)


def _batched(values: np.ndarray, name: str) -> Tensor:
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {values.dtype}, not numbers.")
    shape = values.shape
    if values.ndim > 3 or (values.ndim == 3 and values.shape[0] != 1):  # (..., 1) channel axes
        values = values[..., 0] if values.shape[-1] == 1 else values
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.size == 0:
        raise ValueError(
            f"{name} has shape {shape}: depth is (height, width) or (batch, height, width), with at least "
            "one pixel."
        )
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _load_numpy(path: Path) -> Any:
    try:
        # pickles can run code, so they stay shut
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path.name} cannot be read as NumPy data ({error}). Save it with numpy.save or numpy.savez as "
            "plain numbers."
        ) from error


def _from_archive(path: Path, channel: str) -> tuple[np.ndarray, str]:
    archive = _load_numpy(path)
    if isinstance(archive, np.ndarray):
        return archive, ""
    with archive:
        keys = list(archive.files)
        key = channel.strip()
        if not key:
            depth_like = [k for k in keys if k.lower() in ("depth", "z", "metres", "distance", "disparity")]
            key = (depth_like or keys or [""])[0]
        if key not in keys:
            raise ValueError(f'{path.name} has no array "{key}": it has {", ".join(keys) or "nothing"}.')
        try:
            return archive[key], key
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f'The array "{key}" of {path.name} cannot be read ({error}).') from error


def _from_picture(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """PNG and TIFF: Pillow for grey, OpenCV where Pillow would cut 16-bit colour or odd floats to 8 bits."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            mode = picture.mode
            deep_colour = mode in ("RGB", "RGBA", "LA") and _bits_per_channel(picture, path) > 8
            values = None if deep_colour else np.array(picture)
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            if file.read(4) not in (b"II*\0", b"MM\0*"):
                raise ValueError(f"{path.name} cannot be read: it is not a PNG or TIFF picture.") from error
        values, mode = None, ""  # 64-bit and half float TIFF
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Save it again.") from error
    if mode == "P":
        raise ValueError(
            f"{path.name} stores colours of a palette, not depth: export it as 16-bit grey, EXR, NPY or TIFF."
        )
    if values is None:
        values = _with_opencv(path)
    warnings = []
    if values.ndim == 3:
        colour = values[..., :-1] if values.shape[-1] in (2, 4) else values
        values = values[..., 0]
        if (colour != colour[..., :1]).any():
            warnings.append(
                f"{path.name} is in colour: a colour map cannot be read as depth. The first channel was used."
            )
    if values.dtype == np.uint8 or mode == "1":
        levels = len(np.unique(values))
        warnings.append(
            f"{path.name} has 8 bits and only {levels} different distances. Blur will show steps; use "
            "16-bit PNG, EXR, NPY or TIFF."
        )
    return values, tuple(warnings)


def _bits_per_channel(picture: Any, path: Path) -> int:
    if picture.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    bits = getattr(picture, "tag_v2", {}).get(258, (8,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _with_opencv(path: Path) -> np.ndarray:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{path.name} needs OpenCV to be read: install opencv-python, or save the depth as 16-bit grey "
            "PNG or NPY."
        ) from error
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError(
            f"{path.name} cannot be read. Save it again as 16-bit grey PNG, 32-bit float TIFF or NPY."
        )
    if values.ndim == 3 and values.shape[-1] >= 3:  # OpenCV gives blue first
        values[..., :3] = values[..., 2::-1]
    return values
