"""What a node tells the artist: on the node, in the log, and in the history for API users."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from comfy_api.latest import io
from server import PromptServer

log = logging.getLogger("fine_defocus")


def say(cls: type[io.ComfyNode], summary: str, warnings: Iterable[str] = ()) -> dict[str, list[str]]:
    """Show a summary, and below it the warnings, on the node that is running; log the warnings.

    cls: the executing node; its schema needs `hidden=[io.Hidden.unique_id]`. A summary is always shown, so
    that warnings of an earlier run do not stay behind. Returns the `ui` part of the node's output.
    """
    warnings = list(dict.fromkeys(warnings))
    for warning in warnings:
        log.warning("%s: %s", cls.__name__.removesuffix("Node"), warning)
    lines = [summary, *(f"⚠ {warning}" for warning in warnings)]
    node_id = cls.hidden.unique_id if cls.hidden else None
    if node_id and getattr(PromptServer, "instance", None):
        PromptServer.instance.send_progress_text("\n".join(lines), node_id)
    return {"text": lines}
