"""Where to cut a depth map into layers: between what hides and what is hidden, not through surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..memory import bands_of
from ..progress import Progress

#: Neighbours whose blur radii differ by this many px are an edge of something; smaller steps are a surface.
EDGE_PX = 1.0
_BIN_PX = 0.25
#: Rows whose pairs of neighbours are listed together.
_BAND_ROWS = 256
_LARGEST_STEP_PX = 8.0
#: Cost of cutting one smooth pair of neighbours, per px of blur at the cut; and the least a cut must gain.
_SEAM_COST, _LEAST_GAIN = 0.05, 4e-4
#: Cuts of the frame before are reused from this share of the best cuts' gain on; one stays in its place from
#: this share of the best gain around it; and it moves at most so far to follow what it parts.
_NEARLY, _STILL, _FOLLOWED_BINS = 0.75, 0.9, 8


def edges(nearness: Tensor) -> Tensor:
    """Pixels `(H, W)` with an edge to one of their four neighbours."""
    across = (nearness[:, 1:] - nearness[:, :-1]).abs() >= EDGE_PX
    down = (nearness[1:] - nearness[:-1]).abs() >= EDGE_PX
    on_edge = torch.zeros_like(nearness, dtype=torch.bool)
    on_edge[:, 1:] |= across
    on_edge[:, :-1] |= across
    on_edge[1:] |= down
    on_edge[:-1] |= down
    return on_edge


def geodesic_dilation(mask: Tensor, nearness: Tensor, allowed: Tensor, steps: int) -> Tensor:
    """`mask` continued over smooth neighbours into `allowed`, one pixel per step."""
    across = (nearness[:, 1:] - nearness[:, :-1]).abs() < EDGE_PX
    down = (nearness[1:] - nearness[:-1]).abs() < EDGE_PX
    for _ in range(steps):
        wider = mask.clone()
        wider[:, 1:] |= mask[:, :-1] & across
        wider[:, :-1] |= mask[:, 1:] & across
        wider[1:] |= mask[:-1] & down
        wider[:-1] |= mask[1:] & down
        wider &= allowed | mask
        if torch.equal(wider, mask):
            break
        mask = wider
    return mask


def find_cuts(
    nearness: Tensor, max_layers: int, on_progress: Progress | None = None, before: Sequence[float] = ()
) -> list[float]:
    """Cuts through `nearness`, nearest first, at most `max_layers - 1`.

    nearness: `(H, W)` signed blur radius in px with its sign turned: 0 on the focal plane, > 0 in front.
    A cut gains by the steps between neighbours that it separates and costs by the smooth pairs it tears
    apart, weighted by the blur there: where a surface is sharp, a seam does not show. So a slanted plane
    stays whole, and a figure that stands on the ground is cut off along its own depth. Greedy, best first.
    on_progress: called with (done, total); may raise to interrupt.
    before: the cuts of the frame before. They are returned instead, each moved a little to where it gains
        most, as long as together they gain nearly as much as the best ones.
    """
    low, high = nearness.min(), nearness.max()
    bins = max(2, int((high - low) / _BIN_PX) + 2)

    def along_bins(first: Tensor, last: Tensor, weight: Tensor) -> Tensor:
        """What a cut at each bin gets of the pairs that it parts: those with first <= bin < last."""
        change = torch.zeros(bins + 1, dtype=torch.float64, device=nearness.device)
        change.index_add_(0, first, weight.double())
        change.index_add_(0, last, -weight.double())
        return change.cumsum(0)[:bins]

    torn = torch.zeros(bins, dtype=torch.float64, device=nearness.device)
    edges_of_bands = []
    for band, *_ in bands_of(len(nearness), _BAND_ROWS):
        here, part = nearness[band], nearness[band.start : band.stop + 1]  # and the row below
        one = torch.cat([here[:, 1:].flatten(), part[1:].flatten()])
        other = torch.cat([here[:, :-1].flatten(), part[:-1].flatten()])
        near, far = torch.maximum(one, other), torch.minimum(one, other)
        step = near - far
        first, last = (((side - low) / _BIN_PX).long().clamp_(0, bins - 1) for side in (far, near))
        edge = step >= EDGE_PX
        smooth = ~edge & (first < last)  # within a bin no cut parts them
        torn += along_bins(first[smooth], last[smooth], torch.ones_like(step[smooth]))
        edges_of_bands.append((first[edge], last[edge], step[edge].clamp_max(_LARGEST_STEP_PX)))
        if on_progress is not None:
            on_progress(band.stop, len(nearness))
    first, last, weight = (torch.cat(parts) for parts in zip(*edges_of_bands, strict=True))

    place = low.double() + (torch.arange(bins, device=nearness.device) + 1) * _BIN_PX
    cost = _SEAM_COST * torn * place.abs()

    def parted(first: Tensor, last: Tensor, weight: Tensor, cut: int) -> tuple[Tensor, Tensor, Tensor]:
        """The edges that a cut leaves to others."""
        left = (first > cut) | (last <= cut)
        return first[left], last[left], weight[left]

    def middle_of_best(gain: Tensor, best: int) -> int:
        """An empty gap is cut in its middle: that of the bins around the best one that are as good."""
        good = (gain >= gain[best] * 0.98).tolist()
        start = stop = best
        while start > 0 and good[start - 1]:
            start -= 1
        while stop < bins - 1 and good[stop + 1]:
            stop += 1
        return (start + stop) // 2

    cuts: list[float] = []
    gained, pairs = 0.0, (first, last, weight)
    while len(cuts) < max_layers - 1:
        gain = along_bins(*pairs) - cost
        best = int(gain.argmax())
        if gain[best] < _LEAST_GAIN * nearness.numel():
            break
        cut = middle_of_best(gain, best)
        cuts.append(float(place[cut]))
        gained += gain[best].item()
        pairs = parted(*pairs, cut)

    followed: list[float] = []
    still, pairs = 0.0, (first, last, weight)
    for wanted in before:
        at = round((wanted - low.item()) / _BIN_PX) - 1
        if 0 <= at < bins:
            gain = along_bins(*pairs) - cost
            begin = max(0, at - _FOLLOWED_BINS)
            best = begin + int(gain[begin : at + _FOLLOWED_BINS + 1].argmax())
            stays = bool(gain[at] >= _STILL * gain[best])
            cut = at if stays else middle_of_best(gain, best)
            followed.append(wanted if stays else float(place[cut]))
            still += gain[cut].item()
            pairs = parted(*pairs, cut)
    return sorted(followed if followed and still >= _NEARLY * gained else cuts, reverse=True)


def labels_of(nearness: Tensor, cuts: list[float]) -> Tensor:
    """Layer number of each pixel `(H, W)` int16, 0 = nearest, for cuts sorted nearest first."""
    label = torch.zeros_like(nearness, dtype=torch.int16)
    for number, cut in enumerate(cuts, start=1):
        label[nearness < cut] = number
    return label
