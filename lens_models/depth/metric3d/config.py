"""Sizes of Metric3Dv2, the published ones among them."""

from __future__ import annotations

from dataclasses import dataclass

PATCH_PX = 14
#: Maps handed to the decoder, from fine to coarse.
OUTPUTS = 4


@dataclass(frozen=True)
class Metric3DConfig:
    """Everything that makes a Metric3Dv2.

    embed_dim, depth, heads: width, blocks and attention heads of the vision transformer.
    ffn: "mlp" or "swiglu", its feed-forward layers.
    multi_output: the decoder's maps come from four depths of the transformer, not all from its end.
    feature_dims: channels of the maps at 4 px and at half a patch.
    decoder_dim: channels of the map that the first guess is read from.
    hidden_dim: channels of the recurrent units.
    iterations: rounds of refinement.
    registers: extra tokens of the transformer.

    The published tables list more widths: those that touch no tensor (f2, f3, d0) or have to agree with
    one of these (d2 = f1, d3 = d4 = embed_dim) are not settings.
    Raises ValueError when the numbers cannot make a network.
    """

    embed_dim: int
    depth: int
    heads: int
    ffn: str
    multi_output: bool
    feature_dims: tuple[int, int]
    decoder_dim: int
    hidden_dim: int
    iterations: int
    registers: int = 4

    def __post_init__(self) -> None:
        if self.ffn not in ("mlp", "swiglu"):
            raise ValueError(f'"{self.ffn}" is not a feed-forward layer: use mlp or swiglu.')
        if self.heads < 1 or self.embed_dim % self.heads:
            raise ValueError(
                f"{self.heads} attention heads do not divide the network's width {self.embed_dim}."
            )
        if self.depth < (OUTPUTS if self.multi_output else 1):
            raise ValueError(f"{self.depth} transformer blocks are too few.")
        if self.iterations < 1:
            raise ValueError(f"{self.iterations} refinement iterations: at least 1 is needed.")


#: The published sizes: ViT-S, ViT-L, ViT-g.
PUBLISHED: dict[str, Metric3DConfig] = {
    "small": Metric3DConfig(384, 12, 6, "mlp", False, (96, 192), 96, 48, 4),
    "large": Metric3DConfig(1024, 24, 16, "mlp", False, (256, 512), 256, 128, 8),
    "giant2": Metric3DConfig(1536, 40, 24, "swiglu", True, (384, 768), 384, 192, 8),
}
