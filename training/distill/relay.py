"""Gradient relay: a long chain back-propagated one segment at a time.

The chain runs once without gradients and keeps only the values between its segments. Then, from the end,
each segment runs again with gradients and takes over the gradient of its output. Weights get the gradients
of one graph; the peak is that of the largest segment. Segments must not draw random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Values = tuple[Tensor, ...]
#: The values before it to those after it; the first one takes none.
Segment = Callable[..., Values]
#: From the values at a place in the chain to a number, already with its weight.
LossAt = Callable[..., Tensor]


def relay(
    segments: Sequence[Segment], losses: Mapping[int, LossAt]
) -> tuple[list[Values], dict[int, Tensor]]:
    """Accumulate the gradients of the sum of all losses in the weights that the segments use.

    losses: by place: i takes the values after segment i. They may use weights of their own.
    Returns the values after each segment and the losses, both detached.
    Raises ValueError for a place that the chain does not have.
    """
    _check(segments, losses)
    with torch.no_grad():
        values = run(segments)
    found: dict[int, Tensor] = {}
    coming: list[Tensor | None] = [None] * len(values[-1])
    for place in reversed(range(len(segments))):
        if place in losses:
            leaves = _leaves(values[place])
            with torch.enable_grad():
                loss = losses[place](*leaves)
            if loss.requires_grad:
                loss.backward()
            found[place] = loss.detach()
            coming = [_sum(a, leaf.grad) for a, leaf in zip(coming, leaves, strict=True)]
        if all(gradient is None for gradient in coming):
            coming = [None] * len(values[place - 1]) if place else []
            continue
        inputs = _leaves(values[place - 1]) if place else ()
        with torch.enable_grad():
            outputs = segments[place](*inputs)
        reached = [(o, g) for o, g in zip(outputs, coming, strict=True) if g is not None and o.requires_grad]
        if reached:
            torch.autograd.backward([o for o, _ in reached], [g for _, g in reached])
        coming = [leaf.grad for leaf in inputs]
    return values, found


def one_graph(
    segments: Sequence[Segment], losses: Mapping[int, LossAt]
) -> tuple[list[Values], dict[int, Tensor]]:
    """The same as `relay` in a single graph: each segment runs once, and all of them are held at once."""
    _check(segments, losses)
    with torch.enable_grad():
        values = run(segments)
        found = {place: loss(*values[place]) for place, loss in losses.items()}
        whole = sum(found.values())
    if isinstance(whole, Tensor) and whole.requires_grad:
        whole.backward()
    return [tuple(v.detach() for v in after) for after in values], {p: v.detach() for p, v in found.items()}


def run(segments: Sequence[Segment]) -> list[Values]:
    """The values after each segment."""
    values: list[Values] = []
    for segment in segments:
        values.append(segment(*(values[-1] if values else ())))
    return values


def _leaves(values: Values) -> Values:
    return tuple(value.detach().requires_grad_() for value in values)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _check(segments: Sequence[Segment], losses: Mapping[int, LossAt]) -> None:
    wrong = [place for place in losses if not 0 <= place < len(segments)]
    if wrong or not losses:
        raise ValueError(
            f"Losses at {wrong or 'no place'} do not go with {len(segments)} segments: places are 0 to "
            f"{len(segments) - 1}."
        )
