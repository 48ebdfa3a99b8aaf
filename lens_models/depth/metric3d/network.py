"""Metric3Dv2: metric depth and surface normals from one picture.

A vision transformer reads the picture, a decoder (DPT) turns its tokens into a first guess of depth as a
mixture of 256 distances, and recurrent units (RAFT) refine depth and normals together. The network answers
for a canonical camera with a focal length of 1000 px; `estimate` converts the picture to it and its
answer back to metres. Weights: `metric_depth_vit_{small,large,giant2}_800k.pth`.
Attribute names are those of the checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...weights import load_strict, read_weights, without_prefix
from . import preprocess
from .config import PATCH_PX, Metric3DConfig
from .dinov2 import VisionTransformer
from .dpt import FuseMaps, TokensToMaps
from .precision import precise, recomputed
from .preprocess import CANONICAL_FAR, CANONICAL_NEAR, Estimate
from .refine import ContextEncoder, UpdateBlock, conv3, unit_normal

#: Distances that the first guess mixes, evenly spaced in log depth over the network's range.
_BINS = 256
#: The state holds depth as (d - 200) / 100.
_STATE_UNIT = 100.0
_LANDMARK = "encoder.cls_token"
#: Heads of the published sizes are this wide; a checkpoint does not tell.
_HEAD_WIDTH = 64
_SMALL_WIDTH = 384


def _in_range(depth: Tensor) -> Tensor:
    """Canonical depth clamped to 0.1..200; beyond the ends the gradient is 0."""
    far = CANONICAL_FAR
    return far - F.relu(far - (F.relu(depth - CANONICAL_NEAR) + CANONICAL_NEAR))


class Decoder(nn.Module):
    """Depth, confidence and normals from the tokens."""

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        features, hidden = config.decoder_dim, config.hidden_dim
        self.iterations = config.iterations
        self.token2feature = TokensToMaps(config)
        self.decoder_mono = FuseMaps(config)
        self.depth_regressor = nn.Sequential(conv3(features, _BINS), nn.ReLU(), nn.Conv2d(_BINS, _BINS, 1))
        self.normal_predictor = nn.Sequential(
            conv3(features, 128), nn.ReLU(),
            nn.Conv2d(128, 128, 1), nn.ReLU(),
            nn.Conv2d(128, 128, 1), nn.ReLU(),
            nn.Conv2d(128, 3, 1),
        )  # fmt: skip
        self.context_feature_encoder = ContextEncoder((*config.feature_dims, config.embed_dim), hidden)
        self.context_zqr_convs = nn.ModuleList([conv3(hidden, 3 * hidden) for _ in range(3)])
        self.update_block = UpdateBlock(hidden)

    def first_state(self, *maps: Tensor) -> Tensor:
        """The state before the first round, `(B, 6, h, w)` in float32 at least, from the four maps."""
        features, confidence, certainty = self.decoder_mono(*maps)
        votes = precise(self.depth_regressor(features)).softmax(dim=1)
        ends = math.log(CANONICAL_NEAR), math.log(CANONICAL_FAR)
        bins = torch.linspace(*ends, _BINS, dtype=votes.dtype, device=votes.device).exp()
        depth = _in_range(torch.einsum("bkhw,k->bhw", votes, bins)[:, None])
        normal = unit_normal(precise(self.normal_predictor(features)), precise(certainty))
        return torch.cat([(depth - CANONICAL_FAR) / _STATE_UNIT, precise(confidence), normal], dim=1)

    def forward(
        self, tokens: list[Tensor], grid: tuple[int, int], *, recompute: bool = False
    ) -> dict[str, Tensor]:
        maps = self.token2feature(tokens, grid)
        state = recomputed(recompute, self.first_state, *maps)
        x0, x1, x2, _ = maps
        # the context sees the two coarser maps rectified and the finest as it is
        levels = recomputed(recompute, self.context_feature_encoder, x0, F.relu(x1), F.relu(x2))
        fine, middle, coarse = (h for h, _ in levels)
        context = tuple(
            conv(x).chunk(3, dim=1) for conv, (_, x) in zip(self.context_zqr_convs, levels, strict=True)
        )
        for _ in range(self.iterations):
            fine, middle, coarse, state = recomputed(
                recompute, self.update_block, fine, middle, coarse, state, context
            )
        state = self.update_block.spread(fine, state)
        return {
            "depth": _in_range(_STATE_UNIT * state[:, :1] + CANONICAL_FAR),
            "confidence": state[:, 1:2],
            "normal": unit_normal(state[:, 2:5], state[:, 5:]),
        }


class Metric3Dv2(nn.Module):
    """The network. `gradient_checkpointing = True` trades time for memory in training: same gradients.

    It may run in float16 or bfloat16 (`.to(torch.bfloat16)`): positions, distances, the state of the
    refinement and all outputs stay float32. The encoder alone may too (`.encoder.to(torch.bfloat16)`).
    """

    #: As of `hugging_face.MetricModel`.
    uses_focal_length, estimates_focal_length = True, False

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.encoder = VisionTransformer(config)
        self.decoder = Decoder(config)

    def forward(self, rgb_normalised: Tensor) -> dict[str, Tensor]:
        """Depth for the canonical camera.

        rgb_normalised: `(B, 3, H, W)`, 0..255 minus the mean over the deviation (see `preprocess`); H and
            W multiples of 28 px. An odd multiple of 14 works but the maps come out 2 px smaller.
        Returns depth `(B, 1, H, W)` in 0.1..200, metres for a focal length of 1000 px; confidence
        `(B, 1, H, W)`, unbounded; normal `(B, 4, H, W)`: unit x, y, z before the camera, and their
        certainty > 0. float32, or float64 from a float64 network.
        Raises ValueError for a size the patches do not cover.
        """
        height, width = rgb_normalised.shape[-2:]
        if min(height, width) < 2 * PATCH_PX or height % PATCH_PX or width % PATCH_PX:
            raise ValueError(
                f"The network reads pictures in patches of {PATCH_PX} px and needs at least 2 × 2 of them: "
                f"{width} × {height} px is not a multiple of {PATCH_PX} in both directions, at least 28."
            )
        rgb = rgb_normalised.to(self.encoder.cls_token)
        tokens = self.encoder(rgb, recompute=self.gradient_checkpointing)
        # the encoder, which is most of the work, may be in half precision on its own
        tokens = [output.to(self.decoder.decoder_mono.upconv_3.out_conv.weight) for output in tokens]
        grid = height // PATCH_PX, width // PATCH_PX
        return self.decoder(tokens, grid, recompute=self.gradient_checkpointing)

    def estimate(self, radiance_srgb: Tensor, fx_px: float | Tensor, **options) -> Tensor:
        """Depth of pictures in metres, `(B, H, W)`, > 0, differentiable.

        radiance_srgb: `(B, 3, H, W)` sRGB 0..1. fx_px: their focal length in px, a number or `(B,)`.
        options: canvas, sky_m, guided of `preprocess.infer`.
        """
        return preprocess.infer(self, radiance_srgb, fx_px, **options).depth_m

    def estimate_maps(self, radiance_srgb: Tensor, fx_px: float | Tensor, **options) -> Estimate:
        """`estimate` with confidence, normals and their certainty, at the pictures' size."""
        return preprocess.infer(self, radiance_srgb, fx_px, maps=True, **options)


