"""One blur, several engines that compute the same function.

`reference` is the definition, `stack` runs on any device and differentiates, `cpu` is the fast forward
pass on a CPU with numba. `choose` picks.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ..shape import ApertureShape
from . import reference, stack

logger = logging.getLogger(__name__)

ENGINES = ("auto", "reference", "stack", "cpu")


@functools.cache
def _numba_engine() -> ModuleType | None:
    """The cpu engine, imported on first use (numba takes a second); None where numba is missing or broken."""
    try:
        from . import cpu
    except ImportError as error:
        logger.info("blur runs without numba (%s): pip install numba makes it faster on a CPU", error)
    except RuntimeError as error:  # numba finds no folder that it may write its cache to
        logger.warning("numba cannot be used for blur: %s", error)
    else:
        return cpu
    return None


@functools.cache
def _log_choice(engine: str, why: str) -> None:
    logger.debug("blur engine: %s (%s)", engine, why)


def choose(image: Tensor, radius_px: Tensor, shape: ApertureShape | None = None) -> str:
    """The engine for this picture: `cpu` where numba can run it, `stack` where not."""
    wants_grad = torch.is_grad_enabled() and (image.requires_grad or radius_px.requires_grad)
    if shape is not None and not shape.is_disc:
        engine, why = "stack", f"aperture shape {shape.kind}"
    elif wants_grad:
        engine, why = "stack", "gradients wanted"
    elif image.device.type != "cpu":
        engine, why = "stack", f"device {image.device.type}"
    elif image.dtype != torch.float32:
        engine, why = "stack", f"{image.dtype}"
    elif _numba_engine() is None:
        engine, why = "stack", "no numba"
    else:
        engine, why = "cpu", "numba"
    _log_choice(engine, why)
    return engine


def gather(
    image: Tensor,
    radius_px: Tensor,
    *,
    shape: ApertureShape | None = None,
    engine: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Blur where each output pixel averages its neighbourhood with the disc of its own radius.

    image: `(B, C, H, W)` float32 or float64; radius_px: `(B, H, W)` >= 0. Borders replicate.
    shape: another aperture shape; radii are then signed, < 0 in front of the focal plane, where the shape
    is point-inverted.
    engine: "auto", "reference", "stack" or "cpu".
    on_progress: called with (done, total) between pieces of work; may raise to interrupt.
    Returns `(B, C, H, W)`. Raises ValueError for an unknown engine or one that cannot do what is asked.
    """
    if engine not in ENGINES:
        raise ValueError(f'Unknown blur engine "{engine}": use one of {", ".join(ENGINES)}.')
    if engine == "auto":
        engine = choose(image, radius_px, shape)
    if engine == "reference":
        return reference.gather(image, radius_px, shape=shape)
    if engine == "stack":
        return stack.gather(image, radius_px, on_progress, shape=shape)
    if shape is not None:
        if not shape.is_disc:
            raise ValueError('The blur engine "cpu" knows only the disc: use "stack" or "auto" for shapes.')
        radius_px = radius_px.abs()
    cpu = _numba_engine()
    if cpu is None:
        raise ValueError('The blur engine "cpu" needs numba: pip install numba, or use "auto".')
    return cpu.gather(image, radius_px, on_progress)
