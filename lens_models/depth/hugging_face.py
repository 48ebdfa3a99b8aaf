"""Metric depth networks of the transformers library: Depth Anything V2 metric, Depth Pro, ZoeDepth.

They come as folders with a config.json. The pictures are prepared here, in torch: the library's own image
processors need torchvision. transformers is imported when a folder is loaded.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Kinds by the library's name for them, and how people call them.
KINDS = {"depth_anything": "Depth Anything V2 metric", "depth_pro": "Depth Pro", "zoedepth": "ZoeDepth"}
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
#: Longest side that an extreme aspect ratio may lead to, as a multiple of the network's own size.
_LONGEST = 4
#: What Depth Pro's inverse depth is clamped to, 1/m, and its field of view, degrees.
_INVERSE_RANGE, _VIEW_RANGE = (1e-4, 1e4), (1.0, 179.0)
_NEAREST_M = 1e-3
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Preparation:
    """How a network wants its pictures.

    height, width: its own size, px; multiple: sides are multiples of this, px.
    mean, deviation: of the normalisation, for colours 0..1.
    """

    height: int
    width: int
    multiple: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path, kind: str, config: dict[str, Any]) -> Preparation:
        """From preprocessor_config.json where the folder has one, else as published for this kind."""
        if kind == "depth_anything":
            standard = 518, 518, int(config.get("patch_size") or 14), *_IMAGENET
        elif kind == "depth_pro":
            smallest = min(config.get("scaled_images_ratios") or (0.25,))
            side = round((config.get("patch_size") or 384) / smallest)
            standard = side, side, 1, *_HALF
        else:
            standard = 384, 512, 32, *_HALF
        path = folder / "preprocessor_config.json"
        settings = _read_json(path) if path.is_file() else {}
        size = settings.get("size")
        size = {"height": size, "width": size} if isinstance(size, int) else (size or {})
        multiple = settings.get("ensure_multiple_of")
        return cls(
            int(size.get("height", standard[0])),
            int(size.get("width", standard[1])),
            multiple if kind != "depth_pro" and isinstance(multiple, int) and multiple > 0 else standard[2],
            tuple(settings.get("image_mean") or standard[3]),
            tuple(settings.get("image_std") or standard[4]),
        )

    def normalised(self, srgb: Tensor) -> Tensor:
        """sRGB 0..1 `(B, 3, H, W)` minus the mean over the deviation."""
        mean, deviation = (srgb.new_tensor(c).view(1, 3, 1, 1) for c in (self.mean, self.deviation))
        return (srgb - mean) / deviation

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture is resized to, its aspect ratio the same: least change of size."""
        scale = min((self.height / height, self.width / width), key=lambda s: abs(1.0 - s))
        longest = _LONGEST * max(self.height, self.width)
        scale = min(scale, longest / max(height, width))
        rows, columns = (max(1, round(s * scale / self.multiple)) * self.multiple for s in (height, width))
        return rows, columns


