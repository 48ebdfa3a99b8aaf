"""Segmentation networks of the transformers library behind `Segmenter`: MaskFormer and its descendants.

They come as folders with a config.json, and nothing is downloaded. This is the fast way to the label sets of
content consistency: the classes with the highest scores of one network. The paper's sets come from Semantic
Segment Anything, which joins several networks (see semantic_sam), so its figures are not to be compared with
these.

The pictures are prepared here, in torch: the library's own image processors need torchvision.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens_models.metrics.consistency import LABELS_KEPT, top_labels

if TYPE_CHECKING:
    from .semantic_sam import SemanticSam, SemanticSamOptions

#: Kinds by the library's name for them.
KINDS = ("maskformer", "mask2former", "oneformer")
_TASK = "the task is semantic"
_SHORTEST, _LONGEST, _MULTIPLE = 800, 1333, 32
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Of PIL's ways to resize, those that torch has, by PIL's numbers.
_RESAMPLED = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Preparation:
    """shortest, longest: sides that the network sees, px; height, width: instead, a fixed size.

    multiple: sides are rounded up to multiples of this, px. mean, deviation: for colours 0..1. resampled:
    "bilinear" or "bicubic". middle: (height, width) of the middle that is cut out afterwards, px; None keeps
    all.
    """

    shortest: int = _SHORTEST
    longest: int = _LONGEST
    height: int = 0
    width: int = 0
    multiple: int = _MULTIPLE
    mean: tuple[float, ...] = _MEAN
    deviation: tuple[float, ...] = _DEVIATION
    resampled: str = "bilinear"
    middle: tuple[int, int] | None = None

    @classmethod
    def read(cls, folder: Path, usual: Preparation | None = None) -> Preparation:
        """From preprocessor_config.json where the folder has one, else as most are published.

        usual: what stands where the file says nothing; not given, that of MaskFormer and its descendants.
        """
        usual = cls() if usual is None else usual
        path = folder / "preprocessor_config.json"
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        told = told.get("image_processor", told)
        size = told.get("size")
        size = {"shortest_edge": size} if isinstance(size, int) else (size or {})
        if not size:
            size = {"height": usual.height, "width": usual.width}
        multiple = told.get("size_divisor", usual.multiple)
        middle = told.get("crop_size")
        middle = {"height": middle, "width": middle} if isinstance(middle, int) else middle
        cut = usual.middle is not None and told.get("do_center_crop", True)
        return cls(
            int(size.get("shortest_edge") or usual.shortest),
            int(size.get("longest_edge") or told.get("max_size") or usual.longest),
            int(size.get("height") or 0),
            int(size.get("width") or 0),
            int(multiple or 1),
            tuple(told.get("image_mean") or usual.mean),
            tuple(told.get("image_std") or usual.deviation),
            _RESAMPLED.get(told.get("resample"), usual.resampled),
            ((middle["height"], middle["width"]) if middle else usual.middle) if cut else None,
        )

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which a picture is shown to the network, before its middle is cut out."""
        if self.height and self.width:
            rows, columns = self.height, self.width
        else:
            scale = min(self.shortest / min(height, width), self.longest / max(height, width))
            rows, columns = (max(1, int(side * scale + 1e-6)) for side in (height, width))
        return tuple(math.ceil(side / self.multiple) * self.multiple for side in (rows, columns))

    def shown(self, srgb: Tensor) -> Tensor:
        """sRGB 0..1 `(B, 3, H, W)` as the network gets it."""
        size = self.seen_size(*srgb.shape[-2:])
        resized = F.interpolate(srgb, size=size, mode=self.resampled, align_corners=False, antialias=True)
        if self.middle is not None:
            rows, columns = self.middle
            top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
            resized = resized[..., top : top + rows, left : left + columns]
        return self.normal(resized.clamp(0.0, 1.0))

    def normal(self, srgb: Tensor) -> Tensor:
        """Colours 0..1 `(B, 3, H, W)` less the mean, over the deviation."""
        mean, deviation = (srgb.new_tensor(c).view(1, 3, 1, 1) for c in (self.mean, self.deviation))
        return (srgb - mean) / deviation


class TransformersSegmenter:
    """A segmentation network that answers with the likeliest classes of each pixel."""

    def __init__(self, network: nn.Module, preparation: Preparation, task: Tensor | None = None) -> None:
        """task: `(1, tokens)`, what OneFormer is asked; None for other networks."""
        self.network, self.preparation, self.task = network.eval(), preparation, task

    @property
    def classes(self) -> dict[int, str]:
        """Names of the labels, where the folder tells them."""
        return {int(number): name for number, name in self.network.config.id2label.items()}

    def class_scores(self, srgb: Tensor) -> Tensor:
        """Σ over queries of p(class) · p(pixel), `(B, classes, h, w)` at the network's own resolution.

        srgb: `(B, 3, H, W)`, 0..1. As in MaskFormer (Cheng et al. 2021), semantic inference.
        """
        more = {} if self.task is None else {"task_inputs": self.task.expand(len(srgb), -1).to(srgb.device)}
        out = self.network(pixel_values=self.preparation.shown(srgb.float()), **more)
        likely = out.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # the last class is "nothing"
        return torch.einsum("bqc,bqhw->bchw", likely, out.masks_queries_logits.float().sigmoid())

    def top_labels(self, srgb: Tensor, count: int = LABELS_KEPT) -> Tensor:
        """As `Segmenter.top_labels`; one picture at a time, since every class has a map of full size."""
        device = next(self.network.parameters()).device
        found = []
        with torch.inference_mode():
            for picture in srgb:
                scores = self.class_scores(picture[None].to(device))
                size = picture.shape[-2:]
                scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
                found.append(top_labels(scores, count).to(srgb.device))
        return torch.cat(found)


def load_segmenter(folder: str | Path | SemanticSamOptions) -> TransformersSegmenter | SemanticSam:
    """The segmentation network in a folder of the transformers library; nothing is downloaded.

    folder: or the options of Semantic Segment Anything, for all of its networks.
    Raises FileNotFoundError when there is no config.json, ValueError for another kind of network or without
    transformers.
    """
    if not isinstance(folder, (str, Path)):
        from .semantic_sam import load_semantic_sam

        return load_semantic_sam(folder)
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"There is no {config}: give the folder of a segmentation network, with config.json and weights."
        )
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type", "nothing named")
    if kind not in KINDS:
        raise ValueError(
            f"{folder.name} is a network of kind {kind}; segmentation is understood of {', '.join(KINDS)}."
        )
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "Segmentation networks need the transformers library: pip install transformers."
        ) from error
    loader = {
        "maskformer": "MaskFormerForInstanceSegmentation",
        "mask2former": "Mask2FormerForUniversalSegmentation",
        "oneformer": "OneFormerForUniversalSegmentation",
    }[kind]
    network = getattr(transformers, loader).from_pretrained(folder, local_files_only=True)
    task = _task_tokens(folder, network.config.task_seq_len) if kind == "oneformer" else None
    return TransformersSegmenter(network.requires_grad_(False), Preparation.read(folder), task)


def _task_tokens(folder: Path, length: int) -> Tensor:
    """OneFormer's question as `(1, length)`; padding is 0 whatever the tokenizer pads with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    told = tokenizer(_TASK, padding="max_length", max_length=length, truncation=True)
    return torch.tensor(told["input_ids"])[None] * torch.tensor(told["attention_mask"])[None]
