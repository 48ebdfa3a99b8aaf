"""Content consistency: do the pictures of a sweep show the same things in the same places?

Every pixel has a set of labels, in the paper the three that a segmentation finds likeliest. A pixel of a
pair of pictures counts 1 where the two sets have a label in common, and the score is the mean over pixels
and pairs. The paper measures f/4 to f/22, six stops, and does not say which pictures make a pair: neighbours
are the default here, all pairs and a comparison with one reference are there as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor

PAIRINGS = ("adjacent", "all", "reference")
#: Stands in a label map where there is no label, or not so many.
UNLABELLED = -1
#: Labels that the paper keeps of each pixel, and the apertures it compares.
LABELS_KEPT = 3
F_NUMBERS = (4.0, 5.6, 8.0, 11.0, 16.0, 22.0)
_CODES = 1 << 16


@dataclass(frozen=True)
class Consistency:
    """pairs: places of the two pictures in the sweep. shares: of pixels that agree, 0..1, one per pair."""

    pairs: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]

    @property
    def score(self) -> float:
        """Mean share of pixels that agree, 0..1."""
        return sum(self.shares) / len(self.shares)


def content_consistency(labels: Tensor, pairing: str = "adjacent", reference: int = -1) -> Consistency:
    """Content Consistency of one sweep.

    labels: `(N, K, H, W)` whole numbers, up to K labels of each pixel of N pictures in any order, or
        `(N, H, W)` for one label each. `UNLABELLED` (or any negative number) is no label.
    pairing: "adjacent" compares neighbours, "all" every two pictures, "reference" all with picture
        `reference` (the last: the smallest aperture of a sweep in order of f-number).
    A pixel that has no label in either picture is left out, one that has labels in only one counts 0.
    Raises ValueError for fewer than two pictures, numbers that are not whole, an unknown pairing or
    reference, and pairs that have no label at all.
    """
    if labels.ndim == 3:
        labels = labels[:, None]
    if labels.ndim != 4 or 0 in labels.shape:
        raise ValueError(
            "Labels are (pictures, height, width) or (pictures, labels per pixel, height, width); these are "
            f"{tuple(labels.shape)}."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"Labels are whole numbers, not {labels.dtype}: see label_codes for pictures.")
    pairs = _pairs(len(labels), pairing, reference)
    return Consistency(pairs, tuple(_share_agreeing(labels[a], labels[b], (a, b)) for a, b in pairs))


def sets_meet(a: Tensor, b: Tensor) -> Tensor:
    """Where two sets of labels have one in common: `(K, H, W)` and `(M, H, W)` to `(H, W)` bool."""
    met = torch.zeros(a.shape[1:], dtype=torch.bool, device=a.device)
    for one in a:
        for other in b:
            met |= (one == other) & (one >= 0)
    return met


def top_labels(scores: Tensor, count: int = LABELS_KEPT) -> Tensor:
    """The `count` classes with the highest score, highest first: `(B, classes, H, W)` to `(B, count, H, W)`.

    With fewer classes than `count` the rest is `UNLABELLED`.
    """
    if count < 1:
        raise ValueError(f"At least 1 label is kept of each pixel, not {count}.")
    best = scores.topk(min(count, scores.shape[1]), dim=1).indices
    missing = count - best.shape[1]
    return torch.nn.functional.pad(best, (0, 0, 0, 0, 0, missing), value=UNLABELLED) if missing else best


def label_codes(maps: Tensor) -> Tensor:
    """Whole numbers for the values or colours of label maps: equal ones are the same label.

    maps: `(B, H, W)`, or `(B, H, W, C)` with C = 1, 3 or 4 (alpha is left out), 0..1, told apart in steps of
    1/65535. Black is a label like any other. Returns `(B, H, W)` int64.
    """
    if maps.ndim == 3:
        maps = maps[..., None]
    if maps.ndim != 4 or 0 in maps.shape or maps.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "Label maps are (batch, height, width), or have 1, 3 or 4 channels last; these are "
            f"{tuple(maps.shape)}."
        )
    steps = torch.nan_to_num(maps[..., :3].double()).clamp(0.0, 1.0).mul(_CODES - 1).round().long()
    if steps.shape[-1] == 1:
        steps = steps.expand(*steps.shape[:-1], 3)
    red, green, blue = steps.unbind(dim=-1)
    return (red * _CODES + green) * _CODES + blue


def _pairs(count: int, pairing: str, reference: int) -> tuple[tuple[int, int], ...]:
    if pairing not in PAIRINGS:
        raise ValueError(f'Unknown pairing "{pairing}": use one of {", ".join(PAIRINGS)}.')
    if count < 2:
        raise ValueError(
            f"Content consistency compares pictures, so it needs at least 2 of them; there is {count}."
        )
    places: Sequence[int] = range(count)
    if pairing == "adjacent":
        return tuple(pairwise(places))
    if pairing == "all":
        return tuple(combinations(places, 2))
    if not -count <= reference < count:
        raise ValueError(f"There is no picture {reference} to compare with among {count} pictures.")
    chosen = places[reference]
    return tuple((place, chosen) for place in places if place != chosen)


def _share_agreeing(a: Tensor, b: Tensor, pair: tuple[int, int]) -> float:
    labelled = (a >= 0).any(dim=0) | (b >= 0).any(dim=0)
    pixels = labelled.sum().item()
    if not pixels:
        raise ValueError(
            f"Pictures {pair[0] + 1} and {pair[1] + 1} have no label anywhere: there is nothing to compare."
        )
    return sets_meet(a, b).sum().item() / pixels
