"""ComfyUI's progress bar and stop button around the core's work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import comfy.model_management as mm
import comfy.utils

from ...lens_models.progress import Progress

Item = TypeVar("Item")

STEPS = 1000


def each(items: Sequence[Item]) -> Iterator[Item]:
    """The items one after the other; the bar moves as each is done, and the artist can stop before any."""
    bar = comfy.utils.ProgressBar(len(items))
    for done, item in enumerate(items, start=1):
        mm.throw_exception_if_processing_interrupted()
        yield item
        bar.update_absolute(done)


def on_progress() -> Progress:
    """A new bar as the core's callback `(done, total)`; raises where the artist stopped the run."""
    bar = comfy.utils.ProgressBar(STEPS)

    def report(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(STEPS * done // total)

    return report