def config_from_weights(
    weights: Mapping[str, Tensor], *, heads: int | None = None, iterations: int | None = None
) -> Metric3DConfig:
    """The configuration that weights (without prefix) belong to, from their shapes.

    heads, iterations: the shapes do not show them. None takes heads 64 wide, as published (the next fewer
    that divide the width), and 4 iterations for the small size, else 8. More than one encoder output goes
    with gated layers, as published.
    Raises KeyError with the name of a tensor that is needed for this and is missing.
    """

    def side(name: str, axis: int) -> int:
        if axis >= weights[name].ndim:
            raise KeyError(f"{name} with {axis + 1} dimensions")
        return weights[name].shape[axis]

    width = side(_LANDMARK, 2)
    blocks = {name.split(".")[3] for name in weights if name.startswith("encoder.blocks.0.")}
    gated = "encoder.blocks.0.0.mlp.w12.weight" in weights
    if heads is None:
        heads = next(n for n in range(max(1, width // _HEAD_WIDTH), 0, -1) if width % n == 0)
    if iterations is None:
        iterations = 4 if width == _SMALL_WIDTH else 8
    return Metric3DConfig(
        embed_dim=width,
        depth=len(blocks),
        heads=heads,
        ffn="swiglu" if gated else "mlp",
        multi_output=gated,
        feature_dims=(
            side("decoder.token2feature.read_0.sample.0.weight", 0),
            side("decoder.token2feature.read_1.sample.weight", 1),
        ),
        decoder_dim=side("decoder.depth_regressor.0.weight", 1),
        hidden_dim=side("decoder.update_block.gru08.convz.weight", 0),
        iterations=iterations,
        registers=side("encoder.register_tokens", 1),
    )


def load_metric3d(
    path_or_state_dict: str | Path | Mapping[str, Tensor],
    *,
    heads: int | None = None,
    iterations: int | None = None,
) -> Metric3Dv2:
    """A Metric3Dv2 with its weights, in evaluation mode, on the CPU (or where the given weights are).

    path_or_state_dict: `.pth` as published, `.safetensors`, or the weights themselves, which are then used
        and not copied; names with or without `depth_model.`. The size is recognised by the shapes.
    heads, iterations: see `config_from_weights`; only unpublished sizes need them.
    Raises FileNotFoundError, and ValueError for a damaged file and for weights of another network.
    """
    weights, _, source = read_weights(path_or_state_dict)
    try:
        weights = without_prefix(weights, _LANDMARK)
        config = config_from_weights(weights, heads=heads, iterations=iterations)
    except KeyError as missing:
        some = ", ".join(list(weights)[:3]) or "nothing"
        raise ValueError(
            f"{source} is not a Metric3Dv2 ViT checkpoint: it has no tensor {missing.args[0]}; it holds "
            f"{len(weights)} tensors, such as {some}. Use metric_depth_vit_small_800k.pth, large or giant2."
        ) from missing
    with torch.device("meta"):
        network = Metric3Dv2(config)
    what = f"{source}, read as Metric3Dv2 {config.embed_dim} wide with {config.depth} {config.ffn} blocks,"
    load_strict(network, weights, what)
    return network.eval()
