"""The contact sheet: pictures in a grid, each with what was different about it, and what was not on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..camera import Camera, Focus, broadcast_batch
from ..labels import metres_label
from ..light import image_to_radiance, linear_to_srgb
from ..stops import label as f_label

_PAPER, _INK = 0.11, 0.93  # sRGB
_BEHIND_ALPHA = 0.2140  # linear light of sRGB 0.5
_SMALLEST_TEXT_PX = 10
_GAP_PER_WIDTH = 0.015
#: Shape (width / height) that an automatic grid aims at, and what an empty place costs.
_WANTED_ASPECT, _EMPTY_COST = 1.8, 0.35


def captions(
    count: int, camera: Camera | None = None, focus: Focus | None = None, own: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Title and one label per picture: labels carry what changes along the sheet, the title what does not.

    own: labels that replace the automatic ones, in order; an empty one keeps the automatic label.
    Raises ValueError when there are N cameras or focus settings and not N pictures, or too many labels.
    """
    _check_counts(count, camera, focus)
    properties = [*_of_camera(camera, count), *_of_focus(focus, count)]
    return _title(properties), _own_first(own, _changing(properties, count))


@dataclass(frozen=True)
class Table:
    """A batch as rows and columns. across: the label above each column; down: left of each row; may be empty.

    own: labels under the pictures, one each.
    """

    title: str
    across: list[str]
    down: list[str]
    own: list[str]


def table(
    count: int, camera: Camera | None = None, focus: Focus | None = None, own: Sequence[str] = ()
) -> Table:
    """Apertures across, everything else down: distances, and the picture's number where there are several.

    The columns are the shortest period over which the cameras repeat, the pictures the shortest over which
    the distances of the rows do. own: labels to write under the pictures.
    Raises ValueError where the focus changes within a row, and as `captions` does.
    """
    _check_counts(count, camera, focus)
    cameras, settings = _of_camera(camera, count), _of_focus(focus, count)
    columns = _period(_rows_of(cameras, count))
    rows = _rows_of(settings, count)
    if any(rows[i] != rows[i - i % columns] for i in range(count)):
        apertures, distances = len(set(_rows_of(cameras, count))), len(set(rows))
        raise ValueError(
            f"{apertures} apertures and {distances} distances change together in these {count} pictures, so "
            "they make no rows and columns: set order to 'every combination' in Batch Sweep, or arrangement "
            "to 'label under each'."
        )
    distances = _period(rows[::columns])
    across, down = _changing(cameras, count)[:columns], _changing(settings, count)[::columns]
    if distances < len(down):
        numbers = [f"picture {row // distances + 1}" for row in range(len(down))]
        down = _joined([numbers, down], len(down))
    return Table(_title([*cameras, *settings]), across, down, _own_first(own, [""] * count))


@dataclass(frozen=True)
class _Property:
    """One setting along the batch; the title writes `before` ahead of a text that is the same everywhere."""

    values: list[float]
    texts: list[str]
    before: str = ""

    @property
    def changes(self) -> bool:
        return len(set(self.texts)) > 1


def _of_camera(camera: Camera | None, count: int) -> list[_Property]:
    if camera is None:
        return []
    apertures, focal = (_values(field, count) for field in (camera.f_number, camera.focal_mm))
    return [
        _Property(apertures, [f_label(n) for n in apertures]),
        _Property(focal, [f"{f:.3g} mm" for f in focal]),
    ]


def _of_focus(focus: Focus | None, count: int) -> list[_Property]:
    if focus is None:
        return []
    distances, scales = (_values(field, count) for field in (focus.distance_m, focus.scale))
    properties = [_Property(distances, [metres_label(d) for d in distances], "focus ")]
    if any(s != 1.0 for s in scales):
        properties.append(_Property(scales, [f"scale {s:.3g}" for s in scales]))
    return properties


def _check_counts(count: int, camera: Camera | None, focus: Focus | None) -> None:
    cameras, settings = (0 if part is None else part.batch for part in (camera, focus))
    if max(cameras, settings) > count:
        what = f"{cameras} cameras" if cameras > count else f"{settings} focus settings"
        raise ValueError(
            f"{what} do not go with {count} picture{'s' * (count > 1)}: connect the image output of the lens "
            "that used them."
        )
    broadcast_batch(pictures=count, cameras=max(cameras, 1), focus_settings=max(settings, 1))


