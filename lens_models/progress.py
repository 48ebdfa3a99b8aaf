"""Progress of a part as progress of the whole."""

from __future__ import annotations

from collections.abc import Callable

#: Progress is reported in so many pieces per picture.
PIECES = 100

Progress = Callable[[int, int], None]


def progress_within(
    on_progress: Progress | None, start: float, stop: float, count: int = 1
) -> Progress | None:
    """Progress of a part, reported as progress of all `count` pictures, of which it is start..stop."""
    if on_progress is None:
        return None

    def report(done: int, total: int) -> None:
        on_progress(round((start + (stop - start) * done / total) * PIECES), count * PIECES)

    return report
