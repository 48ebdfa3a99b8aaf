"""Prompts from a file: text with one on each line, JSON lines, or a parquet table such as a packed set's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Names of the column with the text, the first that is there.
TEXT = ("prompt", "caption", "text")
SUFFIXES = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True)
class PromptEntry:
    """A prompt and its place in the file. f_number, focal_mm: of the photo it comes with, where known."""

    number: int
    prompt: str
    f_number: float | None = None
    focal_mm: float | None = None


def read_prompts(path: str | Path, limit: int | None = None) -> list[PromptEntry]:
    """The prompts of a file in their order, the first `limit` of them.

    JSON objects and parquet rows have `prompt`, `caption` or `text`, and `f_number` and `focal_mm` or none.
    Raises ValueError, in a sentence, for another kind of file, one that cannot be read, and no prompts.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} is no file of prompts: use one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    entries = []
    for number, row in enumerate(_rows(path)[:limit]):
        name = next((n for n in TEXT if isinstance(row, Mapping) and n in row), None)
        if name is None or not isinstance(row[name], str):
            raise ValueError(f"Prompt {number + 1} of {path.name} has no text in {', '.join(TEXT)}.")
        camera = (_positive(row.get(key)) for key in ("f_number", "focal_mm"))
        entries.append(PromptEntry(number, row[name], *camera))
    if not entries:
        raise ValueError(f"{path.name} has no prompts.")
    return entries


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path.name} cannot be read as parquet: {error}") from error
        wanted = [name for name in (*TEXT, "f_number", "focal_mm") if name in table.column_names]
        return table.select(wanted).to_pylist()
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".txt":
        return [{"prompt": line} for line in lines if line]
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"Line {number} of {path.name} is no JSON: {error}.") from error
    return rows


def _positive(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(value) and value > 0 else None
