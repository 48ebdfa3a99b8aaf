"""Level stack by spans for CPUs, compiled by numba: O(R) work per pixel and level, forward only.

Blocks of 64 pixels of one row convolve only the levels that they use, mostly two or three. A level is a
plateau with a soft ring one pixel wide: the plateau is a difference of prefix sums per row (float64, so
that a highlight leaves its dark neighbours exact), the ring a short list of weighted taps.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from .. import disc
from ..progress import Progress

_BLOCK = 64
_BAND_ROWS = 64
#: A plateau of fewer pixels in a row costs more as a prefix difference than as taps.
_SHORTEST_SPAN = 3
#: numba's plain thread pool aborts the process when two threads enter it.
_one_at_a_time = threading.Lock()


@functools.lru_cache(maxsize=8)
def _rows_of_levels(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the first `count` levels: half width of the plateau, and the taps beyond it.

    Returns `half (K, R+1)` (-1 = no plateau), `first (K, R+2)` index of each row's first tap in `taps`,
    `taps` weights for dx = half+1, half+2, …, and `scale (K,)` = 1/S_L. Weights are halved on the axes,
    where mirrored taps meet themselves.
    """
    levels = disc.levels_of(count)
    rows = levels.reach_px + 1
    half = np.full((count, rows), -1, np.int32)
    first = np.zeros((count, rows + 1), np.int32)
    taps: list[np.ndarray] = []
    filled = 0
    for k, size in enumerate(levels.size):
        quadrant = disc.level_quadrant(float(size))
        quadrant[0] *= 0.5
        quadrant[:, 0] *= 0.5
        first[k] = filled
        for dy, row in enumerate(quadrant):
            plateau = -1
            if size - 1.0 >= dy:
                plateau = int(np.sqrt((size - 1.0) ** 2 - dy * dy))
            half[k, dy] = plateau if plateau >= _SHORTEST_SPAN else -1
            ring = np.trim_zeros(row[half[k, dy] + 1 :], "b")
            taps.append(ring)
            first[k, dy] = filled
            filled += len(ring)
            first[k, dy + 1 :] = filled
    return half, first, np.concatenate(taps).astype(np.float32), (1.0 / levels.total).astype(np.float32)


def compiled(module: str, **how: bool) -> Callable[[Callable], Callable]:
    """numba's compiler, for a kernel that calls its module `module`.

    The cache on disk loads a kernel's module by name, and ComfyUI names a module after the pack's folder:
    under a name of its own the cache also serves a renamed folder, and tests and ComfyUI alike.
    """

    def decorate(kernel: Callable) -> Callable:
        kernel.__module__ = module
        sys.modules.setdefault(module, ModuleType(module))
        options: dict[str, Any] = {"fastmath": True, "boundscheck": False, **how}
        return numba.njit(**options)(kernel)

    return decorate


