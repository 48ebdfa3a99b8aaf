"""LPIPS v0.1 on AlexNet (Zhang et al. 2018): how different two pictures look, from files of the user's own.

d(x, y) = Σ_l mean_hw Σ_c w_lc (x̂_lhwc − ŷ_lhwc)²  with x̂_l the activations after the l-th ReLU, divided by
their length over the channels, and w_l ≥ 0 learned from people's judgements.

The network has the layout and key names of torchvision's AlexNet, the weights w_l those of the lpips package.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..camera import broadcast_batch
from ..weights import load_strict, read_weights

#: Channels after each of the five ReLUs.
CHANNELS = (64, 192, 384, 256, 256)
TRUNK_FILE, HEADS_FILE = "alexnet-owt-7be5be79.pth", "alex.pth"
#: Smallest side of which anything is left before the last convolution, px.
SMALLEST_PX = 31
_TRUNK, _HEADS = "features.", "lin"
#: Mean and deviation that pictures in −1..1 are brought to: ImageNet's for 0..1, twice as far apart.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPS = 1e-10


class LPIPS(nn.Module):
    """The distance; born without weights that mean anything, see `load_lpips`."""

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(3, one, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(one, two, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(two, three, 3, padding=1), nn.ReLU(),
            nn.Conv2d(three, four, 3, padding=1), nn.ReLU(),
            nn.Conv2d(four, five, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        for place, channels in enumerate(CHANNELS):
            # an nn.Sequential with one place empty gives the published key, lin0.model.1.weight
            head = nn.Module()
            head.model = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})
            setattr(self, f"{_HEADS}{place}", head)

    def activations(self, srgb: Tensor) -> list[Tensor]:
        """After each ReLU, of unit length over the channels; srgb: `(B, 3, H, W)`, 0..1."""
        shift, scale = (srgb.new_tensor(c).view(1, 3, 1, 1) for c in (_SHIFT, _SCALE))
        x, outputs = (2.0 * srgb - 1.0 - shift) / scale, []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                outputs.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + _EPS))
        return outputs

    def forward(self, srgb: Tensor, other: Tensor) -> Tensor:
        """Distance of each pair, `(B,)`; srgb, other: `(B, 3, H, W)`, 0..1, or one of them `(1, 3, H, W)`.

        Raises ValueError when sizes or batches do not go together, or a side is too short to see.
        """
        broadcast_batch(pictures=len(srgb), others=len(other))
        (height, width), size = srgb.shape[-2:], tuple(other.shape[-2:])
        if (height, width) != size:
            raise ValueError(
                f"LPIPS compares pictures of one size: these are {width} × {height} px and "
                f"{size[1]} × {size[0]} px."
            )
        if min(height, width) < SMALLEST_PX:
            raise ValueError(
                f"LPIPS needs pictures of at least {SMALLEST_PX} × {SMALLEST_PX} px; these are "
                f"{width} × {height} px."
            )
        total = srgb.new_zeros(())
        for place, (a, b) in enumerate(zip(self.activations(srgb), self.activations(other), strict=True)):
            head = getattr(self, f"{_HEADS}{place}").model["1"]
            total = total + head((a - b).square()).mean(dim=(1, 2, 3))
        return total


def load_lpips(trunk: str | Path | Mapping[str, Any], heads: str | Path | Mapping[str, Any]) -> LPIPS:
    """LPIPS from AlexNet's weights and the heads of the lpips package; both .pth or .safetensors.

    trunk: torchvision's AlexNet, whole or its convolutions alone. heads: v0.1, lin0 to lin4.
    Raises FileNotFoundError, and ValueError for files that are damaged or something else.
    """
    weights = {}
    for source, prefix, what in ((trunk, _TRUNK, "AlexNet"), (heads, _HEADS, "LPIPS's weights of AlexNet")):
        read = read_weights(source)
        part = {key: value.float() for key, value in read.tensors.items() if key.startswith(prefix)}
        if not part:
            raise ValueError(
                f"{read.name} holds no tensor that begins with {prefix}: it is not {what}. The files are "
                f"usually called {TRUNK_FILE} (torchvision's AlexNet) and {HEADS_FILE} (lpips, v0.1)."
            )
        weights |= part
    with torch.device("meta"):
        network = LPIPS()
    load_strict(network, weights, "AlexNet with LPIPS's weights")
    return network.eval().requires_grad_(False)


def adjacent_distances(network: LPIPS, srgb: Tensor) -> Tensor:
    """LPIPS of neighbours of a batch, `(B − 1,)`: the paper's figure is its mean over f/4 to f/22.

    srgb: `(B, 3, H, W)`, 0..1. Raises ValueError for fewer than two pictures.
    """
    if len(srgb) < 2:
        raise ValueError(f"Neighbours are at least 2 pictures; there is {len(srgb)}.")
    return torch.cat([network(a[None], b[None]) for a, b in pairwise(srgb)])
