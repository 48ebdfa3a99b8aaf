"""Where picture and depth look at each other: cross-attention between the two encoders' tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ...depth.attention import FeedForward, SelfAttention, attend


class _MutualAttention(nn.Module):
    """Each modality asks the other: q of the one with k and v of the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for modality in ("rgb", "depth"):
            for part in ("q", "k", "v"):
                self.add_module(f"{modality}_{part}", nn.Linear(width, width, bias=False))
            self.add_module(f"{modality}_proj", nn.Linear(width, width))

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        return self._asked("rgb", rgb, "depth", depth), self._asked("depth", depth, "rgb", rgb)

    def _asked(self, one: str, tokens: Tensor, other: str, others: Tensor) -> Tensor:
        part = self.get_submodule
        q, k, v = part(f"{one}_q")(tokens), part(f"{other}_k")(others), part(f"{other}_v")(others)
        return part(f"{one}_proj")(attend(q, k, v, self.heads))


class _MutualBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1_rgb_ma, self.norm2_depth_ma = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mutualAttn = _MutualAttention(width, heads)
        self.norm3_rgb_ma, self.norm4_depth_ma = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp_rgb_ma, self.mlp_depth_ma = FeedForward(width, hidden), FeedForward(width, hidden)

        self.norm1_rgb_sa, self.norm2_rgb_sa = nn.LayerNorm(width), nn.LayerNorm(width)
        self.selfAttn_rgb = SelfAttention(width, heads, bias=False)
        self.mlp_rgb_sa = FeedForward(width, hidden)
        self.norm1_depth_sa, self.norm2_depth_sa = nn.LayerNorm(width), nn.LayerNorm(width)
        self.selfAttn_depth = SelfAttention(width, heads, bias=False)
        self.mlp_depth_sa = FeedForward(width, hidden)

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        to_rgb, to_depth = self.mutualAttn(self.norm1_rgb_ma(rgb), self.norm2_depth_ma(depth))
        rgb, depth = rgb + to_rgb, depth + to_depth
        rgb = rgb + self.mlp_rgb_ma(self.norm3_rgb_ma(rgb))
        depth = depth + self.mlp_depth_ma(self.norm4_depth_ma(depth))

        rgb = rgb + self.selfAttn_rgb(self.norm1_rgb_sa(rgb))
        rgb = rgb + self.mlp_rgb_sa(self.norm2_rgb_sa(rgb))
        depth = depth + self.selfAttn_depth(self.norm1_depth_sa(depth))
        depth = depth + self.mlp_depth_sa(self.norm2_depth_sa(depth))
        return rgb, depth


class MutualStack(nn.Module):
    """Tokens of picture and depth, both `(B, N, width)`, to tokens that know of each other."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_MutualBlock(width, heads, hidden) for _ in range(depth))
        self.rgb_norm = nn.LayerNorm(width)
        self.depth_norm = nn.LayerNorm(width)

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            rgb, depth = block(rgb, depth)
        return self.rgb_norm(rgb), self.depth_norm(depth)
