"""The manifest of a study out of what `evaluate table1` wrote: its sweeps that move, row against row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...evaluate.prompts import read_prompts
from .manifest import Manifest, ManifestError, read_manifest


def write_manifest(
    results: str | Path, prompts: str | Path, ours: str, baselines: Sequence[str], path: str | Path
) -> Manifest:
    """Write and check a manifest of all sweeps that RESULTS/sweeps holds for every method.

    results: folder with table1.json or table2.json; prompts: the file its prompts came from; ours, baselines:
    rows, where no baselines are all other rows. Raises ManifestError for rows and sweeps that are not there.
    """
    results, path = Path(results), Path(path)
    titles = _titles(results)
    rows = [ours, *(baselines or (row for row in titles if row != ours))]
    missing = [row for row in rows if row not in titles]
    if missing:
        raise ManifestError(f"{results} has no row {', '.join(missing)}; it has {', '.join(titles)}.")
    here = path.absolute().parent
    asked = []
    for asking in read_prompts(prompts):
        name = f"{asking.number:05d}"
        files = {row: results.absolute() / "sweeps" / f"{row}_{name}.webp" for row in rows}
        if all(file.is_file() for file in files.values()):
            media = {row: Path(os.path.relpath(file, here)).as_posix() for row, file in files.items()}
            asked.append({"id": name, "prompt": asking.prompt, "media": media})
    if not asked:
        raise ManifestError(
            f"{results}/sweeps has no prompt with a sweep of each of the rows {', '.join(rows)}: evaluate "
            "them together, with --set sheet_prompts=25 for 25 prompts."
        )
    manifest = {"ours": ours, "methods": {row: titles[row] for row in rows}, "prompts": asked}
    here.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_manifest(path)


def _titles(results: Path) -> dict[str, str]:
    tables = [table for name in ("table1", "table2") if (table := results / f"{name}.json").is_file()]
    if len(tables) != 1:
        found = " and ".join(table.name for table in tables) or "neither table1.json nor table2.json"
        raise ManifestError(f"{results} holds {found}: give a folder that one `evaluate` wrote.")
    rows = json.loads(tables[0].read_text(encoding="utf-8"))["rows"]
    return {name: row["title"] for name, row in rows.items()}
