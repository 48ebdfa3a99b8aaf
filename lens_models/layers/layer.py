"""One layer of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a scene.

    radiance: `(B, C, H, W)` linear light, not premultiplied by `alpha`. alpha: `(B, 1, H, W)` coverage.
    depth_m: `(B, H, W)` metres, everywhere, also where alpha is 0.
    """

    radiance: Tensor
    alpha: Tensor
    depth_m: Tensor

    def premultiplied(self) -> Tensor:
        """Light times coverage, and coverage: `(B, C + 1, H, W)`; the first four are premultiplied RGBA."""
        return torch.cat([self.radiance * self.alpha, self.alpha], dim=1)
