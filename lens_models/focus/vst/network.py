"""Visual Saliency Transformer for picture and depth (Liu et al., ICCV 2021), written anew.

The network keeps the layout of the published weights, so that `RGBD_VST.pth` fits; no code of the original
is used.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...weights import load_strict, read_weights
from .decoder import Decoder, Performer, TokenTransformer
from .mutual import MutualStack
from .t2t import Backbone

logger = logging.getLogger(__name__)

PATCH_PX = 16
_HEAD_WIDTH = 64
_SMALL_HEAD_WIDTH = 16


@dataclass(frozen=True)
class VSTConfig:
    """Sizes of a Visual Saliency Transformer. The defaults are the published model.

    image_px: side of the square picture, a multiple of 16.
    width, heads: of the tokens at 1/16; the decoder's own blocks have one head.
    token_width: of the tokens at 1/8 and 1/4.
    backbone_depth, mutual_depth, token_depth, decoder_depth: blocks in each encoder, in the fusion, in the
        1/16 token transformer, and at each of 1/8 and 1/4.
    mlp_ratio: hidden width of the blocks' feed-forward part / width.
    features: random features of the linear attention.
    classes: outputs of the unused classifier in the published file; 0 leaves it out.

    Raises ValueError for sizes that do not go together.
    """

    image_px: int = 224
    width: int = 384
    heads: int = 6
    token_width: int = 64
    backbone_depth: int = 14
    mutual_depth: int = 4
    token_depth: int = 4
    decoder_depth: int = 2
    mlp_ratio: float = 3.0
    features: int = 32
    classes: int = 1000

    def __post_init__(self) -> None:
        if self.image_px < PATCH_PX or self.image_px % PATCH_PX:
            raise ValueError(f"image_px is {self.image_px}: it must be a multiple of {PATCH_PX}.")
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(
                f"{self.heads} heads do not divide a width of {self.width}: choose a divisor of {self.width}."
            )
        for field in dataclasses.fields(self):
            least = 0 if field.name == "classes" or field.name.endswith("_depth") else 1
            if getattr(self, field.name) < least and field.name != "mlp_ratio":
                raise ValueError(f"{field.name} is {getattr(self, field.name)}: it must be at least {least}.")

    @property
    def grid(self) -> int:
        """Side of the 1/16 token grid."""
        return self.image_px // PATCH_PX

    @property
    def hidden(self) -> int:
        """Hidden width of the blocks' feed-forward part."""
        return round(self.width * self.mlp_ratio)


