"""Qualitative sheets of the kept pictures, rows by apertures, and sweeps that move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lens_models.stops import label

from ..images import read_srgb, save_sheet, save_sweep
from .grid import picture_path
from .methods import METHODS
from .options import Evaluation
from .prompts import PromptEntry

_LONGEST_TITLE = 110


def write_sheets(
    config: Evaluation, table: str, rows: Sequence[str], prompts: Sequence[PromptEntry], out: str | Path
) -> list[Path]:
    """OUT/sheets/00000.png and OUT/sweeps/ROW_00000.webp of the first prompts."""
    out, written = Path(out), []
    for entry in prompts[: config.sheet_prompts]:
        shown, labels = [], []
        for row in rows:
            pictures = [read_srgb(picture_path(out, row, entry.number, n)) for n in config.f_numbers]
            shown.append(pictures)
            first, *others = (label(f_number) for f_number in config.f_numbers)
            labels.append([f"{row}: {METHODS[table][row].title}   {first}", *others])
            written.append(save_sweep(out / "sweeps" / f"{row}_{entry.number:05d}.webp", pictures))
        title = entry.prompt if len(entry.prompt) <= _LONGEST_TITLE else entry.prompt[:_LONGEST_TITLE] + "…"
        written.append(save_sheet(out / "sheets" / f"{entry.number:05d}.png", shown, labels, title=title))
    return written
