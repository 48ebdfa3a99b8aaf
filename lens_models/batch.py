"""Pictures, distances and apertures as one batch: every combination or side by side, and what is shared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .camera import Camera, Focus, broadcast_batch
from .depth import DepthMap
from .show.sheet import captions

EVERY, SIDE = "every combination", "side by side"
ORDERS = (EVERY, SIDE)

_Part = TypeVar("_Part", Tensor, Camera, Focus, DepthMap)


@dataclass(frozen=True)
class Plan:
    """Which picture, distance and aperture each item of a batch takes, `(count,)` numbers from 0 each."""

    order: str
    picture: Tensor
    distance: Tensor
    aperture: Tensor

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.picture)

    def summary(self, picture_word: str = "picture") -> str:
        """What is combined, for people.

        >>> planned(EVERY, 2, 3, 8).summary(), planned(SIDE, 1, 4, 4).summary()
        ('2 pictures × 3 distances × 8 apertures = 48', '4 side by side: 1 picture, 4 distances, 4 apertures')
        """
        numbers = [int(part.max()) + 1 for part in (self.picture, self.distance, self.aperture)]
        words = (picture_word, "distance", "aperture")
        texts = [f"{n} {word}{'s' * (n > 1)}" for n, word in zip(numbers, words, strict=True)]
        if self.order == EVERY:
            return f"{' × '.join(texts)} = {self.count}"
        return f"{self.count} side by side: {', '.join(texts)}"


def planned(order: str, pictures: int, distances: int, apertures: int) -> Plan:
    """The batch of so many pictures, distances and apertures.

    order: "every combination" takes each with each, pictures slowest, then distances, apertures fastest;
    "side by side" takes the first with the first and so on, and 1 goes with all.
    Raises ValueError, side by side, for numbers that do not go together, and for an unknown order.
    """
    if order == EVERY:
        item = torch.arange(pictures * distances * apertures)
        return Plan(order, item // (distances * apertures), item // apertures % distances, item % apertures)
    if order != SIDE:
        raise ValueError(f'"{order}" is not an order of a batch: use one of {", ".join(ORDERS)}.')
    try:
        count = broadcast_batch(pictures=pictures, distances=distances, apertures=apertures)
    except ValueError as error:
        raise ValueError(f"{error} '{EVERY}' takes each with each.") from None
    item = torch.arange(count)
    return Plan(order, *(item if n > 1 else 0 * item for n in (pictures, distances, apertures)))


def taken(part: _Part, index: Tensor) -> _Part:
    """The items of a batch that `index`, `(count,)`, names; what is single stays single, as it goes with all.

    A batch that is wanted as it is comes back itself, and is not copied.
    """
    if not isinstance(part, Tensor):
        fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        batches = {k: taken(v, index) for k, v in fields.items() if isinstance(v, Tensor) and v.ndim}
        return dataclasses.replace(part, **batches)
    if part.shape[0] == 1 or torch.equal(index, torch.arange(part.shape[0])):
        return part
    return part[index]


def item_labels(plan: Plan, camera: Camera, focus: Focus, picture_word: str = "picture") -> list[str]:
    """One line per item of what changes along the batch; of everything where nothing does.

    camera, focus: as `taken` for the plan.
    """
    title, labels = captions(plan.count, camera, focus)
    numbers = (plan.picture + 1).tolist()
    if max(numbers) > 1:
        named = zip(numbers, labels, strict=True)
        labels = ["   ".join(filter(None, (f"{picture_word} {n}", text))) for n, text in named]
    return labels if any(labels) else [title] * plan.count
