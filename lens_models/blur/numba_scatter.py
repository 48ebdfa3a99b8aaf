"""Scatter by spans for CPUs, compiled by numba: the transpose of `numba_gather.py`, forward only.

The pixels of a row that use a level spread it together. Each row of the level's disc is a difference of
their running sums (float64: a highlight leaves its dark neighbours exact) and a short list of weighted
taps, made once and added to the rows above and below. Dark pixels cost nothing.
Threads never meet: a job is one channel of one band of rows, no lower than a disc is high, and every second
band is done before the others. So each sum has one order, whatever the number of threads.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor

from .. import disc
from ..progress import Progress
from .numba_gather import _as_many_threads_as_torch, _one_at_a_time, _rows_of_levels, check_taken, compiled

_BLOCK = 64
#: Longer runs would leave the fastest cache, blocks.
_LONGEST_RUN = 16
#: Levels of a run whose rows are added up before they meet the picture.
_TOGETHER = 8
_LEAST_BAND_ROWS = 16
#: Adds of floats between two calls of on_progress: a third of a second of one thread.
_ADDS_PER_STEP = 1.0e9
#: Radii that the kernels take whatever the picture, px: from there on it is measured against the stack, which
#: wins where a tile holds few levels. At 1024² and 64 px with one radius all over both take the same time, at
#: 160 px the stack half; a ramp from 0 to 160 px takes the stack five times as long.
_ALWAYS_PX = 64.0
#: Pixels of a row or column in which changes of the radius are counted.
_STRIP_PX = 128
#: Turning a picture pays when it saves a pixel so many (px of radius) × (px of change in a strip).
_TURN_FROM = 16.0


_compiled = functools.partial(compiled, "fine_defocus_blur_numba_scatter")


@_compiled(parallel=True, cache=True)
def _survey(image, radius, variance, reach, passes, lo, t, used, lit, work):
    """How the lit pixels of a picture mix their levels, which levels each block uses, and each row's work.

    image (C, H, W); radius, lo, t (H, W); used (H, blocks, K); lit (H, blocks); work (H,), adds.
    """
    channels, height, width = image.shape
    for y in prange(height):
        y = np.int64(y)
        k = 0
        for x in range(width):  # `disc.mix`; neighbours mostly share their levels
            dark = True
            for c in range(channels):
                dark &= image[c, y, x] == 0.0
            lo[y, x] = -2
            if dark:
                continue
            lit[y, x // _BLOCK] = True
            wanted = radius[y, x] * radius[y, x] * np.float32(0.25)
            while k > 0 and variance[k] > wanted:
                k -= 1
            while k < variance.shape[0] - 2 and variance[k + 1] <= wanted:
                k += 1
            share = (wanted - variance[k]) / (variance[k + 1] - variance[k])
            lo[y, x] = k
            t[y, x] = min(max(share, np.float32(0.0)), np.float32(1.0))
            used[y, x // _BLOCK, k] |= t[y, x] < 1.0
            used[y, x // _BLOCK, k + 1] |= t[y, x] > 0.0
        for k in range(passes.shape[0]):
            pixels = 0.0
            for block in range(used.shape[1]):
                if used[y, block, k]:
                    pixels += _BLOCK
                    if block == 0 or not used[y, block - 1, k]:
                        pixels += 1.5 * reach[k]
            work[y] += channels * passes[k] * pixels


@_compiled()
def _end_of_run(lit, begin, gap):
    """The first block after a run: before `gap` dark blocks, which cost more than two ends of discs."""
    end = seen = begin + 1
    while seen < min(lit.shape[0], begin + _LONGEST_RUN) and seen - end < gap:
        seen += 1
        if lit[seen - 1]:
            end = seen
    return end


@_compiled()
def _weighed(image, lo, t, k, scale, begin, end, light, sums, pad):
    """The light of one level in columns begin..end of a row, and its running sums, from place `pad` on.

    Returns the first column that has any, and how many columns from there to the last that has.
    """
    start, count = begin, 0
    for x in range(begin, end):
        share = np.float32(0.0)
        if lo[x] == k:
            share = np.float32(1.0) - t[x]
        elif lo[x] == k - 1:
            share = t[x]
        value = share * scale * image[x]
        if count == 0 and value == 0.0:
            start += 1
            continue
        light[pad + x - start] = value
        if value != 0.0:
            count = x + 1 - start
    light[pad + count : 2 * pad + count] = 0.0
    total = 0.0
    for i in range(count):
        total += light[pad + i]
        sums[pad + i + 1] = total
    sums[pad + count + 1 : 2 * pad + count + 1] = total
    return start, count


@_compiled()
def _add_row_of_level(line, begin, count, light, sums, at, within, once, taps, tap, end):
    """One row of a level's disc onto places begin.. of a line, out of the light around place `at` and on.

    within: half width of its plateau or -1; tap..end: its taps beyond. The plateau and the first taps go
    together: with few lookups per pixel, writing the line would be most of the work.
    """
    count, to = np.uint64(count), np.uint64(begin)  # signed places would be looked at for < 0, one by one
    if within >= 0:
        high, low = np.uint64(at + within + 1), np.uint64(at - within)
        left, right = np.uint64(at - within - 1), np.uint64(at + within + 1)
        if tap + 1 < end:
            weight, further = taps[tap], taps[tap + 1]
            left2, right2 = np.uint64(at - within - 2), np.uint64(at + within + 2)
            for i in range(count):
                line[to + i] += (
                    once * np.float32(sums[high + i] - sums[low + i])
                    + weight * (light[left + i] + light[right + i])
                    + further * (light[left2 + i] + light[right2 + i])
                )
            tap += 2
            within += 2
        elif tap < end:
            weight = taps[tap]
            for i in range(count):
                line[to + i] += once * np.float32(sums[high + i] - sums[low + i]) + weight * (
                    light[left + i] + light[right + i]
                )
            tap += 1
        else:
            for i in range(count):
                line[to + i] += once * np.float32(sums[high + i] - sums[low + i])
    target = line[begin:]
    while tap < end:
        weight = taps[tap]
        lefts, rights = light[at - within - 1 :], light[at + within + 1 :]
        if tap + 1 < end:
            further = taps[tap + 1]
            lefts2, rights2 = light[at - within - 2 :], light[at + within + 2 :]
            for i in range(count):
                target[i] += weight * (lefts[i] + rights[i]) + further * (lefts2[i] + rights2[i])
        else:
            for i in range(count):
                target[i] += weight * (lefts[i] + rights[i])
        tap += 2
        within += 2


@_compiled()
def _add_discs(out, y, light, sums, pad, levels, starts, counts, held, half, first, taps, line):
    """All rows of the discs of `held` levels in one row y of a plane `out` (H, W)."""
    height, width = out.shape
    for dy in range(half.shape[1]):
        left, right = width, 0
        for g in range(held):
            widest = half[levels[g], dy] + first[levels[g], dy + 1] - first[levels[g], dy]
            if widest >= 0:
                left = min(left, max(starts[g] - widest, 0))
                right = max(right, min(starts[g] + counts[g] + widest, width))
        if right <= left:
            return
        line[: right - left] = 0.0
        once = np.float32(0.5 if dy == 0 else 1.0)  # the row above is the row below
        for g in range(held):
            within, tap, end = half[levels[g], dy], first[levels[g], dy], first[levels[g], dy + 1]
            widest = within + end - tap
            if widest >= 0:
                x0 = max(starts[g] - widest, 0)
                count = min(starts[g] + counts[g] + widest, width) - x0
                at = pad + x0 - starts[g]
                _add_row_of_level(line, x0 - left, count, light[g], sums[g], at, within, once, taps, tap, end)
        count = np.uint64(right - left)
        if y >= dy:
            above = out[y - dy, left:]
            for i in range(count):
                above[i] += line[i]
        if y + dy < height:
            below = out[y + dy, left:]
            for i in range(count):
                below[i] += line[i]


@_compiled(parallel=True, cache=True)
def _spread(image, lo, t, used, lit, half, first, taps, scale, reach, band_rows, odd, begin, end, out):
    """Rows begin..end of every second band of one picture: the first, third, … or, if `odd`, the others."""
    channels, height, width = image.shape
    blocks = used.shape[1]
    bands = (-(-height // band_rows) + 1 - odd) // 2
    pad = 2 * reach + 2
    places = _LONGEST_RUN * _BLOCK + 2 * pad
    gap = 1 + 3 * reach // (2 * _BLOCK)
    for job in prange(bands * channels):
        job = np.int64(job)  # prange counts in unsigned, where -dy would wrap around
        c = job // bands
        top = (2 * (job % bands) + odd) * band_rows
        light = np.zeros((_TOGETHER, places), np.float32)
        sums = np.zeros((_TOGETHER, places + 1), np.float64)
        line = np.zeros(places, np.float32)
        levels, starts, counts = np.zeros((3, _TOGETHER), np.int64)
        for y in range(top + begin, min(top + end, top + band_rows, height)):
            begin_block = 0
            while begin_block < blocks:
                if not lit[y, begin_block]:
                    begin_block += 1
                    continue
                end_block = _end_of_run(lit[y], begin_block, gap)
                held = 0
                for k in range(scale.shape[0]):
                    x0, x1 = begin_block, end_block
                    while x0 < x1 and not used[y, x0, k]:
                        x0 += 1
                    while x0 < x1 and not used[y, x1 - 1, k]:
                        x1 -= 1
                    if x0 < x1:
                        start, count = _weighed(
                            image[c, y], lo[y], t[y], k, scale[k], x0 * _BLOCK, min(x1 * _BLOCK, width),
                            light[held], sums[held], pad,
                        )  # fmt: skip
                        if k == 0:  # level 1 is the identity
                            for i in range(count):
                                out[c, y, start + i] += light[held, pad + i]
                        elif count > 0:
                            levels[held], starts[held], counts[held] = k, start, count
                            held += 1
                    if held == _TOGETHER or (held > 0 and k == scale.shape[0] - 1):
                        _add_discs(
                            out[c], y, light, sums, pad, levels, starts, counts, held, half, first, taps, line
                        )
                        held = 0
                begin_block = end_block


@functools.lru_cache(maxsize=8)
def _passes_of_levels(count: int) -> np.ndarray:
    """How often each level adds a run of pixels to another, `(K,)`."""
    half, first, _, _ = _rows_of_levels(count)
    taps = np.diff(first, axis=1)
    touched = (half >= 0) | (taps > 0)
    return (2.0 * (half >= 0) + taps + 2.0 * touched).sum(1)


def _change(radius_px: Tensor, rows: int, columns: int) -> float:
    """By how much radii differ within patches of that size, px on average."""
    side = (min(rows, radius_px.shape[-2]), min(columns, radius_px.shape[-1]))
    highest, lowest = (F.max_pool2d(sign * radius_px, side, side, ceil_mode=True) for sign in (1, -1))
    return (highest + lowest).mean().item()


def _changes(radius_px: Tensor) -> tuple[float, float]:
    """The same within strips of rows and within strips of columns."""
    return _change(radius_px, 1, _STRIP_PX), _change(radius_px, _STRIP_PX, 1)


def pays(radius_px: Tensor) -> bool:
    """Whether this scatter is likely faster than the stack's, which does a tile's levels at any radius."""
    radius_px = radius_px.detach().float()
    largest = float(radius_px.max())
    if largest <= _ALWAYS_PX:
        return True
    tile = _change(radius_px, _STRIP_PX, _STRIP_PX)
    return largest * (min(_changes(radius_px)) + 2.0) < _ALWAYS_PX * (tile + 2.0)


def _steps(work: np.ndarray, band_rows: int) -> list[tuple[int, int, int, float]]:
    """(odd, begin, end, share of the work) of the calls of `_spread`, each short enough to interrupt."""
    by_row = np.zeros(-(-len(work) // band_rows) * band_rows)
    by_row[: len(work)] = work
    by_row = by_row.reshape(-1, band_rows)
    steps = []
    for odd in range(min(2, len(by_row))):
        adds, begin = by_row[odd::2].sum(0), 0
        while begin < band_rows:
            below = np.searchsorted(np.cumsum(adds[begin:]), _ADDS_PER_STEP, side="right")
            end = begin + max(1, int(below))
            steps.append((odd, begin, end, adds[begin:end].sum() / max(work.sum(), 1.0)))
            begin = end
    return steps


def scatter(image: Tensor, radius_px: Tensor, on_progress: Progress | None = None) -> Tensor:
    """`blur.scatter` with discs, float32 on the CPU; a picture for each of the radii.

    on_progress: called with thousandths, at least twice per picture, every third of a second of work.
    Holds beside its result 6 bytes per pixel and one per block and level, and per thread less than a
    megabyte at any height; of a picture whose radii change along its rows also a turned copy of all.
    Raises ValueError for another device or type, and when gradients are wanted.
    """
    check_taken(image, radius_px)
    image, radius_px = image.detach(), radius_px.detach().float()
    largest = float(radius_px.max())
    if largest * largest > _TURN_FROM:  # else it could not pay
        along, down = _changes(radius_px)
        if radius_px.mean().item() * (along - down) > _TURN_FROM:  # long runs of few levels are fast
            return _upright(image.mT, radius_px.mT, on_progress).mT.contiguous()
    return _upright(image, radius_px, on_progress)


def _upright(image: Tensor, radius_px: Tensor, on_progress: Progress | None) -> Tensor:
    """`scatter`, row by row."""
    batch, _, height, width = image.shape
    levels = disc.levels_for(float(radius_px.max()))
    rows_of_levels, passes = _rows_of_levels(len(levels)), _passes_of_levels(len(levels))
    variance, reaches = levels.variance.astype(np.float32), np.ceil(levels.size) - 1.0
    band_rows = max(_LEAST_BAND_ROWS, 2 * levels.reach_px)
    out = np.zeros(image.shape, np.float32)
    lo, t = np.empty((height, width), np.int16), np.empty((height, width), np.float32)
    for b in range(batch):
        source, radius = image[b].contiguous().numpy(), radius_px[b].contiguous().numpy()
        used = np.zeros((height, -(-width // _BLOCK), len(levels)), np.bool_)
        lit, work, share_done = np.zeros(used.shape[:2], np.bool_), np.zeros(height), 0.0
        with _one_at_a_time, _as_many_threads_as_torch():
            _survey(source, radius, variance, reaches, passes, lo, t, used, lit, work)
        if on_progress is not None:
            on_progress(1000 * b, 1000 * batch)
        steps = _steps(work, band_rows)
        for number, (odd, begin, end, share) in enumerate(steps):
            with _one_at_a_time, _as_many_threads_as_torch():
                _spread(
                    source, lo, t, used, lit, *rows_of_levels, levels.reach_px, band_rows, odd, begin, end,
                    out[b],
                )  # fmt: skip
            share_done += share
            if on_progress is not None:
                last = number == len(steps) - 1
                on_progress(1000 * b + (1000 if last else int(999 * share_done)), 1000 * batch)
    return torch.from_numpy(out)