@compiled("fine_defocus_blur_numba_gather", parallel=True, cache=True)
def _gather_band(padded, prefix, reach, radius, variance, half, first, taps, scale, first_row, out):
    """Rows first_row.. of one picture.

    padded (C, H+2P, W'+2P), prefix one column more, W' the width in whole blocks; radius, out: the band.
    """
    channels = padded.shape[0]
    rows, width = radius.shape
    blocks = -(-width // _BLOCK)
    for job in prange(rows * blocks):
        job = np.int64(job)  # prange counts in unsigned, where -dy would wrap around
        row = job // blocks
        x0 = (job % blocks) * _BLOCK
        y = first_row + row + reach
        x = x0 + reach
        here = min(_BLOCK, width - x0)
        used = np.zeros(scale.shape[0], np.bool_)
        lo = np.zeros(_BLOCK, np.int32)
        t = np.zeros(_BLOCK, np.float32)
        k = 0
        for i in range(here):  # `disc.mix`; neighbours mostly share their levels
            wanted = radius[row, x0 + i] * radius[row, x0 + i] * np.float32(0.25)
            while k > 0 and variance[k] > wanted:
                k -= 1
            while k < scale.shape[0] - 2 and variance[k + 1] <= wanted:
                k += 1
            lo[i] = k
            share = (wanted - variance[k]) / (variance[k + 1] - variance[k])
            t[i] = min(max(share, np.float32(0.0)), np.float32(1.0))
            used[k] = True
            if t[i] > 0.0:
                used[k + 1] = True
        total = np.zeros((channels, _BLOCK), np.float32)
        level = np.empty((channels, _BLOCK), np.float32)
        for k in range(scale.shape[0]):
            if not used[k]:
                continue
            level[:] = 0.0
            for dy in range(half.shape[1]):
                within = half[k, dy]
                begin, end = first[k, dy], first[k, dy + 1]
                if within < 0 and begin == end:
                    break
                if within >= 0:
                    once = np.float32(0.5 if dy == 0 else 1.0)
                    right = np.uint64(x + within + 1)
                    left = np.uint64(x - within)
                    for c in range(channels):
                        up = prefix[c, y - dy]
                        down = prefix[c, y + dy]
                        for i in range(np.uint64(_BLOCK)):
                            plateau = (up[right + i] - up[left + i]) + (down[right + i] - down[left + i])
                            level[c, i] += once * np.float32(plateau)
                for tap in range(begin, end):
                    weight = taps[tap]
                    right = np.uint64(x + within + 1 + tap - begin)
                    left = np.uint64(x - within - 1 - tap + begin)
                    for c in range(channels):
                        up = padded[c, y - dy]
                        down = padded[c, y + dy]
                        for i in range(np.uint64(_BLOCK)):
                            mirrored = (up[left + i] + up[right + i]) + (down[left + i] + down[right + i])
                            level[c, i] += weight * mirrored
            for i in range(here):
                share = np.float32(0.0)
                if lo[i] == k:
                    share = np.float32(1.0) - t[i]
                elif lo[i] == k - 1:
                    share = t[i]
                share *= scale[k]
                for c in range(channels):
                    total[c, i] += share * level[c, i]
        out[:, row, x0 : x0 + here] = total[:, :here]


@contextmanager
def _as_many_threads_as_torch() -> Iterator[None]:
    """numba's OpenMP hands its number of threads on to torch: when it starts, all of the machine's."""
    threads = torch.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue] - filled in at run time
    numba.set_num_threads(min(threads, most))
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def check_taken(image: Tensor, radius_px: Tensor) -> None:
    """Raise ValueError for what the compiled engines cannot blur: other devices, types, wanted gradients."""
    if image.device.type != "cpu" or image.dtype != torch.float32:
        raise ValueError(f"The cpu blur takes float32 on the CPU, not {image.dtype} on {image.device}.")
    if torch.is_grad_enabled() and (image.requires_grad or radius_px.requires_grad):
        raise ValueError("The cpu blur has no gradients: use the stack engine.")


def gather(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """`blur.gather` with discs, float32 on the CPU; what the radii do not change is done once per picture.

    Raises ValueError for another device or type, and when gradients are wanted.
    """
    check_taken(image, radius_px)
    channels, height, width = image.shape[1:]
    batch, spare = len(radius_px), -width % _BLOCK
    levels = disc.levels_for(float(radius_px.max()))
    rows_of_levels = _rows_of_levels(len(levels))
    variance = levels.variance.astype(np.float32)
    radius = radius_px.detach().float().contiguous().numpy()
    reach = levels.reach_px
    out = np.empty((batch, channels, height, width), np.float32)
    bands = range(0, height, _BAND_ROWS)
    edges = ((reach, reach), (reach, reach + spare))

    def report(b: int, done: int) -> None:
        if on_progress is not None:
            on_progress(b * len(bands) + done, batch * len(bands))

    for b in range(batch):
        if b < len(image):
            padded = np.empty((channels, height + 2 * reach, width + spare + 2 * reach), np.float32)
            prefix = np.empty((*padded.shape[:2], padded.shape[2] + 1), np.float64)
            for c in range(channels):
                padded[c] = np.pad(image[b, c].detach().numpy(), edges, mode="edge")
                report(b, 0)
                prefix[c, :, reach] = 0.0
                # counted from the picture's first column: a wider border must not change the rounding
                prefix[c, :, :reach] = padded[c, :, :1] * np.arange(-reach, 0, dtype=np.float64)
                np.cumsum(padded[c, :, reach:], axis=1, dtype=np.float64, out=prefix[c, :, reach + 1 :])
                report(b, 0)
        for done, y in enumerate(bands):
            band = slice(y, min(y + _BAND_ROWS, height))
            with _one_at_a_time, _as_many_threads_as_torch():
                _gather_band(
                    padded, prefix, reach, radius[b, band], variance, *rows_of_levels, y, out[b, :, band]
                )
            report(b, done + 1)
    return torch.from_numpy(out)
