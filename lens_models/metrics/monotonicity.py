"""Blur monotonicity: does every stop that opens the aperture take energy out of the picture?

The energy of a picture is the sum of its squared values. Blur with a kernel that is not negative and sums
to 1 cannot raise it (theorem F.1 of the paper, for circular convolution), so along a sweep in order of
growing f-number the energy has to grow at every step.

The theorem is about the values that were blurred. sRGB codes are a concave function of light: a blur in
linear light keeps the mean of the light and so raises the mean of the codes, and their plain energy can grow
with blur. It is the other way round with brightness alone: a sweep that only gets lighter scores 100 %.
Hence the second column, in which the mean of each channel is taken away first; and linear light can be
measured by giving linear light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..stops import label


def energy(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Σ v² of each picture, and Σ (v − mean of its channel)², both `(B,)` float64.

    pictures: `(B, C, H, W)`, values as they are, before any rounding; usually sRGB 0..1 or linear light.
    Raises ValueError for another shape, for an empty picture, and for NaN or infinite values.
    """
    if pictures.ndim != 4 or 0 in pictures.shape:
        raise ValueError(
            "Energy is measured of pictures (batch, channels, height, width); these are "
            f"{tuple(pictures.shape)}."
        )
    both = []
    for place, picture in enumerate(pictures, start=1):  # one at a time: float64 doubles the memory
        values = picture.detach().double()
        centred = values - values.mean(dim=(-2, -1), keepdim=True)
        sums = values.square().sum(), centred.square().sum()
        if not math.isfinite(sums[0]):
            bad = (~torch.isfinite(values)).sum().item()
            raise ValueError(
                f"Picture {place} of {len(pictures)} holds {bad} values that are NaN or infinite: its energy "
                "cannot be compared. Look for the node that made them."
            )
        both.append(torch.stack(sums))
    whole, detail = torch.stack(both).cpu().unbind(dim=1)
    return whole, detail


@dataclass(frozen=True)
class Monotonicity:
    """A sweep in order of growing f-number, and what its energy does.

    energies: Σ v² of each picture; details: the same about the mean of each channel.
    """

    f_numbers: tuple[float, ...]
    energies: tuple[float, ...]
    details: tuple[float, ...]

    @property
    def score(self) -> float:
        """Share (0..1) of neighbours whose energy grows strictly; a tie counts 0."""
        return _share_growing(self.energies)

    @property
    def detail_score(self) -> float:
        """The same share of the energy about the mean."""
        return _share_growing(self.details)

    @property
    def failed(self) -> tuple[tuple[float, float], ...]:
        """Pairs of neighbouring f-numbers between which the energy does not grow."""
        return _not_growing(self.f_numbers, self.energies)

    @property
    def detail_failed(self) -> tuple[tuple[float, float], ...]:
        """The same pairs of the energy about the mean."""
        return _not_growing(self.f_numbers, self.details)


def blur_monotonicity(pictures: Tensor, f_numbers: Sequence[float] | Tensor) -> Monotonicity:
    """Blur Monotonicity of one sweep (section 5 of the paper): E(i) < E(i + 1) with f-numbers growing.

    pictures: `(N, C, H, W)`, one scene at N apertures, unrounded. f_numbers: N of them, in the pictures'
    order, which may be any. The paper's figure is the mean of `score` over many sweeps of eight stops.
    Raises ValueError for fewer than two pictures, another number of f-numbers, one that is repeated, and
    values without energy (see `energy`).
    """
    numbers = [float(n) for n in torch.as_tensor(f_numbers, dtype=torch.float64).reshape(-1)]
    if len(numbers) != len(pictures):
        raise ValueError(
            f"There are {len(pictures)} pictures and {len(numbers)} f-numbers: give one f-number for each "
            "picture."
        )
    if len(numbers) < 2:
        raise ValueError(
            f"Blur monotonicity compares apertures, so it needs at least 2 pictures; there is {len(numbers)}."
        )
    for n in numbers:
        if not 0 < n < math.inf:
            raise ValueError(f"The f-number {n:g} is no aperture: it must be greater than 0 and finite.")
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    ordered = [numbers[i] for i in order]
    for place, (low, high) in enumerate(pairwise(ordered)):
        if low == high:
            raise ValueError(
                f"Pictures {order[place] + 1} and {order[place + 1] + 1} are both at {label(low)}: each "
                "picture of a sweep needs an aperture of its own."
            )
    whole, detail = energy(pictures)
    return Monotonicity(tuple(ordered), tuple(whole[order].tolist()), tuple(detail[order].tolist()))


def _share_growing(energies: Sequence[float]) -> float:
    return sum(low < high for low, high in pairwise(energies)) / (len(energies) - 1)


def _not_growing(f_numbers: Sequence[float], energies: Sequence[float]) -> tuple[tuple[float, float], ...]:
    steps = zip(pairwise(f_numbers), pairwise(energies), strict=True)
    return tuple(pair for pair, (low, high) in steps if not low < high)
