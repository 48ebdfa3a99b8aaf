"""The encoder of Metric3Dv2: a vision transformer with registers (DINOv2).

Other copies of this encoder place the patches differently when the picture is not 518 px square, which
changes positions by 12 %; that is why it has a home here. Attribute names are those of the checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import FeedForward, SelfAttention
from .config import OUTPUTS, PATCH_PX, Metric3DConfig
from .precision import precise, recomputed

#: Patches per side of the 518 px pictures the positions were learned on.
LEARNED_GRID = 37
#: Added to the grid before its scale is taken; the positions were fine-tuned with this offset.
_GRID_OFFSET = 0.1
_NORM_EPS = 1e-6


class SwiGLU(nn.Module):
    """Gated layers: one half of the inner units opens the other. Inner width 8/3 of dim, in steps of 8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = (8 * dim // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * inner)
        self.w3 = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor per channel on what a branch adds."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Transformer block: attention, then the feed-forward part, each scaled and added."""

    def __init__(self, dim: int, heads: int, ffn: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.attn = SelfAttention(dim, heads, bias=True)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.mlp = SwiGLU(dim) if ffn == "swiglu" else FeedForward(dim, 4 * dim)
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """One token per 14 px patch, row by row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH_PX, stride=PATCH_PX)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.proj(rgb).flatten(2).mT


class VisionTransformer(nn.Module):
    """DINOv2 with register tokens. Tokens are in the order class, registers, patches."""

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.multi_output = config.multi_output
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, config.registers, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + LEARNED_GRID**2, dim))
        # part of every checkpoint, used by the encoder's own training only
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        for parameter in (self.cls_token, self.register_tokens, self.pos_embed):
            nn.init.normal_(parameter, std=0.02)
        blocks = [Block(dim, config.heads, config.ffn) for _ in range(config.depth)]
        self.blocks = nn.ModuleList([nn.ModuleList(blocks)])
        self.norm = nn.LayerNorm(dim, eps=_NORM_EPS)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position of the class token and of every patch, `(1, 1 + rows · columns, D)`."""
        if rows == columns == LEARNED_GRID:
            return self.pos_embed
        learned = precise(self.pos_embed[:, 1:]).mT.unflatten(-1, (LEARNED_GRID, LEARNED_GRID))
        # scale_factor, not size: the offset shifts where the positions are sampled
        scale = tuple((n + _GRID_OFFSET) / LEARNED_GRID for n in (rows, columns))
        grid = F.interpolate(learned, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).mT.to(self.pos_embed)], dim=1)

    def forward(self, rgb: Tensor, *, recompute: bool = False) -> list[Tensor]:
        """Tokens for the four maps of the decoder.

        rgb: `(B, 3, H, W)` normalised. recompute: save memory in the backward pass.
        Returns four `(B, 1 + registers + patches, D)`: the normalised last tokens four times, or with
        `multi_output` the raw tokens after each quarter of the blocks.
        """
        rows, columns = rgb.shape[-2] // PATCH_PX, rgb.shape[-1] // PATCH_PX
        patches = self.patch_embed(rgb)
        batch = patches.shape[0]
        x = torch.cat([self.cls_token.expand(batch, -1, -1), patches], dim=1) + self.positions(rows, columns)
        registers = self.register_tokens.expand(batch, -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        blocks = list(self.blocks[0].children())
        taps = [len(blocks) * quarter // OUTPUTS for quarter in range(1, OUTPUTS + 1)]
        outputs = []
        for done, block in enumerate(blocks, start=1):
            x = recomputed(recompute, block, x)
            if self.multi_output:
                outputs += [x] * taps.count(done)
        return outputs if self.multi_output else [self.norm(x)] * OUTPUTS
