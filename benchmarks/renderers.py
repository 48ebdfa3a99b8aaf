"""The lenses alone on sharp pictures with true depth: blur monotonicity, and seconds per sweep.

    python benchmarks/renderers.py --out runs/renderers

Scenes are Motorcycle (scikit-image) and the ray-traced ones of the tests, with light far above white.
`python -m training evaluate renderers --folder FOLDER --out OUT` does the same for pictures of your own.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from measuring import options

from lens_models.depth.convert import fill_missing
from lens_models.light import srgb_to_linear
from tools import motorcycle
from training.evaluate.methods import LENSES
from training.evaluate.options import Evaluation
from training.evaluate.renderers import TITLES, Sharp, judge, markdown, render

SCENES = ("slant", "portrait", "hair", "behind", "sitter")
MOTORCYCLE_FOCAL_MM = 48.3


def scenes() -> list[Sharp]:
    """Motorcycle with the focus at its middle, and the ray-traced scenes with their own."""
    from optics.shots import shot  # on the import path because of measuring

    pixels, metres = motorcycle.load()
    linear = srgb_to_linear(torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255.0)
    metres = torch.from_numpy(metres.astype(np.float32))[None]
    filled = fill_missing(metres, metres.isfinite())
    pictures = [Sharp("motorcycle", linear, filled, focal_mm=MOTORCYCLE_FOCAL_MM)]
    for name in SCENES:
        traced = shot(name)
        lens = traced.lens
        pictures.append(Sharp(name, traced.sharp(), traced.depth_m(), lens.focus_m, lens.focal_mm))
    return pictures


def main() -> None:
    arguments = options(__doc__, out="runs/renderers", threads=2)
    logging.basicConfig(level=logging.WARNING)
    config, pictures = Evaluation.model_validate({}), scenes()
    print(markdown(judge(pictures, config, arguments.out)))
    for sharp in pictures:
        height, width = sharp.linear.shape[-2:]
        for lens in LENSES:
            start = time.perf_counter()
            render(sharp, lens, config)
            seconds = time.perf_counter() - start
            print(f"{sharp.name:12} {width} x {height}  {TITLES[lens]:15} {seconds:6.2f} s, eight apertures")


if __name__ == "__main__":
    main()
