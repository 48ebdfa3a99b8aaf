"""Histograms and sheets of pictures for the report, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAPER, GRID, INK, FAINT = (250, 250, 248), (225, 225, 220), (32, 32, 32), (110, 110, 110)
COLOURS = {
    "shallow": (214, 104, 53),
    "deep": (53, 110, 178),
    "kept": (70, 140, 80),
    "dropped": (170, 170, 165),
}
_SIZE, _MARGIN, _BAR_GAP = 15, 14, 2
_TILE, _LINES = 200, 3


def histogram(title: str, labels: Sequence[str], series: dict[str, Sequence[int]], width: int = 760) -> Any:
    """Bars side by side, a group for each label, one colour per series; a Pillow picture.

    series: counts by name, as many as there are labels.
    """
    from PIL import Image, ImageDraw

    font = _font(_SIZE)
    height = 320
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font)
    _legend(draw, series, width, font)
    most = max((max(counts, default=0) for counts in series.values()), default=0) or 1
    most = most if most < 4 else -(-most // 4) * 4
    left = _MARGIN + round(font.getlength(f"{most:,}")) + 8
    top, bottom, right = 3 * _SIZE + _MARGIN, height - 3 * _SIZE, width - _MARGIN
    for k in range(5):
        y = bottom - (bottom - top) * k / 4
        draw.line([(left, y), (right, y)], fill=GRID)
        if most >= 4 or k in (0, 4):
            draw.text((left - 6, y), f"{round(most * k / 4):,}", fill=FAINT, font=font, anchor="rm")
    group = (right - left) / max(len(labels), 1)
    bar = max(1.0, (group - 3 * _BAR_GAP) / max(len(series), 1))
    end = float("-inf")
    for place, label in enumerate(labels):
        x = left + group * place + _BAR_GAP
        for number, (name, counts) in enumerate(series.items()):
            y = bottom - (bottom - top) * counts[place] / most
            x0 = x + number * bar
            if counts[place]:
                draw.rectangle((x0, min(y, bottom - 1), x0 + bar - 1, bottom), fill=COLOURS[name])
        half = font.getlength(label) / 2
        middle = x + group / 2
        if middle - half > end + 6:
            draw.text((middle, bottom + 8), label, fill=INK, font=font, anchor="mt")
            end = middle + half
    return canvas


def bars(title: str, rows: Sequence[tuple[str, dict[str, int]]], width: int = 760) -> Any:
    """Lying bars, one per row, stacked by series; a Pillow picture. rows: label and counts by series."""
    from PIL import Image, ImageDraw

    font = _font(_SIZE)
    names = list(dict.fromkeys(name for _, counts in rows for name in counts))
    line = _SIZE + 10
    canvas = Image.new("RGB", (width, 3 * _SIZE + 2 * _MARGIN + line * max(len(rows), 1)), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font)
    _legend(draw, {name: () for name in names}, width, font)
    labels = [_shortened(label, font, width * 0.42) for label, _ in rows]
    left = _MARGIN + max((font.getlength(label) for label in labels), default=0) + 10
    most = max((sum(counts.values()) for _, counts in rows), default=0) or 1
    room = width - _MARGIN - left - font.getlength(f"{most:,}") - 8
    for place, (label, (_, counts)) in enumerate(zip(labels, rows, strict=True)):
        y, x = 3 * _SIZE + _MARGIN + place * line, left
        draw.text((left - 10, y + line / 2 - 3), label, fill=INK, font=font, anchor="rm")
        for name in names:
            share = room * counts.get(name, 0) / most
            if share:
                draw.rectangle((x, y, x + max(share - 1, 0), y + line - 8), fill=COLOURS[name])
            x += share
        total = sum(counts.values())
        draw.text((x + 6, y + line / 2 - 3), f"{total:,}", fill=FAINT, font=font, anchor="lm")
    return canvas


def sheet(title: str, tiles: Sequence[tuple[Any, str]], columns: int = 6) -> Any:
    """Pictures in a grid with words below each; a picture may be None. A Pillow picture."""
    from PIL import Image, ImageDraw, ImageOps

    font, small = _font(_SIZE), _font(_SIZE - 3)
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    line = _SIZE + 2
    cell = (_TILE + _MARGIN, _TILE + _LINES * line + _MARGIN)
    width = max(columns * cell[0] + _MARGIN, round(font.getlength(title)) + 2 * _MARGIN)
    canvas = Image.new("RGB", (width, rows * cell[1] + 3 * _SIZE + _MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font)
    for place, (picture, words) in enumerate(tiles):
        x = _MARGIN + place % columns * cell[0]
        y = 3 * _SIZE + place // columns * cell[1]
        if picture is None:
            draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), outline=GRID, fill=(240, 240, 236))
            draw.text((x + _TILE / 2, y + _TILE / 2), "no picture", fill=FAINT, font=small, anchor="mm")
        else:
            shown = ImageOps.contain(picture.convert("RGB"), (_TILE, _TILE))
            canvas.paste(shown, (x + (_TILE - shown.width) // 2, y + (_TILE - shown.height) // 2))
        for number, text in enumerate(_wrapped(words, small, _TILE)):
            draw.text((x, y + _TILE + 4 + number * line), text, fill=INK, font=small)
    return canvas


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _legend(draw: Any, series: Any, width: int, font: Any) -> None:
    x = width - _MARGIN
    for name in reversed(list(series)):
        x -= font.getlength(name)
        draw.text((x, _MARGIN), name, fill=INK, font=font)
        x -= _SIZE + 4
        draw.rectangle((x, _MARGIN + 3, x + _SIZE - 4, _MARGIN + _SIZE), fill=COLOURS[name])
        x -= 12


def _shortened(text: str, font: Any, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrapped(text: str, font: Any, room: float) -> list[str]:
    """At most three lines."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], " ".join(lines[_LINES - 1 :])]
    return [_shortened(line, font, room) for line in lines]


def matrix(title: str, rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> Any:
    """Counts in a table, darker for a larger share of their row; a Pillow picture."""
    from PIL import Image, ImageDraw

    font = _font(_SIZE)
    cell = (round(max(font.getlength(name) for name in columns)) + 2 * _MARGIN, 3 * _SIZE)
    left = round(max(font.getlength(name) for name in rows)) + 2 * _MARGIN
    top = 5 * _SIZE + _MARGIN
    width = max(left + cell[0] * len(columns), round(font.getlength(title)) + _MARGIN) + _MARGIN
    canvas = Image.new("RGB", (width, top + cell[1] * len(rows) + _MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font)
    for place, name in enumerate(columns):
        middle = left + cell[0] * (place + 0.5)
        draw.text((middle, top - _SIZE), name, fill=INK, font=font, anchor="mm")
    for line, (name, values) in enumerate(zip(rows, counts, strict=True)):
        y = top + cell[1] * line
        draw.text((left - _MARGIN, y + cell[1] / 2), name, fill=INK, font=font, anchor="rm")
        for place, value in enumerate(values):
            share = value / max(sum(values), 1)
            x = left + cell[0] * place
            fill = tuple(round(p + (c - p) * share) for p, c in zip(PAPER, COLOURS["deep"], strict=True))
            draw.rectangle((x, y, x + cell[0] - 2, y + cell[1] - 2), fill=fill, outline=GRID)
            ink = PAPER if share > 0.5 else INK
            draw.text((x + cell[0] / 2, y + cell[1] / 2), f"{value:,}", fill=ink, font=font, anchor="mm")
    return canvas