class VisualSaliencyTransformer(nn.Module):
    """Where people look in a picture with depth, and the contours of it."""

    def __init__(self, config: VSTConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or VSTConfig()
        encoder = (c.grid, c.width, c.token_width, c.backbone_depth, c.heads, c.hidden, c.classes)
        self.rgb_backbone = Backbone(*encoder)
        self.depth_backbone = Backbone(*encoder)
        fusion = MutualStack(c.mutual_depth, c.width, c.heads, c.hidden)
        self.transformer = nn.ModuleDict({"encoderlayer": fusion})
        self.token_trans = TokenTransformer(c.token_depth, c.width, c.heads, c.hidden)
        self.decoder = Decoder(c.grid, c.width, c.token_width, c.decoder_depth, c.hidden, c.features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights: normal of σ 0.02, cut at 2σ, and orthogonal random features of length √m."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Performer):
                with torch.no_grad():
                    nn.init.orthogonal_(module.w, gain=math.sqrt(module.w.shape[0]))
        tokens = [backbone.cls_token for backbone in (self.rgb_backbone, self.depth_backbone)]
        for token in [*tokens, self.token_trans.saliency_token, self.token_trans.contour_token]:
            nn.init.trunc_normal_(token, std=0.02, a=-0.04, b=0.04)

    def forward(self, rgb: Tensor, depth3: Tensor) -> dict[str, Tensor]:
        """Saliency of a picture with depth.

        rgb: `(B, 3, S, S)` sRGB with ImageNet's mean and deviation; depth3: `(B, 3, S, S)`, the depth map
            three times, normalised the same way. S = `config.image_px`.
        Returns logits `saliency_1_16`, `_1_8`, `_1_4`, `_1_1` and `contour_*`, each `(B, 1, S/k, S/k)`, and
        the saliency tokens `token_1_16`, `token_1_8`, `token_1_4`, each `(B, width)`. Differentiable with
        respect to both inputs.
        Raises ValueError for another size.
        """
        side = self.config.image_px
        for name, value in (("picture", rgb), ("depth", depth3)):
            if value.ndim != 4 or value.shape[1:] != (3, side, side):
                raise ValueError(
                    f"This saliency network takes a {name} of (batch, 3, {side}, {side}), "
                    f"not {tuple(value.shape)}."
                )
        if rgb.shape[0] != depth3.shape[0]:
            raise ValueError(f"{rgb.shape[0]} pictures do not go with {depth3.shape[0]} depth maps.")
        rgb_tokens, eighth, quarter = self.rgb_backbone(rgb)
        depth_tokens, _, _ = self.depth_backbone(depth3)
        rgb_tokens, depth_tokens = self.transformer["encoderlayer"](rgb_tokens, depth_tokens)
        saliency, contour, tasks = self.token_trans(rgb_tokens, depth_tokens)
        return self.decoder(saliency, contour, tasks, eighth, quarter)


def config_from_weights(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> VSTConfig:
    """The sizes of a state dict, read from its shapes.

    heads: shapes do not tell it. None takes width / 64 as the published model has, and width / 16 for small
        networks whose width is no multiple of 64.
    Raises KeyError or IndexError for the weights of another model.
    """

    def blocks(prefix: str) -> int:
        matches = (re.match(re.escape(prefix) + r"\.blocks\.(\d+)\.", key) for key in tensors)
        return 1 + max((int(match[1]) for match in matches if match), default=-1)

    positions, width = tensors["rgb_backbone.pos_embed"].shape[1:]
    if heads is None:
        head_width = next((w for w in (_HEAD_WIDTH, _SMALL_HEAD_WIDTH) if width % w == 0), None)
        if head_width is None:
            raise ValueError(
                f"The weights are {width} wide, which does not determine the attention heads: give heads."
            )
        heads = width // head_width
        if head_width != _HEAD_WIDTH:
            logger.warning("saliency network of width %d: taken to have %d heads", width, heads)
    head = tensors.get("rgb_backbone.head.weight")
    hidden = tensors["decoder.token_pre_1_8.encoderlayer.blocks.0.mlp.fc1.weight"].shape[0]
    return VSTConfig(
        image_px=PATCH_PX * math.isqrt(positions - 1),
        width=width,
        heads=heads,
        token_width=tensors["rgb_backbone.tokens_to_token.attention1.attn.proj.weight"].shape[0],
        backbone_depth=blocks("rgb_backbone"),
        mutual_depth=blocks("transformer.encoderlayer"),
        token_depth=blocks("token_trans.encoderlayer"),
        decoder_depth=blocks("decoder.token_pre_1_8.encoderlayer"),
        mlp_ratio=hidden / width,
        features=tensors["decoder.decoder1.att.w"].shape[0],
        classes=0 if head is None else head.shape[0],
    )


def load_vst(
    path_or_state_dict: str | Path | Mapping[str, Tensor], *, heads: int | None = None
) -> VisualSaliencyTransformer:
    """The network of a weight file, of whatever size the file is, in float32 on the CPU and in eval mode.

    path_or_state_dict: .safetensors or a torch file (`RGBD_VST.pth`), bare or wrapped in `state_dict`, with
        or without the prefix `module.`; or such a state dict.
    heads: attention heads at 1/16; None takes width / 64 (see `config_from_weights`).
    Raises FileNotFoundError, and ValueError, in a sentence, for a file that is damaged or of another model.
    """
    weights = read_weights(path_or_state_dict)
    return vst_from(weights.tensors, weights.name, heads=heads)


def vst_from(
    tensors: Mapping[str, Tensor], name: str, *, heads: int | None = None
) -> VisualSaliencyTransformer:
    """`load_vst` of tensors without prefix; `name` is what the sentences call them."""
    refuse_other_models(tensors, name)
    try:
        config = config_from_weights(tensors, heads=heads)
        with torch.device("meta"):
            network = VisualSaliencyTransformer(config)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{name} is an incomplete RGB-D saliency network: {error} is missing of {len(tensors)} tensors."
        ) from error
    # a copy: training must not change the dict that was given
    own = {key: value.detach().to(torch.float32, copy=True).contiguous() for key, value in tensors.items()}
    load_strict(network, own, f"{name}, read as an RGB-D saliency network {config.width} wide,")
    return network.eval()


def refuse_other_models(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raises ValueError, saying what was expected and found, unless these look like an RGB-D VST."""
    parts = ("rgb_backbone", "depth_backbone", "transformer", "token_trans", "decoder")
    present = {key.split(".", 1)[0] for key in tensors}
    missing = [part for part in parts if part not in present]
    if not missing:
        return
    if "rgb_backbone" in present and "depth_backbone" not in present:
        raise ValueError(
            f"{name} is the Visual Saliency Transformer for pictures without depth. "
            "The one for picture and depth is needed: RGBD_VST.pth."
        )
    example = next(iter(tensors))
    raise ValueError(
        f"{name} is the checkpoint of another model: an RGB-D Visual Saliency Transformer (RGBD_VST.pth, 826 "
        f"tensors) with {', '.join(parts)} was expected; found {len(tensors)} tensors such as {example}."
    )