def _title(properties: Sequence[_Property]) -> str:
    return "   ".join(p.before + p.texts[0] for p in properties if not p.changes)


def _changing(properties: Sequence[_Property], count: int) -> list[str]:
    return _joined([p.texts for p in properties if p.changes], count)


def _joined(columns: Sequence[Sequence[str]], count: int) -> list[str]:
    """`count` texts, each what the columns say of it."""
    return ["   ".join(filter(None, texts)) for texts in zip(*columns, strict=True)] or [""] * count


def _rows_of(properties: Sequence[_Property], count: int) -> list[tuple[float, ...]]:
    return list(zip(*(p.values for p in properties), strict=True)) or [()] * count


def _own_first(own: Sequence[str], labels: list[str]) -> list[str]:
    if len(own) > len(labels):
        raise ValueError(
            f"There are {len(own)} lines of labels and {len(labels)} pictures: write at most one line per "
            "picture."
        )
    return [text.strip() or label for text, label in zip_longest(own, labels, fillvalue="")]


def _period(values: Sequence[object]) -> int:
    """The shortest length that divides the sequence into equal parts."""
    count = len(values)
    fitting = (p for p in range(1, count + 1) if count % p == 0)
    return next(p for p in fitting if all(values[i] == values[i % p] for i in range(count)))


def _values(field: float | Tensor, count: int) -> list[float]:
    return torch.as_tensor(field, dtype=torch.float64).reshape(-1).expand(count).tolist()


