"""The two sums of a blur as Triton kernels: light collected at its target, and spread from its source.

Every pixel has a disc of its own as four numbers (lo, hi, a, b); its kernel at distance δ is

    w(δ) = a clamp(lo - δ, 0, 1) + b clamp(hi - δ, 0, 1)

which is the mixture of two levels (`disc.py`), and with other a and b its derivative. A program makes one
tile and goes over the offsets that any disc in it, or reaching it, touches. Where all of these discs are
whole, at δ <= lo - 1, a run of a row is one difference of running sums, so that a large disc costs its ring
and not its area. Sums are in float32, in one order, without atomics: two runs are the same to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Tile of a program, px, and warps that share it.
TILE_Y, TILE_X, WARPS = 8, 32, 4


@triton.jit
def _weight(lo, hi, a, b, distance):
    near = tl.minimum(tl.maximum(lo - distance, 0.0), 1.0)
    far = tl.minimum(tl.maximum(hi - distance, 0.0), 1.0)
    return a * near + b * far


@triton.jit
def _span(largest, dy):
    """Largest whole offset across that a disc of this level touches at the offset dy down."""
    left = largest * largest - dy * dy
    return tl.sqrt(tl.maximum(left, 0.0)).to(tl.int32)


@triton.jit
def _inner(least, largest, dy, columns):
    """Largest whole offset across where discs from this level on are whole; -1 where that saves nothing."""
    whole = tl.minimum(least, largest) - 1.0
    left = whole * whole - dy * dy
    across = tl.minimum(tl.sqrt(tl.maximum(left, 0.0)).to(tl.int32), columns)
    return tl.where((whole > 0.0) & (left >= 9.0), across, -1)


@triton.jit
def _run(sums, rests, left, right, there):
    """Sum of a row from one place to before another, by running sums that are held in two float32 each."""
    high = tl.load(sums + right, mask=there, other=0.0) - tl.load(sums + left, mask=there, other=0.0)
    low = tl.load(rests + right, mask=there, other=0.0) - tl.load(rests + left, mask=there, other=0.0)
    return high + low


@triton.jit
def collect(
    padded, sums, rests, lo, hi, a, b, reach, other, out,
    height, width, pad, pictures_apart,
    CHANNELS: tl.constexpr, PLANES: tl.constexpr, DOT: tl.constexpr, RUNS: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """out[p] = Σ_d w_p(|d|) padded[p - d], or with DOT Σ_c other[c, p] times that.

    padded `(B or 1, C, H + 2 pad, W + 2 pad)`; pictures_apart: 1, or 0 where one picture serves all; sums,
    rests: its running sums along the rows, `(B or 1, C, H + 2 pad, W + 2 pad + 1)`, read with RUNS alone;
    lo ... b `(B, H, W)`; reach: largest level of each tile `(B, tiles down, tiles across)`; other and out
    `(B, C, H, W)`, with DOT out is `(B, H, W)`. PLANES: CHANNELS rounded up to a power of two.
    """
    across, down, item = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    y = down * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = across * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    at = (item * height + y) * width + x
    lo_at = tl.load(lo + at, mask=inside, other=0.0)
    hi_at = tl.load(hi + at, mask=inside, other=0.0)
    a_at = tl.load(a + at, mask=inside, other=0.0)
    b_at = tl.load(b + at, mask=inside, other=0.0)
    largest = tl.load(reach + (item * tl.num_programs(1) + down) * tl.num_programs(0) + across)
    rows, zero = tl.minimum(_span(largest, 0), pad), largest * 0.0
    channel = tl.arange(0, PLANES)[:, None, None]
    wide = width + 2 * pad
    high = height + 2 * pad
    row = (item * pictures_apart * CHANNELS + channel) * high + y[None] + pad
    column = x[None] + pad
    there = (channel < CHANNELS) & inside[None]
    least = tl.min(tl.where(inside, lo_at, float("inf")))
    whole_at = (a_at + b_at)[None]
    total = tl.zeros((PLANES, TILE_Y, TILE_X), tl.float32)
    for dy in range(-rows, rows + 1):
        columns = tl.minimum(_span(largest, dy), pad)
        begin = padded + ((row - dy) * wide + column)
        inner = _inner(least, largest, dy, columns) if RUNS else -1
        if inner >= 0:
            left = (row - dy) * (wide + 1) + column - inner
            total += whole_at * _run(sums, rests, left, left + 2 * inner + 1, there)
        else:
            weight = _weight(lo_at, hi_at, a_at, b_at, tl.sqrt(zero + dy * dy))
            total += weight[None] * tl.load(begin, mask=there, other=0.0)
        for dx in range(tl.maximum(inner, 0) + 1, columns + 1):
            weight = _weight(lo_at, hi_at, a_at, b_at, tl.sqrt(zero + (dy * dy + dx * dx)))
            light = tl.load(begin - dx, mask=there, other=0.0) + tl.load(begin + dx, mask=there, other=0.0)
            total += weight[None] * light
    place = ((item * CHANNELS + channel) * height + y[None]) * width + x[None]
    if DOT:
        total *= tl.load(other + place, mask=there, other=0.0)
        tl.store(out + at, tl.sum(total, axis=0), mask=inside)
    else:
        tl.store(out + place, total, mask=there)


@triton.jit
def _spread_tap(image, lo, hi, a, b, item, y, x, distance, height, width, channel, CHANNELS: tl.constexpr):
    """What the sources at (y, x) send so far, `(PLANES, TILE_Y, TILE_X)`; outside of the frame are none."""
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = (item * height + y) * width + x
    weight = _weight(
        tl.load(lo + at, mask=inside, other=0.0),
        tl.load(hi + at, mask=inside, other=0.0),
        tl.load(a + at, mask=inside, other=0.0),
        tl.load(b + at, mask=inside, other=0.0),
        distance,
    )
    place = ((item * CHANNELS + channel) * height + y[None]) * width + x[None]
    return weight[None] * tl.load(image + place, mask=(channel < CHANNELS) & inside[None], other=0.0)


@triton.jit
def spread(
    image, sums, rests, lo, hi, a, b, reach, least, out,
    height, width, pad,
    CHANNELS: tl.constexpr, PLANES: tl.constexpr, RUNS: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """out[q] = Σ_p w_p(|q - p|) image[p], over the frame and `pad` pixels more: the transpose of `collect`.

    image `(B, C, H, W)`; sums, rests: running sums along the rows of (a + b) image, `(B, C, H, W + 1)`, read
    with RUNS alone; lo ... b `(B, H, W)`; out `(B, C, H + 2 pad, W + 2 pad)`; reach, least: largest and
    smallest level that may reach a tile of out, `(B, tiles down, tiles across)`.
    """
    across, down, item = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    y = down * TILE_Y + tl.arange(0, TILE_Y)[:, None] - pad
    x = across * TILE_X + tl.arange(0, TILE_X)[None, :] - pad
    tile = (item * tl.num_programs(1) + down) * tl.num_programs(0) + across
    largest, smallest = tl.load(reach + tile), tl.load(least + tile)
    rows, zero = tl.minimum(_span(largest, 0), pad), largest * 0.0
    channel = tl.arange(0, PLANES)[:, None, None]
    total = tl.zeros((PLANES, TILE_Y, TILE_X), tl.float32)
    for dy in range(-rows, rows + 1):
        columns = tl.minimum(_span(largest, dy), pad)
        from_y = y - dy
        inner = _inner(smallest, largest, dy, columns) if RUNS else -1
        if inner >= 0:
            there = (channel < CHANNELS) & ((from_y >= 0) & (from_y < height))[None]
            row = ((item * CHANNELS + channel) * height + from_y[None]) * (width + 1)
            left = row + tl.minimum(tl.maximum(x - inner, 0), width)[None]
            right = row + tl.minimum(tl.maximum(x + inner + 1, 0), width)[None]
            total += _run(sums, rests, left, right, there)
        else:
            distance = tl.sqrt(zero + dy * dy)
            total += _spread_tap(
                image, lo, hi, a, b, item, from_y, x, distance, height, width, channel, CHANNELS
            )
        for dx in range(tl.maximum(inner, 0) + 1, columns + 1):
            distance = tl.sqrt(zero + (dy * dy + dx * dx))
            total += _spread_tap(
                image, lo, hi, a, b, item, from_y, x - dx, distance, height, width, channel, CHANNELS
            )
            total += _spread_tap(
                image, lo, hi, a, b, item, from_y, x + dx, distance, height, width, channel, CHANNELS
            )
    wide, high = width + 2 * pad, height + 2 * pad
    out_y, out_x = y + pad, x + pad
    place = ((item * CHANNELS + channel) * high + out_y[None]) * wide + out_x[None]
    tl.store(out + place, total, mask=(channel < CHANNELS) & ((out_y < high) & (out_x < wide))[None])
