"""Where the eye goes: sources of saliency behind one protocol, and what turns it into a focus distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..camera import broadcast_batch
from .distance import (
    MASK_WAYS,
    STRATEGIES,
    FoundDistance,
    fitted_mask,
    focus_distance_m,
    focus_from_mask,
    most_salient_region,
)
from .guess import contrast_guess
from .predictor import FocusPredictor

__all__ = [
    "MASK_WAYS",
    "STRATEGIES",
    "FoundDistance",
    "MaskSaliency",
    "PredictorSaliency",
    "SaliencySource",
    "contrast_guess",
    "focus_distance_m",
    "focus_from_mask",
    "most_salient_region",
]


class SaliencySource(Protocol):
    """Anything that knows where people look: a trained predictor, a mask, `contrast_guess`."""

    def __call__(self, srgb: Tensor, depth_m: Tensor) -> Tensor:
        """srgb `(B, 3, H, W)` 0..1, depth `(B, H, W)` metres, +inf = sky; saliency `(B, H, W)` 0..1."""


@dataclass(frozen=True, eq=False)
class PredictorSaliency:
    """Saliency of a focus predictor."""

    predictor: FocusPredictor

    def __call__(self, srgb: Tensor, depth_m: Tensor) -> Tensor:
        return self.predictor(srgb, depth_m)[1]


@dataclass(frozen=True, eq=False)
class MaskSaliency:
    """A mask of anything (BiRefNet, SAM, painted by hand), `(B, h, w)` 0..1, resized to the picture.

    One mask goes with N pictures and N masks with one picture. Raises ValueError, when called, for batches
    that do not go together; the sentence names both numbers.
    """

    mask: Tensor

    def __call__(self, srgb: Tensor, depth_m: Tensor | None = None) -> Tensor:
        mask = fitted_mask(self.mask.to(srgb.device), *srgb.shape[-2:])
        depths = 1 if depth_m is None else depth_m.shape[0]
        count = broadcast_batch(pictures=srgb.shape[0], depths=depths, masks=mask.shape[0])
        return mask.nan_to_num().clamp(0.0, 1.0).expand(count, -1, -1)
