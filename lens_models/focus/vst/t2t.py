"""Tokens-to-token encoder: one for the picture and one for its depth (Yuan et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...depth.attention import FeedForward
from .blocks import Block, sinusoid_table

_FIRST = {"kernel_size": 7, "stride": 4, "padding": 2}
_NEXT = {"kernel_size": 3, "stride": 2, "padding": 1}


class _WindowAttention(nn.Module):
    """One-head attention that also changes the width; scaled by the *incoming* width.

    tokens `(B, N, inputs)` -> `(B, N, width)`. The residual is v: what comes in is too wide to be added.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.scale = inputs**-0.5
        self.qkv = nn.Linear(inputs, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t[:, None] for t in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return v[:, 0] + self.proj(mixed[:, 0])


class _TokenTransformer(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.attn = _WindowAttention(inputs, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def _windows(image: Tensor, window: dict[str, int]) -> Tensor:
    """Overlapping windows of `(B, C, H, W)` as tokens `(B, N, C·k²)`, channel-major."""
    return F.unfold(image, **window).transpose(1, 2)


def _as_image(tokens: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(-1, (side, side))


class _TokensToToken(nn.Module):
    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.attention1 = _TokenTransformer(3 * 7 * 7, token_width)
        self.attention2 = _TokenTransformer(token_width * 3 * 3, token_width)
        self.project = nn.Linear(token_width * 3 * 3, width)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quarter = self.attention1(_windows(image, _FIRST))
        eighth = self.attention2(_windows(_as_image(quarter), _NEXT))
        return self.project(_windows(_as_image(eighth), _NEXT)), eighth, quarter


class Backbone(nn.Module):
    """Picture `(B, 3, S, S)` to tokens of 1/16 `(B, (S/16)², width)`, 1/8 and 1/4 `(B, N, token_width)`."""

    def __init__(
        self, grid: int, width: int, token_width: int, depth: int, heads: int, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.tokens_to_token = _TokensToToken(width, token_width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        # stored with the weights but never trained
        self.pos_embed = nn.Parameter(sinusoid_table(grid * grid + 1, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        if classes:
            self.head = nn.Linear(width, classes)  # of the classifier it was pre-trained as; in the file only

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, eighth, quarter = self.tokens_to_token(image)
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:], eighth, quarter
