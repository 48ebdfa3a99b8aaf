"""Segmentation networks of the transformers library: MaskFormer and its descendants.

They come as folders with a config.json, and nothing is downloaded. This is the fast way to the label sets of
content consistency: the classes with the highest scores of one network. The paper's sets come from Semantic
Segment Anything, which joins several networks (see semantic_sam), so its figures are not to be compared with
these.

The pictures are prepared here, in torch: the library's own image processors need torchvision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lens_models.metrics.consistency import LABELS_KEPT, top_labels

from .preparation import Preparation, from_folder

#: Classes of the library by its name for the kind.
KINDS = {
    "maskformer": "MaskFormerForInstanceSegmentation",
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
}
_TASK = "the task is semantic"


class TransformersSegmenter:
    """A segmentation network that answers with the likeliest classes of each pixel."""

    def __init__(self, network: Any, preparation: Preparation, task: Tensor | None = None) -> None:
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
        """Likeliest labels of each pixel, `(B, count, H, W)` int64, `UNLABELLED` where there are fewer.

        srgb: `(B, 3, H, W)`, 0..1; one picture at a time, since every class has a map of full size.
        """
        device = next(self.network.parameters()).device
        found = []
        with torch.inference_mode():
            for picture in srgb:
                scores = self.class_scores(picture[None].to(device))
                size = picture.shape[-2:]
                scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
                found.append(top_labels(scores, count).to(srgb.device))
        return torch.cat(found)


def load_transformers_segmenter(folder: str | Path) -> TransformersSegmenter:
    """The segmentation network in a folder of the transformers library; nothing is downloaded.

    Raises FileNotFoundError when there is no config.json, ValueError for another kind of network or without
    transformers.
    """
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
    network, task = from_folder(getattr(transformers, KINDS[kind]), folder), None
    if kind == "oneformer":  # padding is 0 whatever the tokenizer pads with
        tokens = from_folder(transformers.AutoTokenizer, folder)(
            _TASK, padding="max_length", max_length=network.config.task_seq_len, truncation=True
        )
        task = torch.tensor(tokens["input_ids"])[None] * torch.tensor(tokens["attention_mask"])[None]
    return TransformersSegmenter(network.requires_grad_(False), Preparation.read(folder), task)
