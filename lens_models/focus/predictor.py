"""The focus-distance transformer: where a photographer would focus, and how strongly the lens acts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import Focus, broadcast_batch
from ..depth.convert import SPACINGS
from ..files import atomic
from ..weights import Weights, load_strict, read_weights
from .distance import measured, resized, weighted_mean_m
from .vst.network import VisualSaliencyTransformer, VSTConfig, vst_from

#: Saliency tokens that the focus scale can be read from; 1/16 is the first layer of the decoder.
TOKENS = ("1/16", "1/8", "1/4")
POLARITIES = ("near is bright", "near is dark")
FORMAT = "fine-defocus focus predictor 1"

#: Mean and deviation of the pictures that the network's encoder learned from.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: softplus of this is 1
_SOFTPLUS_ONE = math.log(math.expm1(1.0))


class FocusPredictor(nn.Module):
    """Saliency network and scale head: a picture and its depth to a focus (eq. 4 and 5).

    vst: the saliency network.
    token: the token that the scale f_s = softplus(Linear(token)) is read from. A fresh head gives 1.
    normalisation: "inverse depth" or "depth": what is stretched to 0..1 for the network, per picture, from
        the nearest to the farthest measured pixel. Sky takes the far end.
    polarity: "near is bright" or "near is dark": what the network was trained with; data sets differ.

    notes: sentences of `load_predictor`; metadata: what the checkpoint says of itself.
    Raises ValueError for an unknown choice.
    """

    def __init__(
        self,
        vst: VisualSaliencyTransformer,
        *,
        token: str = TOKENS[0],
        normalisation: str = SPACINGS[0],
        polarity: str = POLARITIES[0],
    ) -> None:
        super().__init__()
        if token not in TOKENS:
            raise ValueError(f'"{token}" is not a token of the decoder: use one of {", ".join(TOKENS)}.')
        if normalisation not in SPACINGS:
            raise ValueError(f'"{normalisation}" is not a normalisation: use one of {", ".join(SPACINGS)}.')
        if polarity not in POLARITIES:
            raise ValueError(f'"{polarity}" is not a polarity: use one of {", ".join(POLARITIES)}.')
        self.vst = vst
        self.token = token
        self.normalisation = normalisation
        self.polarity = polarity
        self.scale_head = nn.Linear(vst.config.width, 1)
        nn.init.zeros_(self.scale_head.weight)
        nn.init.constant_(self.scale_head.bias, _SOFTPLUS_ONE)
        self.notes: tuple[str, ...] = ()
        self.metadata: dict[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as it is written into a checkpoint."""
        return {
            "config": dataclasses.asdict(self.vst.config),
            "token": self.token,
            "normalisation": self.normalisation,
            "polarity": self.polarity,
        }

    def forward(self, srgb: Tensor, depth_m: Tensor) -> tuple[Focus, Tensor]:
        """Focus and saliency of pictures with depth.

        srgb: `(B, 3, H, W)` sRGB 0..1; depth_m: `(B, H, W)` metres, +inf = sky. 1 broadcasts with N.
        Returns `Focus` with distance and scale `(B,)`, and saliency `(B, H, W)` 0..1. Differentiable with
        respect to picture, depth and weights.
        Where nothing is salient the focus is on the nearest depth.
        Raises ValueError when sizes or batches do not go together; the sentence names both.
        """
        srgb, depth_m = self._checked(srgb, depth_m)
        height, width = depth_m.shape[-2:]
        outputs = self.vst(*self.network_input(srgb, depth_m))
        logits = outputs["saliency_1_1"].to(depth_m.dtype)
        saliency = resized(torch.sigmoid(logits), height, width)[:, 0]
        distance, _ = weighted_mean_m(depth_m, saliency)
        weight, bias = (p.to(depth_m.dtype) for p in (self.scale_head.weight, self.scale_head.bias))
        token = outputs["token_" + self.token.replace("/", "_")]
        scale = F.softplus(F.linear(token.to(depth_m.dtype), weight, bias))[:, 0]
        return Focus(distance, scale), saliency

    def network_input(self, srgb: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees: both `(B, 3, S, S)`, stretched to its square, ImageNet-normalised."""
        side = self.vst.config.image_px
        dtype = self.scale_head.weight.dtype
        grey = resized(self._grey(depth_m)[:, None], side, side).expand(-1, 3, -1, -1)
        return _imagenet(resized(srgb, side, side)).to(dtype), _imagenet(grey).to(dtype)

    def _grey(self, depth_m: Tensor) -> Tensor:
        """Depth stretched to 0..1 per picture, `(B, H, W)`."""
        known = measured(depth_m)
        value = torch.where(known, depth_m, torch.ones_like(depth_m))
        if self.normalisation == "inverse depth":
            value = 1.0 / value
        infinite = torch.full_like(value, torch.inf)
        low = torch.where(known, value, infinite).flatten(1).amin(dim=1)[:, None, None]
        high = torch.where(known, value, -infinite).flatten(1).amax(dim=1)[:, None, None]
        some = high > low  # not so for flat depth, and for nothing but sky
        low, span = (torch.where(some, t, torch.ones_like(t)) for t in (low, high - low))
        stretched = torch.where(known & some, (value - low) / span, torch.zeros_like(value))
        rises_with_nearness = self.normalisation == "inverse depth"
        if rises_with_nearness != (self.polarity == "near is bright"):
            stretched = 1.0 - stretched
        far = 0.0 if self.polarity == "near is bright" else 1.0
        return torch.where(known & some, stretched, torch.full_like(stretched, far))

    def _checked(self, srgb: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor]:
        if srgb.ndim != 4 or srgb.shape[1] != 3 or 0 in srgb.shape:
            raise ValueError(f"A picture must be (batch, 3, height, width); this one is {tuple(srgb.shape)}.")
        if depth_m.ndim != 3:
            raise ValueError(f"Depth must be (batch, height, width), not {tuple(depth_m.shape)}.")
        if srgb.shape[-2:] != depth_m.shape[-2:]:
            (height, width), (depth_height, depth_width) = srgb.shape[-2:], depth_m.shape[-2:]
            raise ValueError(
                f"The picture is {width} × {height} px and its depth {depth_width} × {depth_height}: "
                "they must be the same size."
            )
        count = broadcast_batch(pictures=srgb.shape[0], depths=depth_m.shape[0])
        dtype = torch.float64 if self.scale_head.weight.dtype == torch.float64 else torch.float32
        return srgb.to(dtype).expand(count, -1, -1, -1), depth_m.to(dtype).expand(count, -1, -1)


def _imagenet(planes: Tensor) -> Tensor:
    mean, deviation = (planes.new_tensor(v).reshape(1, 3, 1, 1) for v in _IMAGENET)
    return (planes - mean) / deviation


def save_predictor(
    path: str | Path, predictor: FocusPredictor, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write network, scale head and settings into one .safetensors file.

    metadata: anything JSON can hold, such as the training recipe and step; read back as `.metadata`.
    The file appears whole or not at all. Raises ValueError for another file name suffix.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"A focus predictor is written as .safetensors, not as {path.name}.")
    settings, further = json.dumps(predictor.settings), json.dumps(dict(metadata or {}))
    header = {"format": FORMAT, "predictor": settings, "metadata": further}
    tensors = {key: value.detach().cpu().contiguous() for key, value in predictor.state_dict().items()}
    with atomic(path) as part:
        save_file(tensors, part, metadata=header)


def load_predictor(path: str | Path, *, heads: int | None = None) -> FocusPredictor:
    """A focus predictor in eval mode, float32 on the CPU.

    path: a file of `save_predictor`, or the weights of an RGB-D Visual Saliency Transformer alone
        (`RGBD_VST.pth`): then the scale head is fresh, f_s is 1, and `.notes` says so.
    heads: attention heads, where the file does not tell; see `load_vst`.
    Raises FileNotFoundError, and ValueError, in a sentence, for a file that is damaged or of another model.
    """
    weights = read_weights(path)
    if "scale_head.weight" in weights.tensors:
        return _from_checkpoint(weights, heads)
    predictor = FocusPredictor(vst_from(weights.tensors, weights.name, heads=heads))
    predictor.notes = (
        f"{weights.name} holds the saliency network alone: the focus scale is 1, and depth is shown to it as "
        f"{predictor.normalisation}, {predictor.polarity}.",
    )
    return predictor.eval()


def _from_checkpoint(weights: Weights, heads: int | None) -> FocusPredictor:
    tensors = {key.removeprefix("vst."): t for key, t in weights.tensors.items() if key.startswith("vst.")}
    notes: tuple[str, ...] = ()
    settings, metadata = {}, {}
    try:
        settings = json.loads(weights.metadata["predictor"])
        metadata = json.loads(weights.metadata.get("metadata", "{}"))
        heads = VSTConfig(**settings.pop("config")).heads if heads is None else heads
    except KeyError:
        notes = (f"{weights.name} does not say how depth is shown to the network: the defaults are used.",)
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{weights.name} has settings that cannot be read: {error}.") from error
    network = vst_from(tensors, weights.name, heads=heads)
    try:
        predictor = FocusPredictor(network, **settings)
    except TypeError as error:
        raise ValueError(f"{weights.name} has settings of another version: {error}.") from error
    head = {key: value.float() for key, value in weights.tensors.items() if key.startswith("scale_head.")}
    head = {key.removeprefix("scale_head."): value for key, value in head.items()}
    load_strict(predictor.scale_head, head, f"The scale head of {weights.name}")
    predictor.notes, predictor.metadata = notes, metadata
    return predictor.eval()
