"""The lenses alone on sharp pictures with true depth: blur monotonicity, and seconds per sweep.

    python benchmarks/renderers.py --out runs/renderers

Scenes are Motorcycle (scikit-image) and those the tests ray-trace: exact depth, light far above white.
`python -m training evaluate renderers --folder FOLDER --out OUT` does the same for pictures of your own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from optics.shots import shot  # noqa: E402

from lens_models.depth.convert import fill_missing  # noqa: E402
from lens_models.light import srgb_to_linear  # noqa: E402
from tools import motorcycle  # noqa: E402
from training.evaluate.methods import LENSES  # noqa: E402
from training.evaluate.options import Evaluation  # noqa: E402
from training.evaluate.renderers import TITLES, Sharp, judge, markdown, render  # noqa: E402

SCENES = ("slant", "portrait", "hair", "behind", "sitter")
MOTORCYCLE_FOCAL_MM = 48.3


def scenes() -> list[Sharp]:
    """Motorcycle with the focus at its middle, and the ray-traced scenes with their own."""
    shown, metres = motorcycle.load()
    linear = srgb_to_linear(torch.from_numpy(shown).movedim(-1, 0)[None].float() / 255.0)
    metres = torch.from_numpy(metres.astype(np.float32))[None]
    filled = fill_missing(metres, metres.isfinite())
    found = [Sharp("motorcycle", linear, filled, focal_mm=MOTORCYCLE_FOCAL_MM)]
    for name in SCENES:
        traced = shot(name)
        found.append(Sharp(name, traced.sharp(), traced.depth_m(), traced.lens.focus_m, traced.lens.focal_mm))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/renderers")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.basicConfig(level=logging.WARNING)
    config, pictures = Evaluation(), scenes()
    print(markdown(judge(pictures, config, arguments.out)))
    for sharp in pictures:
        height, width = sharp.linear.shape[-2:]
        for lens in LENSES:
            start = time.perf_counter()
            render(sharp, lens, config)
            took = time.perf_counter() - start
            print(f"{sharp.name:12} {width} x {height}  {TITLES[lens]:15} {took:6.2f} s, eight apertures")


if __name__ == "__main__":
    main()
