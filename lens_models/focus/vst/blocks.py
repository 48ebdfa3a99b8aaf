"""Transformer parts that the encoder, the fusion and the decoder of the saliency network share.

Attribute names are those of the published checkpoint, so that a user's file fits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...depth.attention import FeedForward, SelfAttention


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, GELU, Linear; the weights are keys 0 and 2."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class Block(nn.Module):
    """Pre-norm transformer block on tokens `(B, N, width)`."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class BlockStack(nn.Module):
    """`depth` blocks and a norm at the end, on tokens `(B, N, width)`."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def sinusoid_table(count: int, width: int) -> Tensor:
    """Positions `(1, count, width)`: pos / 10000^(2 ⌊j/2⌋ / width), sine at even j, cosine at odd j."""
    position = torch.arange(count, dtype=torch.float64)[:, None]
    column = torch.arange(width, dtype=torch.float64)[None]
    angle = position / 10000.0 ** (2.0 * torch.div(column, 2, rounding_mode="floor") / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]
