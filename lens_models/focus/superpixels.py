"""Superpixels (SLIC, Achanta et al. 2012) and the graph of which touch: small pieces that keep to edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Superpixels:
    """Pieces of one picture.

    labels: `(H, W)` int64, 0..n-1.
    features: `(n, C)`, mean of the pixels' features.
    position: `(n, 2)`, mean x and y, each 0..1.
    area: `(n,)` share of the picture's pixels.
    border: `(n, 4)` share of the picture's left, right, top and bottom edge that a piece holds.
    touching: `(n, n)` bool.
    """

    labels: Tensor
    features: Tensor
    position: Tensor
    area: Tensor
    border: Tensor
    touching: Tensor


def superpixels(features: Tensor, count: int, compactness: float) -> Superpixels:
    """Cut a picture into about `count` pieces of alike features.

    features: `(C, H, W)`, in units in which 1 is a clear difference.
    compactness: how much a whole piece's width in distance weighs against a difference of 1.
    """
    _, height, width = features.shape
    step = (height * width / count) ** 0.5
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = torch.meshgrid(
        torch.arange(height, dtype=features.dtype, device=features.device),
        torch.arange(width, dtype=features.dtype, device=features.device),
        indexing="ij",
    )
    points = torch.cat([features, torch.stack([x, y]) * (compactness / step)]).flatten(1).T
    row = (y / height * rows).long().flatten()
    column = (x / width * columns).long().flatten()
    labels = row * columns + column
    total = rows * columns
    # a pixel may go to the pieces of the 3 × 3 cells around it
    around = torch.tensor([(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)], device=features.device)
    near_row = (row[:, None] + around[:, 0]).clamp(0, rows - 1)
    near_column = (column[:, None] + around[:, 1]).clamp(0, columns - 1)
    candidates = near_row * columns + near_column
    for _ in range(_ROUNDS):
        centres = _means(points, labels, total)[0]
        away = (points[:, None] - centres[candidates]).square().sum(dim=-1)
        labels = candidates.gather(1, away.argmin(dim=1, keepdim=True))[:, 0]

    labels = torch.unique(labels, return_inverse=True)[1]  # pieces that lost every pixel are gone
    total = int(labels.max()) + 1
    place = torch.stack([(x + 0.5) / width, (y + 0.5) / height]).flatten(1).T
    means, sizes = _means(torch.cat([features.flatten(1).T, place], dim=1), labels, total)
    labels = labels.reshape(height, width)
    edges = (labels[:, 0], labels[:, -1], labels[0], labels[-1])
    shares = [torch.bincount(edge, minlength=total).to(means.dtype) / edge.numel() for edge in edges]
    return Superpixels(
        labels,
        means[:, :-2],
        means[:, -2:],
        sizes / (height * width),
        torch.stack(shares, dim=1),
        _touching(labels, total),
    )


def _means(values: Tensor, labels: Tensor, total: int) -> tuple[Tensor, Tensor]:
    sizes = torch.bincount(labels, minlength=total).to(values.dtype)
    sums = values.new_zeros(total, values.shape[1]).index_add_(0, labels, values)
    return sums / sizes.clamp_min(1.0)[:, None], sizes


def _touching(labels: Tensor, total: int) -> Tensor:
    touching = torch.zeros(total, total, dtype=torch.bool, device=labels.device)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        touching[one.flatten(), other.flatten()] = True
    touching |= touching.T.clone()
    touching.fill_diagonal_(False)
    return touching
