"""Pictures in bands of rows that fit a stated amount of memory, and in smaller ones where they did not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .shape import ApertureShape

logger = logging.getLogger(__name__)

#: Bands and their halos are whole multiples of the level stack's tiles: its tiles then fall as without bands.
BAND_ROWS = 128
BAND_PIXELS = 1 << 22
#: What torch says on a CPU, in words: it has no exception of its own for that.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUFFT_ALLOC_FAILED")


class OutOfMemory(MemoryError):
    """Not even the narrowest band fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def rows_that_fit(
    height: int, halo: int, bytes_per_row: int, memory_bytes: int | None, at_most: int | None = None
) -> int:
    """Rows of a band that holds `memory_bytes` with a halo on both sides, at least `BAND_ROWS`.

    at_most: no more rows than that, rounded down as all are, whatever the memory.
    """
    rows = height if at_most is None else min(height, at_most)
    if memory_bytes is not None and height * bytes_per_row > memory_bytes:
        rows = min(rows, memory_bytes // bytes_per_row - 2 * halo)
    if rows >= height:
        return height
    return min(height, max(BAND_ROWS, rows // BAND_ROWS * BAND_ROWS))


def bands_of(height: int, rows: int = BAND_ROWS, halo: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Bands of so many rows: (the band, the rows it depends on, where the band lies in those)."""
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        source = slice(max(0, band.start - halo), min(height, band.stop + halo))
        yield band, source, slice(band.start - source.start, band.stop - source.start)


def in_bands(
    work: Callable[[slice, slice], Tensor],
    height: int,
    reach: int,
    bytes_per_row: int,
    memory_bytes: int | None,
    width: int,
) -> Tensor:
    """A picture computed band by band.

    work: gets the rows to compute and the rows they depend on, and returns `(B, C, rows, W)`.
    reach: how many rows beyond a band it depends on. bytes_per_row: what a row of those takes while it works.
    memory_bytes: what the work may take; None is no limit. When memory runs out all the same the limit is
    halved with a line in the log, and the band is computed again.
    width: of the picture. However much memory there is, a band has no more than `BAND_PIXELS`: what is under
    way cannot be interrupted.

    Returns `(B, C, height, W)`. Raises OutOfMemory when the narrowest band runs out; anything else that
    `work` raises passes through.
    """
    halo = -(-reach // BAND_ROWS) * BAND_ROWS
    result: Tensor | None = None
    start = 0
    while start < height:
        rows = rows_that_fit(height, halo, bytes_per_row, memory_bytes, BAND_PIXELS // width)
        band = slice(start, min(start + rows, height))
        source = slice(max(0, band.start - halo), min(height, band.stop + halo))
        try:
            part = work(band, source)
            if part.shape[-2] == height:
                return part
            if result is None:
                result = part.new_empty(*part.shape[:-2], height, part.shape[-1])
            result[..., band, :] = part
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if rows <= BAND_ROWS:
                raise OutOfMemory(
                    f"The blur ran out of memory in bands of {rows} rows, the narrowest there are, with "
                    f"radii of up to {reach} px: use a smaller picture, a lower max_radius_px, or free "
                    "memory."
                ) from error
            # only here, so that the traceback does not keep alive what did not fit
            memory_bytes = (source.stop - source.start) * bytes_per_row // 2
            logger.warning(
                "blur ran out of memory in bands of %d rows; it goes on with %d",
                rows,
                rows_that_fit(height, halo, bytes_per_row, memory_bytes, BAND_PIXELS // width),
            )
            continue
        start = band.stop
    if result is None:
        raise ValueError(f"A picture of {height} rows cannot be blurred.")
    return result


def blur_in_bands(
    work: Callable[[slice, slice], Tensor],
    radius_px: Tensor,
    reach: int,
    shape: ApertureShape | None,
    bytes_per_px: int,
    memory_bytes: int | None,
    inputs: Iterable[object],
) -> Tensor:
    """What `work` makes of a picture, whole or band by band as `in_bands` does it.

    radius_px: `(B, H, W)`; reach: how far its discs go, px. bytes_per_px: what a pixel takes while it works.
    inputs: all that a gradient could be wanted for. Gradients, and a shape with a cat's eye, which depends on
    the place in the picture, need the whole at once.
    """
    height, width = radius_px.shape[-2:]
    wants_grad = torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in inputs)
    if wants_grad or (shape is not None and shape.cats_eye):
        return work(slice(0, height), slice(0, height))
    return in_bands(work, height, reach, bytes_per_px * (width + 2 * reach), memory_bytes, width)
