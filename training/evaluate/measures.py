"""What is measured of one prompt's sweep, as a row of the samples' table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from lens_models.metrics.consistency import F_NUMBERS, PAIRINGS, content_consistency
from lens_models.metrics.lpips import adjacent_distances, load_lpips
from lens_models.metrics.monotonicity import blur_monotonicity

from .methods import Pictures
from .metrics.inception import load_inception
from .metrics.semantic_sam import load_segmenter
from .options import Metrics

_NUMBERS = pa.list_(pa.float64())
#: Energies are kept in both spaces: the theorem holds in linear light, and the paper does not say which.
SPACES = ("linear", "srgb")
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("prompt", pa.string()),
        ("f_numbers", _NUMBERS),
        ("focal_mm", pa.float64()),
        *((f"energy_{space}", _NUMBERS) for space in SPACES),
        *((f"energy_{space}_mean_removed", _NUMBERS) for space in SPACES),
        ("lpips", _NUMBERS),
        *((f"consistency_{pairing}", _NUMBERS) for pairing in PAIRINGS),
        ("focus_m", pa.float64()),
        ("focus_scale", pa.float64()),
        ("own_f_number", pa.float64()),
        ("own_features", pa.list_(pa.float32())),
    ]
)


class Meters:
    """The metrics' networks, each loaded when first needed; without weights there is no number."""

    def __init__(self, weights: Metrics, device: torch.device | str = "cpu"):
        self.weights, self.device = weights, torch.device(device)

    @cached_property
    def _lpips(self) -> Any:
        given = self.weights
        if given.lpips_trunk is None or given.lpips_heads is None:
            return None
        return load_lpips(given.lpips_trunk, given.lpips_heads).to(self.device)

    @cached_property
    def _segmenter(self) -> Any:
        if self.weights.segmenter is None:
            return None
        found: Any = load_segmenter(self.weights.segmenter)
        found.network.to(self.device)
        return found

    @cached_property
    def inception(self) -> Any:
        """FID's network, or None."""
        given = self.weights.inception
        return None if given is None else load_inception(given).to(self.device)

    @torch.no_grad()
    def sweep(self, pictures: Pictures, f_numbers: Sequence[float]) -> dict[str, Any]:
        """Energies at all apertures, and LPIPS and consistency over f/4 to f/22."""
        found: dict[str, Any] = {"f_numbers": list(f_numbers)}
        for space, shown in zip(SPACES, (pictures.linear, pictures.srgb), strict=True):
            energies = blur_monotonicity(shown, f_numbers)
            found[f"energy_{space}"] = list(energies.energies)
            found[f"energy_{space}_mean_removed"] = list(energies.details)
        places = [i for i, n in enumerate(f_numbers) if n in F_NUMBERS]
        srgb = pictures.srgb[places].clamp(0.0, 1.0)
        if len(places) > 1 and self._lpips is not None:
            found["lpips"] = adjacent_distances(self._lpips, srgb.to(self.device)).cpu().double().tolist()
        if len(places) > 1 and self._segmenter is not None:
            labels = self._segmenter.top_labels(srgb)
            for pairing in PAIRINGS:
                found[f"consistency_{pairing}"] = list(content_consistency(labels, pairing).shares)
        found |= {"focus_m": pictures.focus_m, "focus_scale": pictures.focus_scale}
        return found

    @torch.no_grad()
    def features(self, srgb: Tensor) -> list[float]:
        """FID's features of one picture `(1, 3, H, W)`; of its 8-bit values, as photos are."""
        rounded = (srgb.clamp(0.0, 1.0) * 255).round() / 255
        return self.inception(rounded.to(self.device)).cpu()[0].tolist()
