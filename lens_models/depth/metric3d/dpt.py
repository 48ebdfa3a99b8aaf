"""Tokens of the transformer as maps, and maps fused from coarse to fine (DPT).

Attribute names are those of the Metric3Dv2 checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import PATCH_PX, Metric3DConfig
from .refine import CELL_PX, conv3, resized


class ReadTokens(nn.Module):
    """Patch tokens as a map, each with what the class and register tokens know added."""

    def __init__(self, dim: int, extra: int) -> None:
        super().__init__()
        self.extra = extra
        self.project_patch = nn.Linear(dim, dim)
        self.project_learn = nn.Linear(extra * dim, dim, bias=False)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        whole = self.project_learn(tokens[:, : self.extra].flatten(1))
        patches = F.gelu(self.project_patch(tokens[:, self.extra :]) + whole[:, None])
        return patches.mT.unflatten(-1, grid)


class TokensToMaps(nn.Module):
    """Four token sets as maps with cells of 4 px, 7 px, 14 px and 14 px."""

    read_0: Any
    read_1: Any
    read_2: Any
    read_3: Any

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        samples = (
            nn.Sequential(nn.Conv2d(dim, config.feature_dims[0], 1)),
            nn.ConvTranspose2d(dim, config.feature_dims[1], 2, stride=2),
            None,
            None,
        )
        for level, sample in enumerate(samples):
            read = nn.Module()
            read.readoper = ReadTokens(dim, 1 + config.registers)
            if sample is not None:
                read.sample = sample
            self.add_module(f"read_{level}", read)

    def forward(self, tokens: list[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reads = (self.read_0, self.read_1, self.read_2, self.read_3)
        x0, x1, x2, x3 = (read.readoper(output, grid) for read, output in zip(reads, tokens, strict=True))
        # a 1 × 1 convolution before nearest enlargement is the same and twelve times cheaper
        x0 = F.interpolate(self.read_0.sample(x0), scale_factor=PATCH_PX / CELL_PX, mode="nearest")
        return x0, self.read_1.sample(x1), x2, x3


class ConvBranch(nn.Module):
    """Two convolutions added to the rectified input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(channels, channels), conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # the shortcut carries the rectified input: the published network was trained so
        rectified = F.relu(x)
        return rectified + self.conv2(F.relu(self.conv1(rectified)))


class Fuse(nn.Module):
    """A coarse map, with a finer one added and its size if there is one."""

    def __init__(self, channels: int, outputs: int, *, skip: bool) -> None:
        super().__init__()
        if skip:
            self.way_branch = ConvBranch(channels)
        self.way_trunk = ConvBranch(channels)
        self.out_conv = nn.Conv2d(channels, outputs, 1)

    def forward(self, trunk: Tensor, skip: Tensor | None = None, size: torch.Size | None = None) -> Tensor:
        if skip is not None:
            trunk = trunk + self.way_branch(skip)
        # a 1 × 1 convolution and bilinear enlargement commute: convolve while the map is small
        trunk = self.out_conv(self.way_trunk(trunk))
        return trunk if size is None else resized(trunk, size)


class FuseMaps(nn.Module):
    """Maps from coarse to fine (DPT): features, confidence and certainty at 4 px."""

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        middle = config.feature_dims[1]
        self.upconv_3 = Fuse(config.embed_dim, config.embed_dim, skip=False)
        self.upconv_2 = Fuse(config.embed_dim, middle, skip=True)
        self.upconv_1 = Fuse(middle, config.decoder_dim + 2, skip=True)

    def forward(self, x0: Tensor, x1: Tensor, x2: Tensor, x3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        trunk = self.upconv_2(self.upconv_3(x3), x2, x1.shape[-2:])
        trunk = self.upconv_1(trunk, x1, x0.shape[-2:])
        return trunk[:, :-2], trunk[:, -2:-1], trunk[:, -1:]
