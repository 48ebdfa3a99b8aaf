"""The features FID is made of: Inception-v3 as ported from the TensorFlow network of 2015.

Layers (Szegedy et al. 2016) and key names are those of torchvision's Inception-v3, so files of either load.
It is not torchvision's network, though: the port leaves padding out of its average pooling and has a maximum
where torchvision has an average in the pooling branch of its last block, Mixed_7c. With torchvision's own
weights the result would be another number than the published FID: `pt_inception-2015-12-05-6726825d.pth` of
the pytorch-fid project holds the port's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens_models.weights import load_strict, read_weights

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE_PX = 299
#: What files hold beside the features: the classifiers, and how many batches the norms have seen.
_LEFT_OUT = ("fc.", "AuxLogits.")
_COUNTER = ".num_batches_tracked"
_LANDMARK = "Mixed_7c.branch_pool.conv.weight"


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU; padding keeps the size where the stride is 1."""

    def __init__(self, into: int, out: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = True):
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else 0
        self.conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _smaller(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class _BlockA(nn.Module):
    def __init__(self, into: int, pooled: int):
        super().__init__()
        self.branch1x1 = _Conv(into, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Conv(into, 48, 1), _Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(into, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3)
        self.branch_pool = _Conv(into, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], dim=1)


class _BlockB(nn.Module):
    def __init__(self, into: int):
        super().__init__()
        self.branch3x3 = _Conv(into, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(into, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _smaller(x)], dim=1)


class _BlockC(nn.Module):
    def __init__(self, into: int, inner: int):
        super().__init__()
        self.branch1x1 = _Conv(into, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = _Conv(into, inner, 1), _Conv(inner, inner, (1, 7))
        self.branch7x7_3 = _Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(into, inner, 1), _Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _Conv(inner, inner, (1, 7)), _Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = _Conv(inner, 192, (1, 7))
        self.branch_pool = _Conv(into, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], dim=1)


class _BlockD(nn.Module):
    def __init__(self, into: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(into, 192, 1), _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(into, 192, 1), _Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = _Conv(192, 192, (7, 1)), _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, _smaller(x)], dim=1)


class _BlockE(nn.Module):
    def __init__(self, into: int, *, largest: bool):
        super().__init__()
        self.largest = largest
        self.branch1x1 = _Conv(into, 320, 1)
        self.branch3x3_1 = _Conv(into, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(into, 448, 1), _Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch_pool = _Conv(into, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.largest else _average(x)
        parts = [
            self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled),
        ]  # fmt: skip
        return torch.cat(parts, dim=1)


class FIDInception(nn.Module):
    """Pictures to the 2048 features of FID; born without weights that mean anything, see `load_inception`."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _BlockA(192, 32), _BlockA(256, 64), _BlockA(288, 64)
        self.Mixed_6a = _BlockB(288)
        self.Mixed_6b, self.Mixed_6c = _BlockC(768, 128), _BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = _BlockC(768, 160), _BlockC(768, 192)
        self.Mixed_7a = _BlockD(768)
        self.Mixed_7b, self.Mixed_7c = _BlockE(1280, largest=False), _BlockE(2048, largest=True)

    def forward(self, srgb: Tensor) -> Tensor:
        """`(B, 3, H, W)` 0..1, of any size, to `(B, 2048)`; shown at 299 × 299 px in −1..1."""
        size = (SIDE_PX, SIDE_PX)
        x = 2.0 * F.interpolate(srgb, size=size, mode="bilinear", align_corners=False) - 1.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_smaller(x)))
        x = _smaller(x)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean(dim=(-2, -1))


def load_inception(source: str | Path | Mapping[str, Any]) -> FIDInception:
    """FID's Inception-v3 from a .pth or .safetensors file, or from a state dict; classifiers are left out.

    The file decides what the number is: see above. Raises FileNotFoundError, and ValueError for a file that
    is damaged or something else.
    """
    read = read_weights(source)
    found = {
        key: value.float()
        for key, value in read.tensors.items()
        if not key.startswith(_LEFT_OUT) and not key.endswith(_COUNTER)
    }
    if _LANDMARK not in found:
        raise ValueError(
            f"{read.name} is not Inception-v3 with torchvision's names: there is no {_LANDMARK} in it. The "
            f"file is usually called {WEIGHTS_FILE}."
        )
    with torch.device("meta"):
        network = FIDInception()
    # only training counts, and not every file has the counters
    found |= {key: torch.zeros(()) for key in network.state_dict() if key.endswith(_COUNTER)}
    load_strict(network, found, f"{read.name}, taken for Inception-v3,")
    return network.eval().requires_grad_(False)
