"""Short forms of what the nodes' schemas say again and again."""

from __future__ import annotations

from typing import Any, TypeVar

from comfy_api.latest import io

Socket = TypeVar("Socket", io.Input, io.Output)

#: Distances that can be typed end here, metres.
FARTHEST_M = 100000.0


def with_tooltips(*entries: Socket | str) -> list[Socket]:
    """The inputs or outputs of a node in their order; a text is the tooltip of the one before it."""
    sockets: list[Socket] = []
    for entry in entries:
        if isinstance(entry, str):
            sockets[-1].tooltip = entry
        else:
            sockets.append(entry)
    return sockets


def aliases(words: str) -> list[str]:
    """Search words of a node, written with commas between them."""
    return words.split(", ")


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
    return io.Float.Input(name, default=default, min=least, max=most, step=step, round=round, **options)


def metres(
    name: str, default: float, least: float = 0.0, step: float = 0.1, **options: Any
) -> io.Float.Input:
    """A distance in metres."""
    return number(name, default, least, FARTHEST_M, step, round=0.0001, **options)


def f_number(name: str, default: float, least: float = 0.5, **options: Any) -> io.Float.Input:
    """An f-number; `least` 0 leaves room for "unknown"."""
    return number(name, default, least, 256.0, 0.1, round=0.001, **options)
