"""Portable float maps, as stereo data sets have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_pfm(path: Path) -> Tensor:
    """A grey .pfm as `(1, H, W)` float32, first line on top. Raises ValueError for another kind of file."""
    with path.open("rb") as file:
        kind = file.readline().strip()
        try:
            width, height = (int(v) for v in file.readline().split())
            scale = float(file.readline())
        except ValueError as error:
            raise ValueError(f"{path.name} is damaged: its header cannot be read.") from error
        values = np.frombuffer(file.read(), dtype="<f4" if scale < 0 else ">f4")
    if kind != b"Pf" or values.size != width * height:
        raise ValueError(
            f"{path.name} is no grey float map: it says {kind.decode(errors='replace')}, {width} × {height}, "
            f"and holds {values.size} numbers."
        )
    return torch.from_numpy(values.reshape(1, height, width)[:, ::-1].astype(np.float32))
