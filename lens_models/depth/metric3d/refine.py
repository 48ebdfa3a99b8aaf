"""The second half of Metric3Dv2: a first guess of depth and normals, corrected by recurrent units.

Three hidden maps at a patch, half a patch and 4 px look at the state and at each other; after every round
they correct the state, and at the end each 4 px cell is spread over its pixels. Attribute names are those
of the checkpoints, whose 04, 08 and 16 count from fine to coarse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import precise

#: Channels of the state: depth, confidence, normal x, y, z, certainty of the normal.
STATE = 6
#: Pixels per side that one cell of the state covers.
CELL_PX = 4
_NEIGHBOURS = 9

#: For each level of the hidden maps, from fine to coarse, what the context adds to z, r and q.
Context = tuple[tuple[Tensor, Tensor, Tensor], ...]


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """3 × 3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def resized(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bilinear with the corners kept on the corners, as everywhere in this network."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def unit_normal(normal: Tensor, certainty: Tensor) -> Tensor:
    """Normals of length 1 and a certainty above 0.01, `(B, 4, H, W)`, of `(B, 3 and 1, H, W)`."""
    length = torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    return torch.cat([normal / (length + 1e-10), F.elu(certainty) + 1.01], dim=1)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(inputs, outputs), conv3(outputs, outputs)
        self.norm1, self.norm2 = ChannelNorm(outputs), ChannelNorm(outputs)
        self.downsample = None
        if inputs != outputs:
            # one norm under two names: the checkpoints hold it twice
            self.norm3 = ChannelNorm(outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


class ContextEncoder(nn.Module):
    """From each map two heads: how the hidden map starts, and what the recurrent unit always sees."""

    def __init__(self, inputs: tuple[int, int, int], hidden: int) -> None:
        super().__init__()

        def heads(channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(ResidualBlock(channels, hidden), conv3(hidden, hidden)) for _ in range(2)
            )

        self.outputs04, self.outputs08, self.outputs16 = map(heads, inputs)

    def forward(self, *maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        levels = zip((self.outputs04, self.outputs08, self.outputs16), maps, strict=True)
        return [(torch.tanh(heads[0](x)), F.relu(heads[1](x))) for heads, x in levels]


class ConvGRU(nn.Module):
    """Gated recurrent unit over maps."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (conv3(hidden + inputs, hidden) for _ in range(3))

    def forward(self, h: Tensor, context: tuple[Tensor, Tensor, Tensor], *inputs: Tensor) -> Tensor:
        update, reset, candidate = context
        joined = torch.cat([h, *inputs], dim=1)
        z = torch.sigmoid(self.convz(joined) + update)
        r = torch.sigmoid(self.convr(joined) + reset)
        q = torch.tanh(self.convq(torch.cat([r * h, *inputs], dim=1)) + candidate)
        return (1 - z) * h + z * q


class StateHead(nn.Module):
    """Correction of the state that a hidden map asks for."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv1d, self.conv2d = conv3(hidden, hidden), conv3(hidden, 2)
        self.conv1n, self.conv2n = conv3(hidden, hidden), conv3(hidden, 4)

    def forward(self, h: Tensor) -> Tensor:
        depth = self.conv2d(F.relu(self.conv1d(h)))
        return torch.cat([depth, self.conv2n(F.relu(self.conv1n(h)))], dim=1)


class UpdateBlock(nn.Module):
    """One round of the recurrent units, coarse levels more often than fine ones."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru08 = ConvGRU(hidden, STATE + hidden)
        self.gru16 = ConvGRU(hidden, 2 * hidden)
        self.gru32 = ConvGRU(hidden, hidden)
        self.flow_head = StateHead(hidden)
        self.mask = nn.Sequential(
            conv3(hidden, hidden), nn.ReLU(), nn.Conv2d(hidden, _NEIGHBOURS * CELL_PX**2, 1)
        )

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor, state: Tensor, context: Context
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The three hidden maps and the state after one round.

        The units' names are one level coarser than the maps they keep. The state keeps its own
        precision: in bfloat16 a step of it would be 0.8 m.
        """
        coarse = self.gru32(coarse, context[2], _pooled(middle))
        coarse = self.gru32(coarse, context[2], _pooled(middle))
        middle = self._middle(fine, middle, coarse, context)
        coarse = self.gru32(coarse, context[2], _pooled(middle))
        middle = self._middle(fine, middle, coarse, context)
        fine = self.gru08(fine, context[0], state.to(fine), resized(middle, fine.shape[-2:]))
        return fine, middle, coarse, state + self.flow_head(fine).to(state)

    def _middle(self, fine: Tensor, middle: Tensor, coarse: Tensor, context: Context) -> Tensor:
        size = middle.shape[-2:]
        return self.gru16(middle, context[1], resized(_pooled(fine), size), resized(coarse, size))

    def spread(self, fine: Tensor, state: Tensor) -> Tensor:
        """The state at 4 × its size: each pixel is a mixture of the nine cells around it."""
        weights = precise(0.25 * self.mask(fine)).to(state)
        weights = weights.unflatten(1, (_NEIGHBOURS, CELL_PX, CELL_PX)).softmax(dim=1)
        batch, channels, rows, columns = state.shape
        cells = F.unfold(state, 3, padding=1).view(batch, channels, _NEIGHBOURS, rows, columns)
        pixels = torch.einsum("bkijhw,bckhw->bchiwj", weights, cells)
        return pixels.reshape(batch, channels, CELL_PX * rows, CELL_PX * columns)


def _pooled(x: Tensor) -> Tensor:
    """Half the size; what lies outside counts as zero."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)
