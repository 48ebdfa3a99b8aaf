"""What the benchmarks share: time, memory, the float64 definition, and a machine's own bounds."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lens_models import blur, disc

#: Side of the matrices whose product tells a machine's multiply-adds; values whose copy tells its bandwidth.
PRODUCT_SIDE, COPIED_VALUES = 2048, 1 << 26


def best_of(runs: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def processor() -> str:
    """Name of the CPU, as far as the system tells it."""
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
    raise RuntimeError(f"The system does not tell {name}: this benchmark needs Linux.")


def extra_mb(work: Callable[[], object]) -> tuple[float, float]:
    """(MB, s): the peak of resident memory beside what was held before, its result among it, and its time."""
    gc.collect()
    with contextlib.suppress(
        OSError, AttributeError
    ):  # glibc keeps what was freed, which would count as held
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before, start = resident_mb("VmRSS"), time.perf_counter()
    held = work()
    seconds = time.perf_counter() - start
    extra = resident_mb("VmHWM") - before
    del held
    return extra, seconds


def definition(image: Tensor, radius: Tensor, rows: slice) -> Tensor:
    """The float64 definition of some rows, with the rows around them that reach in."""
    reach = int(np.ceil(float(radius.max()))) + 2
    top, bottom = max(0, rows.start - reach), min(image.shape[-2], rows.stop + reach)
    part = blur.gather(image[..., top:bottom, :].double(), radius[:, top:bottom].double(), engine="reference")
    return part[..., rows.start - top : rows.start - top + rows.stop - rows.start, :]


def definition_error(made: Tensor, image: Tensor, rows: slice, exact: Tensor) -> float:
    """Largest difference on `rows` from what `definition` gave, of the picture's maximum."""
    return (made[..., rows, :] - exact).abs().max().item() / image.max().item()


@functools.cache
def _rim(lower: float, upper: float) -> tuple[int, int]:
    """Offsets at the soft rim, neither whole nor dark, and rows of a disc between two levels."""
    axis = np.arange(-disc.reach_px(upper), disc.reach_px(upper) + 1)
    distance = np.hypot(axis[:, None], axis[None, :])
    return int(((distance > lower - 1.0) & (distance < upper)).sum()), len(axis)


def rims(radius: Tensor) -> tuple[int, int]:
    """Taps of all discs' soft rims, and rows of all discs: what no sum over whole runs can save."""
    levels = disc.levels_for(float(radius.max()))
    lo = levels.mix(radius.double().cpu())[0]
    taps = rows = 0
    for k, pixels in enumerate(torch.bincount(lo.flatten()).tolist()):
        if pixels:
            at_rim, lines = _rim(float(levels.size[k]), float(levels.size[k + 1]))
            taps, rows = taps + pixels * at_rim, rows + pixels * lines
    return taps, rows


class Machine:
    """A CPU's own bounds, measured here and now: multiply-adds of a matrix product and bytes of a copy."""

    def __init__(self, runs: int = 3) -> None:
        a, b = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE), torch.rand(PRODUCT_SIDE, PRODUCT_SIDE)
        out = torch.empty_like(a)
        torch.mm(a, b, out=out)
        self.multiply_adds = PRODUCT_SIDE**3 / best_of(runs, lambda: torch.mm(a, b, out=out))
        source, target = torch.ones(COPIED_VALUES), torch.zeros(COPIED_VALUES)
        self.bytes = 8 * COPIED_VALUES / best_of(runs, lambda: target.copy_(source))

    def floor(self, image: Tensor, radius: Tensor) -> float:
        """Seconds below which no blur by spans can come: rims, two look-ups per row, one pass of the data."""
        taps, rows = rims(radius)
        channels = image.shape[1]
        moved = 4 * (2 * image.numel() + radius.numel())
        return math.fsum((channels * (taps + 2 * rows) / self.multiply_adds, moved / self.bytes))
