"""Charts and sheets of pictures for the report, drawn by matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"shallow": "#d66835", "deep": "#356eb2", "kept": "#468c50", "dropped": "#aaaaa5"}
_DPI, _WIDTH, _TILE = 100, 7.6, 2.0
_LABEL_LETTERS, _TILE_LETTERS, _TILE_LINES = 48, 28, 3


def _subplots(title: str, height: float, width: float = _WIDTH, rows: int = 1, columns: int = 1) -> tuple:
    """A matplotlib figure and its axes; sizes in inches. Raises ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"Charts need matplotlib ({error}): python -m pip install matplotlib.") from error
    figure = Figure((width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def histogram(title: str, labels: Sequence[str], series: Mapping[str, Sequence[int]]) -> Figure:
    """Bars side by side, a group for each label, one colour per series.

    series: counts by name, as many as there are labels.
    """
    figure, (axes,) = _subplots(title, 3.2)
    width = 0.9 / max(len(series), 1)
    for number, (name, counts) in enumerate(series.items()):
        places = [place + number * width for place in range(len(labels))]
        axes.bar(places, counts, width, align="edge", label=name, color=COLOURS[name])
    axes.set_xticks([place + 0.45 for place in range(len(labels))], labels)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def stacked_bars(title: str, rows: Sequence[tuple[str, Mapping[str, int]]]) -> Figure:
    """Horizontal bars, one per row, stacked by series. rows: label and counts by series."""
    figure, (axes,) = _subplots(title, 1.0 + 0.28 * len(rows))
    labels = [textwrap.shorten(label, _LABEL_LETTERS, placeholder="…") for label, _ in rows]
    places, ends = range(len(rows)), [0] * len(rows)
    for name in dict.fromkeys(name for _, counts in rows for name in counts):
        counts = [row.get(name, 0) for _, row in rows]
        bars = axes.barh(places, counts, left=ends, label=name, color=COLOURS[name])
        ends = [end + count for end, count in zip(ends, counts, strict=True)]
    if rows:
        axes.bar_label(bars, [f"{end:,}" for end in ends], padding=4)
        axes.legend(frameon=False)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    return figure


def sheet(title: str, tiles: Sequence[tuple[Any, str]], columns: int = 6) -> Figure:
    """Pillow pictures in a grid with words above each; a picture may be None."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    width = max(_TILE * columns, 0.1 * len(title))
    figure, places = _subplots(title, 0.4 + 1.25 * _TILE * rows, width, rows, columns)
    for axes in places:
        axes.set_axis_off()
    for axes, (picture, words) in zip(places, tiles, strict=False):
        if picture is None:
            axes.text(0.5, 0.5, "no picture", ha="center", va="center", color="grey")
        else:
            picture.thumbnail((_DPI * _TILE, _DPI * _TILE))
            axes.imshow(picture.convert("RGB"))
        lines = textwrap.wrap(words, _TILE_LETTERS, max_lines=_TILE_LINES, placeholder="…")
        axes.set_title("\n".join(lines), fontsize=8, loc="left", parse_math=False)
    return figure


def confusion_matrix(
    title: str, rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]
) -> Figure:
    """Counts in a table, darker for a larger share of their row."""
    figure, (axes,) = _subplots(title, 3.6)
    shares = [[value / max(sum(values), 1) for value in values] for values in counts]
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for y, values in enumerate(counts):
        for x, value in enumerate(values):
            colour = "white" if shares[y][x] > 0.5 else "black"
            axes.text(x, y, f"{value:,}", ha="center", va="center", color=colour)
    return figure
