"""The two sums of a blur as Triton kernels: light collected at its target, and spread from its source.

Every pixel has a disc of its own as four numbers (lo, hi, a, b); its kernel at distance δ is

    w(δ) = a clamp(lo - δ, 0, 1) + b clamp(hi - δ, 0, 1)

which is the mixture of two levels (`disc.py`), and with other a and b its derivative. A program makes one
tile and goes over the offsets that any disc in it, or reaching it, touches. Sums are in float32, in one
order, without atomics: two runs are the same to the bit.
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
def collect(
    padded, lo, hi, a, b, reach, other, out,
    height, width, pad, padded_stride,
    CHANNELS: tl.constexpr, PLANES: tl.constexpr, DOT: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """out[p] = Σ_d w_p(|d|) padded[p - d], or with DOT Σ_c other[c, p] times that.

    padded `(B or 1, C, H + 2 pad, W + 2 pad)`, padded_stride: numbers from one picture to the next, 0 for one
    that serves all; lo ... b `(B, H, W)`; reach: largest level of each tile `(B, tiles down, tiles across)`;
    other and out `(B, C, H, W)`, with DOT out is `(B, H, W)`. PLANES: CHANNELS rounded up to a power of two.
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
    plane = (height + 2 * pad) * wide
    first = padded + item * padded_stride + channel * plane + ((y + pad) * wide + x + pad)[None]
    there = (channel < CHANNELS) & inside[None]
    total = tl.zeros((PLANES, TILE_Y, TILE_X), tl.float32)
    for dy in range(-rows, rows + 1):
        columns = tl.minimum(_span(largest, dy), pad)
        for dx in range(-columns, columns + 1):
            distance = tl.sqrt(zero + (dy * dy + dx * dx))
            weight = _weight(lo_at, hi_at, a_at, b_at, distance)
            light = tl.load(first - (dy * wide + dx), mask=there, other=0.0)
            total += weight[None] * light
    place = ((item * CHANNELS + channel) * height + y[None]) * width + x[None]
    if DOT:
        total *= tl.load(other + place, mask=there, other=0.0)
        tl.store(out + at, tl.sum(total, axis=0), mask=inside)
    else:
        tl.store(out + place, total, mask=there)


@triton.jit
def spread(
    image, lo, hi, a, b, reach, out,
    height, width, pad,
    CHANNELS: tl.constexpr, PLANES: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """out[q] = Σ_p w_p(|q - p|) image[p], over the frame and `pad` pixels more: the transpose of `collect`.

    image `(B, C, H, W)`; lo ... b `(B, H, W)`; out `(B, C, H + 2 pad, W + 2 pad)`; reach: largest level that
    may reach a tile of out, `(B, tiles down, tiles across)`.
    """
    across, down, item = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    y = down * TILE_Y + tl.arange(0, TILE_Y)[:, None] - pad
    x = across * TILE_X + tl.arange(0, TILE_X)[None, :] - pad
    largest = tl.load(reach + (item * tl.num_programs(1) + down) * tl.num_programs(0) + across)
    rows, zero = tl.minimum(_span(largest, 0), pad), largest * 0.0
    channel = tl.arange(0, PLANES)[:, None, None]
    total = tl.zeros((PLANES, TILE_Y, TILE_X), tl.float32)
    for dy in range(-rows, rows + 1):
        columns = tl.minimum(_span(largest, dy), pad)
        for dx in range(-columns, columns + 1):
            distance = tl.sqrt(zero + (dy * dy + dx * dx))
            from_y, from_x = y - dy, x - dx
            inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
            at = (item * height + from_y) * width + from_x
            weight = _weight(
                tl.load(lo + at, mask=inside, other=0.0),
                tl.load(hi + at, mask=inside, other=0.0),
                tl.load(a + at, mask=inside, other=0.0),
                tl.load(b + at, mask=inside, other=0.0),
                distance,
            )
            place = ((item * CHANNELS + channel) * height + from_y[None]) * width + from_x[None]
            light = tl.load(image + place, mask=(channel < CHANNELS) & inside[None], other=0.0)
            total += weight[None] * light
    wide, high = width + 2 * pad, height + 2 * pad
    out_y, out_x = y + pad, x + pad
    place = ((item * CHANNELS + channel) * high + out_y[None]) * wide + out_x[None]
    tl.store(out + place, total, mask=(channel < CHANNELS) & ((out_y < high) & (out_x < wide))[None])
