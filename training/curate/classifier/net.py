"""Is there blur in a photo, and is it wanted? ResNeXt-50 32x4d and a feature pyramid over several views.

A view is a crop in the photo's own pixels or the whole photo made small. A crop out of the background of a
portrait is as blurred as a failed photo; only together with the other views it says which of them it is. So
the views' features are pooled before one layer decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lens_models.files import atomic
from lens_models.weights import read_weights

from ..pixels import IMAGENET

CLASSES = ("none", "desirable", "undesirable")
_EXPANSION, _STEPS = 4, 4


@dataclass(frozen=True)
class BlurNetConfig:
    """Sizes; the defaults are ResNeXt-50 32x4d.

    layers: blocks per step. width: channels of the first step within its blocks' outer ends, / 4.
    groups, group_width: of the grouped convolutions. pyramid: channels of all levels.
    """

    layers: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    groups: int = 32
    group_width: int = 4
    pyramid: int = 256


TINY = BlurNetConfig(layers=(1, 1, 1, 1), width=8, groups=2, group_width=4, pyramid=8)


class _Block(nn.Module):
    """ResNeXt's bottleneck, with torchvision's names."""

    def __init__(self, inside: int, planes: int, config: BlurNetConfig, stride: int):
        super().__init__()
        width = planes * config.group_width * config.groups // config.width
        outside = planes * _EXPANSION
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        way = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + way)


class ResNeXt(nn.Module):
    """The trunk: four levels of features, of strides 4, 8, 16 and 32."""

    def __init__(self, config: BlurNetConfig):
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        inside = config.width
        for step, count in enumerate(config.layers):
            planes = config.width * 2**step
            blocks = [_Block(inside, planes, config, 1 if step == 0 else 2)]
            inside = planes * _EXPANSION
            blocks += [_Block(inside, planes, config, 1) for _ in range(count - 1)]
            setattr(self, f"layer{step + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        levels = []
        for step in range(_STEPS):
            x = getattr(self, f"layer{step + 1}")(x)
            levels.append(x)
        return levels


class Pyramid(nn.Module):
    """Top-down sums of all levels, with torchvision's names."""

    def __init__(self, inside: Sequence[int], channels: int):
        super().__init__()
        self.inner_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(c, channels, 1)) for c in inside])
        self.layer_blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in inside]
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = []
        above = None
        blocks = list(zip(levels, self.inner_blocks, self.layer_blocks, strict=True))
        for level, inner, layer in reversed(blocks):
            here = inner(level)
            if above is not None:
                here = here + functional.interpolate(above, size=here.shape[-2:])
            above = here
            outputs.insert(0, layer(here))
        return outputs


class BlurNet(nn.Module):
    """The three-way head over all views, and a map of where each view is blurred, which helps to learn."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: BlurNetConfig | None = None):
        super().__init__()
        self.config = config = config or BlurNetConfig()
        self.body = ResNeXt(config)
        widths = [config.width * 2**step * _EXPANSION for step in range(_STEPS)]
        self.fpn = Pyramid(widths, config.pyramid)
        half = max(1, config.pyramid // 2)
        self.map_head = nn.Sequential(
            nn.Conv2d(config.pyramid, half, 3, padding=1), nn.ReLU(), nn.Conv2d(half, 1, 1)
        )
        # average and maximum over the area; of the thumbnail, and mean and maximum over the crops
        self.head = nn.Linear(_STEPS * config.pyramid * 2 * 3, len(CLASSES))
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """views: sRGB 0..1 `(B, V, 3, S, S)`, V ≥ 2, the first one the thumbnail.

        Returns logits `(B, 3)` and logits of the blur maps `(B, V, S/4, S/4)`, above 0 for blurred.
        """
        if views.ndim != 5 or views.shape[1] < 2:
            raise ValueError(
                f"The views must be (batch, thumbnail and crops, 3, side, side); they are "
                f"{tuple(views.shape)}."
            )
        batch, count = views.shape[:2]
        levels = self.fpn(self.body((views.flatten(0, 1) - self.mean) / self.std))
        pooled = torch.cat([p for x in levels for p in (x.mean((2, 3)), x.amax((2, 3)))], dim=1)
        pooled = pooled.unflatten(0, (batch, count))
        whole, crops = pooled[:, 0], pooled[:, 1:]
        logits = self.head(torch.cat([whole, crops.mean(1), crops.amax(1)], dim=1))
        return logits, self.map_head(levels[0]).squeeze(1).unflatten(0, (batch, count))


@dataclass(frozen=True)
class Calibration:
    """temperature: divides the logits. thresholds: least probability of each class to be given to a photo."""

    temperature: float = 1.0
    thresholds: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def probabilities(self, logits: Tensor) -> Tensor:
        """`(..., 3)`."""
        return (logits.float() / self.temperature).softmax(-1)

    def predict(self, probabilities: Sequence[float]) -> str | None:
        """The most probable class, or None where it is not certain enough.

        >>> Calibration().predict([0.6, 0.3, 0.1]), Calibration().predict([0.4, 0.3, 0.3])
        ('none', None)
        """
        best = max(range(len(CLASSES)), key=lambda k: probabilities[k])
        return CLASSES[best] if probabilities[best] >= self.thresholds[best] else None


def save_blur_net(network: BlurNet, calibration: Calibration, path: str | Path) -> None:
    """Weights, sizes and calibration in one .safetensors file."""
    from safetensors.torch import save_file

    about = {"config": asdict(network.config), "calibration": asdict(calibration)}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic(path) as part:
        save_file(tensors, part, metadata={"blur_net": json.dumps(about)})


def load_blur_net(path: str | Path) -> tuple[BlurNet, Calibration]:
    """What `save_blur_net` wrote. Raises FileNotFoundError, and ValueError for other files."""
    weights = read_weights(path)
    try:
        about: dict[str, Any] = json.loads(weights.metadata["blur_net"])
        sizes, fitted = about["config"], about["calibration"]
        calibration = Calibration(fitted["temperature"], tuple(fitted["thresholds"]))
        network = BlurNet(BlurNetConfig(**sizes | {"layers": tuple(sizes["layers"])}))
        network.load_state_dict(dict(weights.tensors))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{weights.name} is no blur network of train-blur ({error}): train one, or set blur.skip."
        ) from error
    return network, calibration


def load_trunk(network: BlurNet, path: str | Path) -> None:
    """Put torchvision's weights of ResNeXt-50 32x4d into the trunk; its last layer is left out.

    Raises FileNotFoundError and ValueError.
    """
    weights = read_weights(path)
    trunk = {name: t for name, t in weights.tensors.items() if not name.startswith("fc.")}
    try:
        network.body.load_state_dict(trunk)
    except RuntimeError as error:
        raise ValueError(
            f"{weights.name} is not ResNeXt-50 32x4d with torchvision's names: {error}"
        ) from error
