"""Messages to the artist: on the node, in the log, and in the history for API users."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from comfy_api.latest import io

log = logging.getLogger("fine_defocus")

#: Lines of a list that are written out.
MOST_LINES = 12


def messages_ui(cls: type[io.ComfyNode], summary: str, warnings: Iterable[str] = ()) -> dict[str, list[str]]:
    """The `ui` part of a node's output: a summary, and below it the warnings, which are logged as well.

    cls: the executing node; `has_intermediate_output=True` in its schema keeps the text through a cached
    run. A summary is always there, so that warnings of an earlier run do not stay on the node.
    """
    warnings = list(dict.fromkeys(warnings))
    for warning in warnings:
        log.warning("%s: %s", cls.__name__.removesuffix("Node"), warning)
    return {"text": [summary, *(f"⚠ {warning}" for warning in warnings)]}


def listing(lines: Sequence[str], most: int = MOST_LINES) -> str:
    """The lines, or the first of them and how many more there are."""
    rest = len(lines) - most
    return "\n".join([*lines[:most], *([f"and {rest} more"] if rest > 0 else [])])
