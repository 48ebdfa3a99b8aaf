"""What the benchmarks share: options, time, memory, the float64 definition, and a machine's own bounds.

Importing this module puts the repository's root and its tests on the import path.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import math
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from lens_models import blur, disc

#: Side of the matrices whose product gives a machine's multiply-adds; values whose copy gives its bandwidth.
PRODUCT_SIDE, COPIED_VALUES = 2048, 1 << 26
#: Rows on which a blur is compared with the float64 definition.
CHECKED_ROWS = 16


def options(description: str | None, **defaults: Any) -> argparse.Namespace:
    """The command line: an option for each keyword, of its default's type, and torch's `threads` set.

    A list takes several values. A dict holds argparse's own settings, `default` among them.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in defaults.items():
        settings = dict(value) if isinstance(value, dict) else {"default": value}
        default = settings["default"]
        if isinstance(default, list | tuple):
            settings = {"nargs": "+", "type": type(default[0]), **settings}
        elif default is False:
            settings["action"] = "store_true"
        elif default is not None:
            settings["type"] = type(default)
        parser.add_argument("--" + name.replace("_", "-"), **settings)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def in_fresh_process(*arguments: object) -> str:
    """What this script prints in a fresh process with other arguments; ends with its error if it fails."""
    command = [sys.executable, sys.argv[0], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def best_of(runs: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    return min(timeit.repeat(work, number=1, repeat=runs))


def processor() -> str:
    """Name of the CPU, if the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def resident_mb(name: str) -> float:
    """`VmRSS` or, for the peak, `VmHWM` of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}: this benchmark needs Linux.")


def extra_mb(work: Callable[[], object]) -> tuple[float, float]:
    """(MB, s): peak of resident memory above that before the work, its result included, and its time."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory, which would count as used
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present memory
    before, start = resident_mb("VmRSS"), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    extra = resident_mb("VmHWM") - before
    del result
    return extra, seconds


def forward_backward(image: Tensor, radius: Tensor, engine: str) -> Tensor:
    """Gradient of a blur's sum with respect to the picture."""
    image, radius = image.clone().requires_grad_(), radius.clone().requires_grad_()
    blur.gather(image, radius, engine=engine).sum().backward()
    assert image.grad is not None
    return image.grad


def naive_seconds(image: Tensor, radius: Tensor) -> tuple[float, float]:
    """Seconds of a naive gather, a weight map and a shifted copy per offset; and the share of offsets run.

    Above a radius of 16 px at 1024² it runs a share of its offsets and scales the time up.
    """
    reach, (height, width) = int(radius.max().ceil()), image.shape[-2:]
    share = min(1.0, (16 / float(radius.max())) ** 2 * (1024 / width) ** 2)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    out, weights = torch.zeros_like(image), torch.zeros_like(radius)
    offsets = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    run = offsets[:: max(1, round(1 / share))]
    start = time.perf_counter()
    for dy, dx in run:
        weight = (radius + 0.5 - (dx * dx + dy * dy) ** 0.5).clamp(0, 1)
        out = out + weight[:, None] * padded[..., reach + dy :, reach + dx :][..., :height, :width]
        weights = weights + weight
    return (time.perf_counter() - start) * len(offsets) / len(run), share


class Definition:
    """The float64 definition of a blur on some rows."""

    def __init__(self, image: Tensor, radius: Tensor) -> None:
        image, radius = image.cpu(), radius.cpu()
        first = image.shape[-2] // 8
        self.rows, self.maximum = slice(first, first + CHECKED_ROWS), image.max().item()
        reach = math.ceil(float(radius.max())) + 2
        top = max(0, first - reach)
        part = slice(top, min(image.shape[-2], self.rows.stop + reach))
        whole = blur.gather(image[..., part, :].double(), radius[:, part].double(), engine="reference")
        self.exact = whole[..., first - top :, :][..., :CHECKED_ROWS, :]

    def error(self, blurred: Tensor) -> float:
        """Largest difference of a blurred picture on these rows, as a share of the picture's maximum."""
        return (blurred.cpu()[..., self.rows, :] - self.exact).abs().max().item() / self.maximum


@functools.cache
def _rim(lower: float, upper: float) -> tuple[int, int]:
    """Offsets at the soft rim, neither whole nor dark, and rows of a disc between two levels."""
    axis = np.arange(-disc.reach_px(upper), disc.reach_px(upper) + 1)
    distance = np.hypot(axis[:, None], axis[None, :])
    return int(((distance > lower - 1.0) & (distance < upper)).sum()), len(axis)


def rims(radius: Tensor) -> tuple[int, int]:
    """Taps of all discs' soft rims, and rows of all discs: what no sum over whole runs can save."""
    levels = disc.levels_for(float(radius.max()))
    lower = levels.mix(radius.double().cpu())[0]
    taps = rows = 0
    for k, pixels in enumerate(torch.bincount(lower.flatten()).tolist()):
        if pixels:
            at_rim, lines = _rim(float(levels.size[k]), float(levels.size[k + 1]))
            taps, rows = taps + pixels * at_rim, rows + pixels * lines
    return taps, rows


class Machine:
    """A CPU's own bounds, measured now: multiply-adds of a matrix product and bytes of a copy, per second."""

    def __init__(self, runs: int = 3) -> None:
        a, b = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE), torch.rand(PRODUCT_SIDE, PRODUCT_SIDE)
        out = torch.empty_like(a)
        torch.mm(a, b, out=out)
        self.multiply_adds = PRODUCT_SIDE**3 / best_of(runs, lambda: torch.mm(a, b, out=out))
        source, target = torch.ones(COPIED_VALUES), torch.zeros(COPIED_VALUES)
        self.bytes = 8 * COPIED_VALUES / best_of(runs, lambda: target.copy_(source))

    def floor(self, image: Tensor, radius: Tensor) -> float:
        """Lower bound of a blur by spans, s: rims, two look-ups per row, one pass over the data."""
        taps, rows = rims(radius)
        moved = 4 * (2 * image.numel() + radius.numel())
        return image.shape[1] * (taps + 2 * rows) / self.multiply_adds + moved / self.bytes
