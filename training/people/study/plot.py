"""Shares with their intervals as horizontal bars, in the manner of the paper's figure A6."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Row = tuple[str, float | None, float | None, float | None, int]

_PAPER, _GRID, _INK, _FAINT = (255, 255, 255), (222, 222, 222), (34, 34, 34), (120, 120, 120)
_BAR, _WHISKER, _EVEN = (92, 142, 199), (24, 48, 82), (200, 90, 60)


def preference_plot(rows: Sequence[Row], title: str = "", width: int = 1200, size: int = 22) -> Image.Image:
    """One bar per row (name, share, low, high, votes) on an axis from 0 to 100 %; the dashed line is chance.

    A row without votes keeps its place and says so. width: px; size: of the letters, px.
    Raises ValueError where the names leave the bars less than 200 px.
    """
    font = ImageFont.load_default(size)
    small = ImageFont.load_default(round(0.8 * size))
    row_height, top = 3 * size, round(3.4 * size) if title else size
    left = round(max(font.getlength(name) for name, *_ in rows) + 2 * size)
    right = width - round(small.getlength("100.0 % of 99,999") + 2 * size)
    bottom = top + row_height * len(rows)
    if right - left < 200:
        raise ValueError(f"The names leave {right - left} px for bars, which need 200: make the plot wider.")
    canvas = Image.new("RGB", (width, bottom + 3 * size), _PAPER)
    pen = ImageDraw.Draw(canvas)

    def x_of(share: float) -> float:
        return left + (right - left) * share

    if title:
        pen.text((size, round(1.2 * size)), title, fill=_INK, font=ImageFont.load_default(round(1.2 * size)))
    for k in range(5):
        share = k / 4
        pen.line([(x_of(share), top), (x_of(share), bottom)], fill=_GRID)
        pen.text((x_of(share), bottom + size // 2), f"{100 * share:.0f} %", _INK, font=small, anchor="mt")
    line = max(2, size // 8)
    for k, (name, share, low, high, votes) in enumerate(rows):
        y = top + row_height * (k + 0.5)
        pen.text((left - size // 2, y), name, fill=_INK, font=font, anchor="rm")
        if share is None:
            pen.text((left + size // 2, y), "no votes yet", fill=_FAINT, font=small, anchor="lm")
            continue
        pen.rectangle((left, y - 0.8 * size, x_of(share), y + 0.8 * size), fill=_BAR)
        pen.line([(x_of(low), y), (x_of(high), y)], fill=_WHISKER, width=line)
        for end in (low, high):
            cap = [(x_of(end), y - 0.35 * size), (x_of(end), y + 0.35 * size)]
            pen.line(cap, fill=_WHISKER, width=line)
        text = f"{100 * share:.1f} % of {votes:,}"
        pen.text((right + size // 2, y), text, fill=_INK, font=small, anchor="lm")
    for y in range(top, bottom, size):
        pen.line([(x_of(0.5), y), (x_of(0.5), min(y + size // 2, bottom))], fill=_EVEN, width=line)
    return canvas
