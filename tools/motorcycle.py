"""The demo's photo with its measured depth: Motorcycle of Middlebury 2014 (Scharstein et al.).

It comes with scikit-image, so this runs in the project's environment: `python -m tools.motorcycle FOLDER`
writes motorcycle.png and motorcycle_depth.png (16 bit, millimetres, 0 where nothing was measured).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Calibration of the quarter-size pair that scikit-image carries.
FOCAL_PX = 994.978
BASELINE_M = 0.193001
OFFSET_PX = 31.086


def load() -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) uint8 and depth (H, W) in metres, NaN where nothing was measured."""
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    disparity = np.where(np.isfinite(disparity), disparity, np.nan).astype(np.float64)
    return left, FOCAL_PX * BASELINE_M / (disparity + OFFSET_PX)


def write(folder: Path) -> tuple[Path, Path]:
    picture, depth = load()
    photo, metres = Path(folder) / "motorcycle.png", Path(folder) / "motorcycle_depth.png"
    Image.fromarray(picture).save(photo)
    millimetres = np.nan_to_num(np.round(depth * 1000), nan=0.0).astype(np.uint16)
    Image.fromarray(millimetres).save(metres)
    return photo, metres


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