class MetricModel(nn.Module):
    """A transformers depth network that answers in metres.

    The library's network is an attribute because ComfyUI writes attributes that it does not allow.
    """

    network: Any

    def __init__(self, network: nn.Module, kind: str, preparation: Preparation) -> None:
        super().__init__()
        self.network, self.kind, self.preparation = network, kind, preparation

    @property
    def estimates_focal_length(self) -> bool:
        """Whether the network finds the focal length itself."""
        return self.kind == "depth_pro" and bool(self.network.config.use_fov_model)

    @property
    def uses_focal_length(self) -> bool:
        """Whether distances depend on the focal length that is given."""
        return self.kind == "depth_pro"

    @property
    def width(self) -> int:
        """Channels of its vision transformer, a measure of the memory it needs."""
        config = self.network.config
        inner = getattr(config, "image_model_config", None) or getattr(config, "backbone_config", None)
        return int(getattr(inner, "hidden_size", 1024))

    def input_pixels(self, height: int, width: int) -> int:
        """Pixels of the picture that the network gets for one of this size."""
        if self.kind == "depth_pro":
            return self.preparation.height * self.preparation.width
        rows, columns = self.preparation.input_size(height, width)
        return rows * columns

    def estimate_metres(self, srgb: Tensor, fx_px: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Depth in metres `(B, H, W)`, > 0, float32, and the focal length it found `(B,)` px or None.

        srgb: `(B, 3, H, W)` sRGB 0..1. fx_px: `(B,)` focal length in px, None = unknown; only Depth Pro uses
            it, and needs it when it tells none itself.
        """
        height, width = srgb.shape[-2:]
        if self.kind == "depth_anything":
            size = self.preparation.input_size(height, width)
            picture = F.interpolate(srgb, size=size, mode="bicubic", align_corners=False, antialias=True)
            raw, _ = self._answer(self.preparation.normalised(picture.clamp(0.0, 1.0)))
            return _resized(raw, height, width).clamp_min(_NEAREST_M), None
        if self.kind == "zoedepth":
            return self._zoe(srgb), None
        size = self.preparation.height, self.preparation.width
        picture = F.interpolate(self.preparation.normalised(srgb), size, mode="bilinear", align_corners=False)
        raw, view = self._answer(picture)
        own_fx = None
        if fx_px is None:
            if view is None:
                raise ValueError("This Depth Pro tells no focal length, and none is known for the picture.")
            half = torch.deg2rad(view.double().clamp(*_VIEW_RANGE)) / 2.0
            own_fx = fx_px = 0.5 * width / torch.tan(half)
        inverse = raw * (width / fx_px.to(raw)).reshape(-1, 1, 1)
        return 1.0 / _resized(inverse, height, width).clamp(*_INVERSE_RANGE), own_fx

    def _zoe(self, srgb: Tensor) -> Tensor:
        """ZoeDepth sees the picture with a mirrored border, because its maps are poor at the border."""
        height, width = srgb.shape[-2:]
        top, left = (int(3.0 * math.sqrt(side / 2.0)) for side in (height, width))
        mirrored = "reflect" if top < height and left < width else "replicate"
        padded = F.pad(srgb, (left, left, top, top), mode=mirrored)
        size = self.preparation.input_size(*padded.shape[-2:])
        picture = F.interpolate(padded, size=size, mode="bilinear", align_corners=True)
        raw, _ = self._answer(self.preparation.normalised(picture))
        whole = _resized(raw, *padded.shape[-2:])
        return whole[:, top : top + height, left : left + width].clamp_min(_NEAREST_M)

    def _answer(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the network says, `(B, h, w)` float32, and the field of view in degrees `(B,)` if it tells."""
        dtype = next(self.network.parameters()).dtype
        answer = self.network(pixel_values=pixels.to(dtype))
        view = getattr(answer, "field_of_view", None)
        return answer.predicted_depth.float(), None if view is None else view.float().reshape(-1)


def _resized(depth: Tensor, height: int, width: int) -> Tensor:
    # bilinear where the library takes bicubic: bicubic rings at edges
    return F.interpolate(depth[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def load_metric_model(folder: str | Path) -> MetricModel:
    """A network out of a transformers folder, in evaluation mode, float32, on the CPU. Nothing is downloaded.

    Raises ValueError for another network, for relative depth and for incomplete or damaged weights, and
    ImportError where transformers is not installed.
    """
    folder = Path(folder)
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    known = ", ".join(KINDS.values())
    if kind not in KINDS:
        raise ValueError(
            f"The folder {folder.name} holds a network of type {kind}, which cannot be used here: use "
            f"{known}, or a Metric3Dv2 file."
        )
    if kind == "depth_anything" and config.get("depth_estimation_type", "relative") != "metric":
        raise ValueError(
            f"The network in {folder.name} gives relative depth, which has no metres: use a metric version "
            "(Depth-Anything-V2-Metric-Indoor or -Outdoor)."
        )
    try:
        from transformers import AutoModelForDepthEstimation
    except ImportError as missing:
        raise ImportError(
            f"{KINDS[kind]} needs the transformers library: run `pip install transformers`, or use a "
            "Metric3Dv2 file."
        ) from missing
    try:
        network, report = AutoModelForDepthEstimation.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as reason:  # the library fails with whatever its readers raise
        first_line = (str(reason).strip().splitlines() or [type(reason).__name__])[0][:200]
        raise ValueError(
            f"The weights in {folder.name} cannot be read ({first_line}): probably the download "
            "stopped early. Download the folder again."
        ) from reason
    mismatched = report.get("mismatched_keys", ())  # names, alone or before both shapes
    mismatched = {str(key[0] if isinstance(key, (tuple, list)) else key) for key in mismatched}
    wrong = sorted(mismatched | set(map(str, report.get("missing_keys", ()))))
    if wrong:
        names = ", ".join(wrong[:_NAMES_SHOWN]) + (" ..." if len(wrong) > _NAMES_SHOWN else "")
        raise ValueError(
            f"The weights in {folder.name} do not fit its config.json: {len(wrong)} tensors are missing or "
            f"of another shape ({names}). Download the folder again."
        )
    return MetricModel(network.float().eval(), kind, Preparation.read(folder, kind, config))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise ValueError(f"{path} cannot be read ({reason}): download the folder again.") from reason
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a description of a network: download the folder again.")
    return content
