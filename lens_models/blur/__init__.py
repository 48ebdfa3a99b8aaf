"""One blur, several engines that compute the same function.

Engine "reference" is the definition; "stack" (`torch_stack`) runs on any device and differentiates; "cpu"
(`numba_gather`, `numba_scatter`) is the fast forward pass on a CPU; "gpu" (`triton_engine`) runs Triton's
kernels, forward and backward. `choose` picks.
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from ..progress import Progress
from ..shape import ApertureShape
from . import reference, torch_stack

logger = logging.getLogger(__name__)

ENGINES = ("auto", "reference", "stack", "cpu", "gpu")
#: The kernels' work grows with the radius, where radii vary quickly with its square, the stack's hardly:
#: beyond it the stack takes over, px. From a model of an H100: at 1024² and 100 px 1.6 to 9.4 ms beside the
#: stack's 4.6; `benchmarks/gpu.py` tells it of a card.
MOST_TAPS_RADIUS_PX = 128.0


@functools.cache
def _numba_engine() -> SimpleNamespace | None:
    """Engine "cpu", imported on first use; None without a working numba."""
    try:
        from .numba_gather import gather
        from .numba_scatter import pays, scatter
    except ImportError as error:
        logger.info("blur runs without numba (%s): pip install numba makes it faster on a CPU", error)
    except RuntimeError as error:  # numba finds no folder that it may write its cache to
        logger.warning("numba cannot be used for blur: %s", error)
    else:
        return SimpleNamespace(gather=gather, scatter=scatter, pays=pays)
    return None


@functools.cache
def _triton_engine() -> ModuleType | None:
    """Engine "gpu", imported on first use; None where triton is missing or broken."""
    if _given_up:
        return None
    try:
        from . import triton_engine
    except Exception as error:  # a broken build of triton fails in any way
        logger.info("blur runs without triton (%s): the level stack does its work", error)
        return None
    return triton_engine


@functools.cache
def _log_choice(engine: str, why: str) -> None:
    logger.debug("blur engine: %s (%s)", engine, why)


def choose(
    image: Tensor, radius_px: Tensor, shape: ApertureShape | None = None, operator: str = "gather"
) -> str:
    """The engine for this picture: `gpu` or `cpu` where triton or numba can run it, `stack` where not.

    operator: "gather" or "scatter", which wide discs of like radius leave to the stack.
    """
    wants_grad = torch.is_grad_enabled() and (image.requires_grad or radius_px.requires_grad)
    on_gpu = image.device.type == "cuda"  # ROCm calls itself so, too
    if shape is not None and not shape.is_disc:
        engine, why = "stack", f"aperture shape {shape.kind}"
    elif on_gpu and image.dtype != torch.float32:
        engine, why = "stack", f"{image.dtype}"
    elif on_gpu and _triton_engine() is None:
        engine, why = "stack", "no triton"
    elif on_gpu and radius_px.detach().abs().max() > MOST_TAPS_RADIUS_PX:
        engine, why = "stack", f"radii above {MOST_TAPS_RADIUS_PX:g} px"
    elif on_gpu:
        engine, why = "gpu", "triton"
    elif wants_grad:
        engine, why = "stack", "gradients wanted"
    elif image.device.type != "cpu":
        engine, why = "stack", f"device {image.device.type}"
    elif image.dtype != torch.float32:
        engine, why = "stack", f"{image.dtype}"
    elif (numba_engine := _numba_engine()) is None:
        engine, why = "stack", "no numba"
    elif operator == "scatter" and not numba_engine.pays(radius_px if shape is None else radius_px.abs()):
        engine, why = "stack", "wide discs of like radius"
    else:
        engine, why = "cpu", "numba"
    _log_choice(engine, why)
    return engine


def _tried(kind: str, image: Tensor, radius_px: Tensor, on_progress: Progress | None) -> Tensor | None:
    """Blur by engine "gpu"; None, and never again, where triton cannot compile or start it on this card."""
    try:
        return getattr(_triton_engine(), kind)(image, radius_px, on_progress)
    except _broken_triton() as error:
        logger.warning("triton does not work on this GPU, so blur runs in pure torch: %s", error)
        _triton_engine.cache_clear()
        _given_up.append(True)
        return None


_given_up: list[bool] = []


def _broken_triton() -> tuple[type[Exception], ...]:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import TritonError

    # triton starts compilers, which may be missing
    return CompilationError, TritonError, FileNotFoundError


def gather(
    image: Tensor,
    radius_px: Tensor,
    *,
    shape: ApertureShape | None = None,
    engine: str = "auto",
    on_progress: Progress | None = None,
) -> Tensor:
    """Blur where each output pixel averages its neighbourhood with the disc of its own radius.

    image: `(B, C, H, W)` float32 or float64, or one picture `(1, C, H, W)` for all; radius_px: `(B, H, W)`
    >= 0. Borders replicate.
    shape: another aperture shape; radii are then signed, < 0 in front of the focal plane, where the shape
    is point-inverted.
    engine: "auto", "reference", "stack", "cpu" or "gpu".
    on_progress: called with (done, total) between pieces of work; may raise to interrupt.
    Returns `(B, C, H, W)`. Raises ValueError for an unknown engine or one that cannot do what is asked.
    """
    return _blurred("gather", image, radius_px, shape, engine, on_progress)


def scatter(
    image: Tensor,
    radius_px: Tensor,
    *,
    shape: ApertureShape | None = None,
    margin_px: int = 0,
    engine: str = "auto",
    on_progress: Progress | None = None,
) -> Tensor:
    """Blur where each source pixel spreads its light over the disc, or the shape, of its own radius.

    image: `(B, C, H, W)`, or one picture for all; radius_px: `(B, H, W)`; both as in `gather`. What leaves
    the frame is lost. margin_px: as in `torch_stack.scatter`. engine, on_progress, result and
    errors: as in `gather`.
    """
    return _blurred("scatter", image, radius_px, shape, engine, on_progress, margin_px=margin_px)


def check_engine(engine: str) -> None:
    """Raises ValueError for an unknown engine."""
    if engine not in ENGINES:
        raise ValueError(f'Unknown blur engine "{engine}": use one of {", ".join(ENGINES)}.')


def _blurred(
    operator: str,
    image: Tensor,
    radius_px: Tensor,
    shape: ApertureShape | None,
    engine: str,
    on_progress: Progress | None,
    **margin: int,
) -> Tensor:
    """`gather` or `scatter`, whichever `operator` names. margin: what only a scatter with shapes asks for."""
    check_engine(engine)
    sizes = radius_px if shape is None else radius_px.abs()
    if engine == "auto":
        engine = choose(image, radius_px, shape, operator)
        if engine == "gpu":
            blurred = _tried(operator, _for_each(image, radius_px, operator), sizes, on_progress)
            if blurred is not None:
                return blurred
            engine = "stack"
    if engine == "reference":
        pictures = []
        for i in range(len(radius_px)):
            one = image if len(image) == 1 else image[i : i + 1]
            pictures.append(getattr(reference, operator)(one, radius_px[i : i + 1], shape=shape, **margin))
            if on_progress is not None:
                on_progress(i + 1, len(radius_px))
        return torch.cat(pictures)
    image = _for_each(image, radius_px, operator)
    if engine == "stack":
        return getattr(torch_stack, operator)(image, radius_px, on_progress, shape=shape, **margin)
    if shape is not None and not shape.is_disc:
        raise ValueError(f'The blur engine "{engine}" knows only the disc: use "stack" or "auto" for shapes.')
    if engine == "gpu":
        triton_engine = _triton_engine()
        if triton_engine is None:
            raise ValueError('The blur engine "gpu" needs triton: pip install triton, or use "auto".')
        return getattr(triton_engine, operator)(image, sizes, on_progress)
    numba_engine = _numba_engine()
    if numba_engine is None:
        raise ValueError('The blur engine "cpu" needs numba: pip install numba, or use "auto".')
    return getattr(numba_engine, operator)(image, sizes, on_progress)


def _for_each(image: Tensor, radius_px: Tensor, operator: str) -> Tensor:
    """One picture for all as one for each, where it is scattered: a gather shares what it does once."""
    if operator == "scatter" and len(image) < len(radius_px):
        return image.expand(len(radius_px), -1, -1, -1)
    return image
