"""Short forms of what the nodes' schemas say again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from comfy_api.latest import io

Socket = TypeVar("Socket", io.Input, io.Output)

#: Distances that can be typed end here, metres.
FARTHEST_M = 100000.0


def node_schema(
    *,
    search_aliases: str,
    inputs: Sequence[io.Input | str],
    outputs: Sequence[io.Output | str],
    is_output_node: bool = False,
    has_intermediate_output: bool | None = None,
    **fields: Any,
) -> io.Schema:
    """A schema, written in short.

    search_aliases: with commas between them.
    inputs, outputs: in their order; a text is the tooltip of the one before it.
    has_intermediate_output: keep its messages through a cached run; None = if it is no output node.
    """
    if has_intermediate_output is None:
        has_intermediate_output = not is_output_node
    return io.Schema(
        search_aliases=search_aliases.split(", "),
        inputs=_with_tooltips(inputs),
        outputs=_with_tooltips(outputs),
        is_output_node=is_output_node,
        has_intermediate_output=has_intermediate_output,
        **fields,
    )


def _with_tooltips(entries: Sequence[Socket | str]) -> list[Socket]:
    sockets: list[Socket] = []
    for entry in entries:
        if isinstance(entry, str):
            sockets[-1].tooltip = entry
        else:
            sockets.append(entry)
    return sockets


def number(
    name: str,
    default: float,
    least: float,
    most: float,
    step: float,
    *,
    round: float | None = 0.01,
    **options: Any,
) -> io.Float.Input:
    """A FLOAT from `least` to `most`; what is typed is rounded to `round`, None = to the step."""
    limits: dict[str, Any] = {"min": least, "max": most, "step": step, "round": round}
    return io.Float.Input(name, default=default, **limits, **options)


def metres(
    name: str, default: float, least: float = 0.0, step: float = 0.1, **options: Any
) -> io.Float.Input:
    """A distance in metres."""
    return number(name, default, least, FARTHEST_M, step, round=0.0001, **options)


def f_number(name: str, default: float, least: float = 0.5, **options: Any) -> io.Float.Input:
    """An f-number; `least` 0 leaves room for "unknown"."""
    return number(name, default, least, 256.0, 0.1, round=0.001, **options)
