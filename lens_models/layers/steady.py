"""Layers of a clip that stay: cuts are moved from one frame to the next, not chosen anew."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera, Focus, radius_line
from ..progress import Progress
from .cuts import find_cuts

#: Side of the small pictures by which a new scene is recognised, px,
_SMALL = 24
#: and how much of their light, and of their inverse depth, may differ.
_SAME = 0.2


class SteadyCuts:
    """The cuts of frame after frame of a clip, or of a rack of one picture.

    Which cuts are best changes with small changes of focus and depth, and layers that come and go, or a seam
    that jumps, pop. So the cuts of the frame before are used, at the same distances, as long as they part
    nearly as much as new ones would. A picture of something else begins anew.
    """

    def __init__(self) -> None:
        self._inverse_m: list[float] = []
        self._last: list[Tensor] = []

    @torch.no_grad()
    def find(
        self,
        radiance: Tensor,
        nearness: Tensor,
        focus: Focus,
        camera: Camera,
        max_layers: int,
        on_progress: Progress | None = None,
    ) -> list[float]:
        """`find_cuts` of the next frame. radiance: `(1, C, H, W)`; focus, camera: single settings."""
        inverse_focus, px_per_inverse_m = (v.item() for v in radius_line(focus, camera, radiance.shape[-1]))
        light = F.adaptive_avg_pool2d(radiance[:, :3], _SMALL)[0]
        depth = F.adaptive_avg_pool2d(nearness[None], _SMALL) / px_per_inverse_m + inverse_focus
        small = [light, depth]
        before = [px_per_inverse_m * (q - inverse_focus) for q in self._inverse_m if self._goes_on(small)]
        cuts = find_cuts(nearness, max_layers, on_progress, before)
        self._inverse_m = [inverse_focus + cut / px_per_inverse_m for cut in cuts]
        self._last = small
        return cuts

    def _goes_on(self, small: list[Tensor]) -> bool:
        """Whether a picture shows what the one before showed, as far away."""
        pairs = zip(small, self._last, strict=True)
        return all(
            one.device == two.device and bool((one - two).abs().mean() <= _SAME * two.abs().mean())
            for one, two in pairs
        )
