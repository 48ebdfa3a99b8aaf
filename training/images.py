"""Pictures in and out of files, sheets of them, and sweeps that move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lens_models.files import atomic
from lens_models.show.sheet import contact_sheet

#: Folder entries that are taken for photos.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_FRAME_MS, _PAUSE_MS = 140, 600


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

    planes = srgb if srgb.shape[-1] == 3 else srgb.movedim(0, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        Image.fromarray((planes.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(part, format="PNG")
    return path


def save_sheet(
    path: Path,
    rows: Sequence[Sequence[Tensor]],
    labels: Sequence[Sequence[str]],
    *,
    title: str = "",
    picture_width: int = 256,
) -> Path:
    """A labelled grid, a line of pictures `(1, 3, H, W)` per row; all of one shape or scaled to one."""
    width = picture_width
    first = rows[0][0]
    height = max(1, round(width * first.shape[-2] / first.shape[-1]))
    scaled = [
        torch.nn.functional.interpolate(
            picture.float(), size=(height, width), mode="bilinear", antialias=True, align_corners=False
        )
        for row in rows
        for picture in row
    ]
    texts = [text for row in labels for text in row]
    sheet = contact_sheet(torch.cat(scaled).movedim(1, -1), texts, title=title, columns=len(rows[0]))
    return save_png(path, sheet[0])


def save_sweep(path: Path, frames: Sequence[Tensor]) -> Path:
    """An animated WebP of `(1, 3, H, W)` pictures, there and back."""
    from PIL import Image

    shown = [
        Image.fromarray((f[0].clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy())
        for f in frames
    ]
    both = shown + shown[-2:0:-1]
    durations = [_PAUSE_MS if i in (0, len(shown) - 1) else _FRAME_MS for i in range(len(both))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        both[0].save(part, format="WEBP", save_all=True, append_images=both[1:], duration=durations, loop=0)
    return path
