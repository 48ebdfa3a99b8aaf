"""The masks that SAM finds by itself in a picture: Segment Anything (Kirillov et al. 2023), automatic masks.

A grid of points asks the network for three masks each. Those that it thinks good, that hardly change with the
threshold, and whose boxes another one does not cover already, are kept; specks and pinholes are removed. The
picture is looked at once: Semantic Segment Anything uses no further layers of crops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .preparation import Preparation

Progress = Callable[[str, int, int], None]
#: Masks that are brought to full size at a time.
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Which masks are kept; the values are those of Semantic Segment Anything's engine.

    points_per_side: of the grid, on either side. points_per_batch: points asked at a time. least_iou: what
    the network says of its mask, 0..1. least_stability: IoU of the masks at two thresholds, 0..1;
    stability_offset: their distance from 0, in logits. box_overlap: IoU of boxes above which the worse mask
    goes, 0..1. smallest_region: specks and holes smaller than this are removed, px; 0 leaves them.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    least_iou: float = 0.86
    least_stability: float = 0.92
    stability_offset: float = 1.0
    box_overlap: float = 0.7
    smallest_region: int = 100

    def __post_init__(self) -> None:
        unbounded = float("inf")
        for names, least, most, rule in (
            (("points_per_side", "points_per_batch"), 1, unbounded, "at least 1 is needed"),
            (("least_iou", "least_stability", "box_overlap"), 0, 1, "it must be between 0 and 1"),
            (("stability_offset", "smallest_region"), 0, unbounded, "it must not be negative"),
        ):
            for name in names:
                if not least <= getattr(self, name) <= most:
                    raise ValueError(f"{name} is {getattr(self, name)}: {rule}.")


class SamMasks:
    """A SAM of the transformers library that finds masks by itself."""

    def __init__(self, network: Any, preparation: Preparation, options: MaskOptions) -> None:
        """preparation: only its colours are used, the size is the network's own."""
        self.network, self.preparation, self.options = network.eval(), preparation, options

    def masks(self, srgb: Tensor, on_progress: Progress | None = None) -> Tensor:
        """All masks of a picture, `(N, H, W)` bool; they may overlap and need not cover the picture.

        srgb: `(1, 3, H, W)`, 0..1, on the network's device. on_progress: called with ("masks", done, total)
        batches of points; may raise to interrupt.
        """
        size, options = (srgb.shape[-2], srgb.shape[-1]), self.options
        side = self.network.config.vision_config.image_size
        seen = seen_within(*size, side)
        points = point_grid(options.points_per_side).to(srgb) * srgb.new_tensor([seen[1], seen[0]])
        with torch.inference_mode():
            resized = F.interpolate(srgb, size=seen, mode="bilinear", align_corners=False, antialias=True)
            prepared = self.preparation.normal(resized.clamp(0.0, 1.0))
            # the picture is in the upper left corner of the square that the network sees
            square = F.pad(prepared, (0, side - seen[1], 0, side - seen[0]))
            embedding = self.network.get_image_embeddings(square)
            batches = points.split(options.points_per_batch)
            found = []
            for done, batch in enumerate(batches, start=1):
                found.append(self._of_points(embedding, batch, seen, side, size))
                if on_progress is not None:
                    on_progress("masks", done, len(batches))
            logits, scores, boxes = (torch.cat(parts) for parts in zip(*found, strict=True))
            kept = nms(boxes, scores, options.box_overlap)
            masks = [wide > 0.0 for wide in _full_size(logits[kept], seen, side, size)]
            masks = torch.cat(masks) if masks else srgb.new_zeros((0, *size), dtype=torch.bool)
            return tidied(masks, options.smallest_region, options.box_overlap)

    def _of_points(
        self, embedding: Tensor, points: Tensor, seen: tuple[int, int], side: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the network's resolution, predicted IoU and boxes of what passes both thresholds."""
        out = self.network(
            image_embeddings=embedding, input_points=points[None, :, None], multimask_output=True
        )
        logits, scores = out.pred_masks[0].flatten(0, 1).float(), out.iou_scores[0].flatten().float()
        good = scores > self.options.least_iou
        logits, scores = logits[good], scores[good]
        stable, boxes = [], []
        for wide in _full_size(logits, seen, side, size):
            found = wide > 0.0
            steady = stability(wide, self.options.stability_offset) > self.options.least_stability
            stable.append(steady & found.flatten(1).any(dim=1))
            boxes.append(boxes_of(found))
        if not stable:
            return logits, scores, torch.zeros((0, 4), dtype=torch.long, device=logits.device)
        kept = torch.cat(stable)
        return logits[kept], scores[kept], torch.cat(boxes)[kept]


def point_grid(side: int) -> Tensor:
    """`side` x `side` points (x, y) in the middles of equal cells, 0..1, row by row: `(side², 2)`."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    y, x = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def seen_within(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the longer one `side`, the other rounded to the nearest pixel."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def stability(logits: Tensor, offset: float) -> Tensor:
    """IoU of the masks above +offset and above −offset: `(N, H, W)` to `(N,)`; NaN where both are empty."""
    inner, outer = ((logits > threshold).flatten(1).sum(dim=1) for threshold in (offset, -offset))
    return inner / outer


def boxes_of(masks: Tensor) -> Tensor:
    """(left, top, right, bottom) of masks `(N, H, W)`, px, right and bottom outside: `(N, 4)`; empty: 0."""
    edges = []
    for side in (masks.any(dim=1), masks.any(dim=2)):
        number = torch.arange(1, side.shape[1] + 1, device=masks.device)
        last = (side * number).amax(dim=1)
        first = side.shape[1] - (side.flip(1) * number).amax(dim=1)
        edges.append((torch.where(last > 0, first, 0), last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1)


def nms(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Non-maximum suppression: places of the boxes that stay, best score first, `(M,)` int64.

    A box goes when its IoU with a better one that stays is above `overlap`. boxes: `(N, 4)`, see `boxes_of`.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].double()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if alive[i]:
            common = torch.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
            common = (common - torch.maximum(boxes[i, :2], boxes[i + 1 :, :2])).clamp_min(0.0).prod(dim=1)
            alive[i + 1 :] &= ~(common > overlap * (area[i] + area[i + 1 :] - common))
    return order[alive]


def connected_components(mask: Tensor) -> Tensor:
    """Connected regions, corners included: `(H, W)` bool to int64, 0 outside, else one number per region."""
    from scipy import ndimage

    labels: Any = ndimage.label(mask.cpu().numpy(), structure=[[1, 1, 1]] * 3)
    return torch.from_numpy(labels[0]).long().to(mask.device)


def without_small_regions(mask: Tensor, smallest: int) -> Tensor:
    """`(H, W)` bool without holes, then specks, under `smallest` px; of specks alone the largest stays."""
    holes = connected_components(~mask)
    areas = torch.bincount(holes.flatten())
    mask = mask | ((holes > 0) & (areas[holes] < smallest))
    specks = connected_components(mask)
    areas = torch.bincount(specks.flatten())
    areas[0] = 0
    return (specks > 0) & (areas[specks] >= min(smallest, int(areas.max())))


def tidied(masks: Tensor, smallest: int, overlap: float) -> Tensor:
    """Masks `(N, H, W)` bool without small regions, and without those that this made doubles of others.

    Where two boxes have become alike, a mask that was left as it was goes before one that was changed.
    """
    if smallest < 1 or not len(masks):
        return masks
    tidy = torch.stack([without_small_regions(mask, smallest) for mask in masks])
    unchanged = (tidy == masks).flatten(1).all(dim=1)
    return tidy[nms(boxes_of(tidy), unchanged.double(), overlap)]


def _full_size(logits: Tensor, seen: tuple[int, int], side: int, size: tuple[int, int]):
    """Logits `(N, h, w)` of the square at the picture's own size, some at a time: `(n, H, W)` each."""
    for part in logits.split(_AT_ONCE) if len(logits) else ():
        wide = F.interpolate(part[:, None], size=(side, side), mode="bilinear", align_corners=False)
        wide = wide[..., : seen[0], : seen[1]]
        yield F.interpolate(wide, size=size, mode="bilinear", align_corners=False)[:, 0]
