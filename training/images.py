"""Pictures in and out of files, sheets of them, and sweeps that move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lens_models.files import atomic
from lens_models.show.sheet import contact_sheet

#: Folder entries that are taken for photos.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_FRAME_MS, _PAUSE_MS = 140, 600


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder by name. Raises ValueError where there is no folder."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def read_srgb(path: Path) -> Tensor:
    """`(1, 3, H, W)` sRGB 0..1, turned upright. Raises ValueError, in a sentence, for what is no picture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            shown = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from error
    return torch.from_numpy(shown).movedim(-1, 0)[None].float() / 255.0


def save_png(path: Path, srgb: Tensor) -> Path:
    """Write `(3, H, W)` or `(H, W, 3)` sRGB as 8-bit PNG, whole or not at all."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        Image.fromarray(_rounded(srgb)).save(part, format="PNG")
    return path


def _rounded(srgb: Tensor) -> np.ndarray:
    planes = srgb if srgb.shape[-1] == 3 else srgb.movedim(0, -1)
    return (planes.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def save_sheet(
    path: Path,
    rows: Sequence[Sequence[Tensor]],
    labels: Sequence[Sequence[str]],
    *,
    title: str = "",
    picture_width: int = 256,
) -> Path:
    """A labelled grid, a line of pictures `(1, 3, H, W)` per row; all of one shape or scaled to one."""
    first = rows[0][0]
    size = (max(1, round(picture_width * first.shape[-2] / first.shape[-1])), picture_width)
    scaled = [
        F.interpolate(p.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
        for p in chain.from_iterable(rows)
    ]
    texts = [*chain.from_iterable(labels)]
    sheet = contact_sheet(torch.cat(scaled).movedim(1, -1), texts, title=title, columns=len(rows[0]))
    return save_png(path, sheet[0])


def save_sweep(path: Path, frames: Sequence[Tensor]) -> Path:
    """An animated WebP of `(1, 3, H, W)` pictures, there and back."""
    from PIL import Image

    shown = [Image.fromarray(_rounded(frame[0])) for frame in frames]
    both = shown + shown[-2:0:-1]
    durations = [_PAUSE_MS if i in (0, len(shown) - 1) else _FRAME_MS for i in range(len(both))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        both[0].save(part, format="WEBP", save_all=True, append_images=both[1:], duration=durations, loop=0)
    return path
