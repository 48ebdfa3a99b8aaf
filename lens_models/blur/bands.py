"""The choice between a picture blurred whole and one blurred in bands of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..memory import in_bands
from ..shape import ApertureShape


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
