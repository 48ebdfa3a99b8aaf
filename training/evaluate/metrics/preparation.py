"""Networks of the transformers library from their folders, and pictures as these expect them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

#: Of PIL's ways to resize, those that torch has, by PIL's numbers.
_RESAMPLED = {2: "bilinear", 3: "bicubic"}


def from_folder(kind: Any, folder: str | Path) -> Any:
    """A network or tokenizer by its library's class. Raises ValueError where the folder holds none."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} cannot be read as {kind.__name__}: {error}") from error


@dataclass(frozen=True)
class Preparation:
    """shortest, longest: sides that the network sees, px; height, width: instead, a fixed size.

    multiple: sides are rounded up to multiples of this, px. mean, deviation: for colours 0..1. resampled:
    "bilinear" or "bicubic". middle: (height, width) of the middle that is cut out afterwards, px; None keeps
    all.
    """

    shortest: int = 800
    longest: int = 1333
    height: int = 0
    width: int = 0
    multiple: int = 32
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    resampled: str = "bilinear"
    middle: tuple[int, int] | None = None

    @classmethod
    def read(cls, folder: Path, usual: Preparation | None = None) -> Preparation:
        """From preprocessor_config.json where the folder has one, else as most are published.

        usual: what stands where the file says nothing; not given, that of MaskFormer and its descendants.
        """
        usual = cls() if usual is None else usual
        path = folder / "preprocessor_config.json"
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        settings = settings.get("image_processor", settings)
        size = settings.get("size") or {"height": usual.height, "width": usual.width}
        size = {"shortest_edge": size} if isinstance(size, int) else size
        middle = settings.get("crop_size")
        middle = {"height": middle, "width": middle} if isinstance(middle, int) else middle
        cut = usual.middle is not None and settings.get("do_center_crop", True)
        return cls(
            int(size.get("shortest_edge") or usual.shortest),
            int(size.get("longest_edge") or settings.get("max_size") or usual.longest),
            int(size.get("height") or 0),
            int(size.get("width") or 0),
            int(settings.get("size_divisor", usual.multiple) or 1),
            tuple(settings.get("image_mean") or usual.mean),
            tuple(settings.get("image_std") or usual.deviation),
            _RESAMPLED.get(settings.get("resample", -1), usual.resampled),
            ((middle["height"], middle["width"]) if middle else usual.middle) if cut else None,
        )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which a picture is shown to the network, before its middle is cut out."""
        if self.height and self.width:
            rows, columns = self.height, self.width
        else:
            scale = min(self.shortest / min(height, width), self.longest / max(height, width))
            rows, columns = (max(1, int(side * scale + 1e-6)) for side in (height, width))
        rows, columns = (math.ceil(side / self.multiple) * self.multiple for side in (rows, columns))
        return rows, columns

    def shown(self, srgb: Tensor) -> Tensor:
        """sRGB 0..1 `(B, 3, H, W)` as the network gets it."""
        size = self.input_size(*srgb.shape[-2:])
        resized = F.interpolate(srgb, size=size, mode=self.resampled, align_corners=False, antialias=True)
        if self.middle is not None:
            rows, columns = self.middle
            top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
            resized = resized[..., top : top + rows, left : left + columns]
        return self.normal(resized.clamp(0.0, 1.0))

    def normal(self, srgb: Tensor) -> Tensor:
        """Colours 0..1 `(B, 3, H, W)` less the mean, over the deviation."""
        mean, deviation = (srgb.new_tensor(c).view(1, 3, 1, 1) for c in (self.mean, self.deviation))
        return (srgb - mean) / deviation