def grid(count: int, width: int, height: int, columns: int = 0) -> tuple[int, int]:
    """(columns, rows) for `count` pictures of this size; columns = 0 chooses a wide sheet with few gaps.

    >>> grid(8, 741, 500), grid(8, 512, 512), grid(4, 512, 512), grid(1, 9, 9)
    ((4, 2), (4, 2), (2, 2), (1, 1))
    """
    if columns > 0:
        columns = min(columns, count)
        return columns, -(-count // columns)

    def cost(c: int) -> float:
        rows = -(-count // c)
        shape = abs(math.log(c * width / (rows * height) / _WANTED_ASPECT))
        return shape + _EMPTY_COST * (c * rows - count)

    best = min(range(1, count + 1), key=cost)
    return best, -(-count // best)


def contact_sheet(
    images: Tensor,
    labels: Sequence[str],
    *,
    title: str = "",
    columns: int = 0,
    picture_width: int = 0,
    text_px: int = 0,
    across: Sequence[str] = (),
    down: Sequence[str] = (),
) -> Tensor:
    """Pictures in a grid with a label under each.

    images: `(B, H, W, C)` sRGB, C = 1, 3 or 4; transparent pictures stand before neutral grey.
    labels: B texts, may be empty. columns: 0 = automatic. picture_width: px, 0 = as large as they come.
    text_px: height of the text, 0 = automatic; text that does not fit is made smaller.
    across, down: a text above each column and left of each row, which then make the grid; may be empty.
    Returns `(1, H', W', 3)` sRGB 0..1. Raises ValueError when labels are not B, or columns and rows
    hold more or fewer than B.
    """
    count = images.shape[0]
    if len(labels) != count:
        raise ValueError(f"There are {len(labels)} labels for {count} pictures.")
    if (across or down) and len(across) * len(down) != count:
        raise ValueError(f"{len(across)} columns and {len(down)} rows do not hold {count} pictures.")
    own_height, own_width = images.shape[1:3]
    width = picture_width or own_width
    height = max(1, round(own_height * width / own_width))
    columns, rows = (len(across), len(down)) if across else grid(count, width, height, columns)
    gap = max(2, round(width * _GAP_PER_WIDTH))
    size = text_px or max(_SMALLEST_TEXT_PX, round(0.05 * min(width, 1.5 * height)))
    smallest = min(size, _SMALLEST_TEXT_PX)
    cell = max(width, _widest([*labels, *across], smallest))
    # as wide as the text would like, but no wider than a picture unless it must
    beside = max(min(_widest(down, size), width), _widest(down, smallest)) + gap if any(down) else 0
    line = max(height, round(1.7 * size)) if any(down) else height
    table_width = beside + columns * (cell + gap) + gap
    sheet_width = max(table_width, _text_width(title, smallest) + 2 * gap if title else 0)
    strip = round(1.7 * size) if any(labels) else 0
    above = round(1.7 * size) if any(across) else 0
    head = round(2.0 * size) if title else 0
    sheet = torch.full((head + above + gap + rows * (line + strip + gap), sheet_width, 3), _PAPER)
    _write(sheet[:head], title, size, gap)
    left = (sheet_width - table_width) // 2 + gap
    for row, text in enumerate(down):
        top = head + above + gap + row * (line + strip + gap)
        _write(sheet[top : top + line, left : left + beside - gap], text, size, 0)
    for column, text in enumerate(across):
        x = left + beside + column * (cell + gap)
        _write(sheet[head : head + above + gap, x : x + cell], text, size, 0)
    for i in range(count):
        row, column = divmod(i, columns)
        top = head + above + gap + row * (line + strip + gap)
        x = left + beside + column * (cell + gap)
        # one at a time: many pictures at full size may go onto a small sheet
        picture = _scaled(_opaque(images[i : i + 1]), height, width)[0]
        y, inset = top + (line - height) // 2, (cell - width) // 2
        sheet[y : y + height, x + inset : x + inset + width] = picture
        _write(sheet[top + line : top + line + strip, x : x + cell], labels[i], size, 0)
    return sheet[None]


def captioned(images: Tensor, texts: Sequence[str]) -> Tensor:
    """Pictures with a line of text on a dark bar along their lower edge, at the same size.

    images: `(B, H, W, C)` sRGB; texts: one per picture, an empty one leaves it alone.
    Returns `(B, H, W, 3)` sRGB 0..1 on the CPU.
    """
    pictures = _opaque(images).clone()
    height, width = pictures.shape[1:3]
    size = max(_SMALLEST_TEXT_PX, round(0.035 * min(width, 1.5 * height)))
    bar = min(height, round(1.9 * size))
    for picture, text in zip(pictures, texts, strict=True):
        if text:
            picture[-bar:] *= 0.35
            _write(picture[-bar:], text, size, max(2, size // 2))
    return pictures


def _opaque(images: Tensor) -> Tensor:
    """`(B, H, W, 3)` sRGB 0..1 on the CPU."""
    images = torch.nan_to_num(images.detach().float().cpu(), nan=0.0).clamp(0.0, 1.0)
    if images.shape[-1] == 4:
        radiance = image_to_radiance(images)
        blended = radiance[:, :3] + (1.0 - radiance[:, 3:]) * _BEHIND_ALPHA
        images = linear_to_srgb(blended).movedim(1, -1)
    return images[..., :3].expand(*images.shape[:-1], 3)


def _scaled(pictures: Tensor, height: int, width: int) -> Tensor:
    if (height, width) == tuple(pictures.shape[1:3]):
        return pictures
    planes = pictures.movedim(-1, 1)
    scaled = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled.clamp(0.0, 1.0).movedim(1, -1)


def _widest(texts: Sequence[str], size: int) -> int:
    return max((_text_width(text, size) for text in texts if text), default=0)


def _text_width(text: str, size: int) -> int:
    return math.ceil(ImageFont.load_default(size).getlength(text)) + 4


def _write(area: Tensor, text: str, size: int, margin: int) -> None:
    """Write into `(h, w, 3)` in place: centred, and smaller if the text would not fit."""
    if not text:
        return
    height, width = area.shape[:2]
    while size > 4 and _text_width(text, size) > width - 2 * margin:
        size -= 1
    layer = Image.new("L", (width, height), 0)
    middle, font = (width / 2, height / 2), ImageFont.load_default(size)
    ImageDraw.Draw(layer).text(middle, text, fill=255, font=font, anchor="mm")
    area += torch.from_numpy(np.array(layer))[..., None] / 255.0 * (_INK - area)
