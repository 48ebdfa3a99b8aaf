"""Everything is Better with Bokeh! (Ignatov et al. 2020): does the theorem hold on pairs from a real camera?

A folder has either `original` and `bokeh`, as the data set comes, with the same names in both, or pairs named
`NAME_f16.jpg` and `NAME_f1.8.jpg`. The first of a pair is taken at f/16, the second at f/1.8.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lens_models.light import srgb_to_linear
from lens_models.metrics.monotonicity import energy

from ..images import SUFFIXES, read_srgb, save_sheet
from .statistics import wilson

log = logging.getLogger("fine_defocus")
DEEP, SHALLOW = "original", "bokeh"
#: What the paper found on about 5,000 pairs, percent.
PAPER_SHARE = 96.0
_NAMED = re.compile(r"^(?P<name>.+)_f(?P<f_number>16|1\.8)$", re.IGNORECASE)
_PER_SHEET = 8
_COLUMNS = {
    "srgb": "8-bit sRGB values, energy",
    "srgb_mean_removed": "8-bit sRGB values, mean removed",
    "linear": "linear light, energy",
    "linear_mean_removed": "linear light, mean removed",
}


@dataclass(frozen=True)
class Pair:
    """One scene at f/16 and f/1.8."""

    name: str
    deep: Path
    shallow: Path


def find_pairs(folder: str | Path) -> list[Pair]:
    """The pairs of a folder by their names. Raises ValueError where there is none; halves are logged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    halves: dict[str, dict[str, Path]] = {}
    if (folder / DEEP).is_dir() and (folder / SHALLOW).is_dir():
        for kind in (DEEP, SHALLOW):
            for path in _photos(folder / kind):
                halves.setdefault(path.stem, {})[kind] = path
    else:
        for path in _photos(folder):
            named = _NAMED.match(path.stem)
            if named:
                kind = DEEP if named["f_number"] == "16" else SHALLOW
                halves.setdefault(named["name"], {})[kind] = path
    pairs = [Pair(name, h[DEEP], h[SHALLOW]) for name, h in sorted(halves.items()) if len(h) == 2]
    if len(pairs) < len(halves):
        log.warning("%d pictures have no partner and are left out", len(halves) - len(pairs))
    if not pairs:
        raise ValueError(
            f"{folder} has no pairs: put them into {DEEP} (f/16) and {SHALLOW} (f/1.8) with the same names, "
            "or call them NAME_f16.jpg and NAME_f1.8.jpg."
        )
    return pairs


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def judge_pairs(
    folder: str | Path, out: str | Path, *, sheets: int = 24, confidence: float = 0.95
) -> dict[str, Any]:
    """Shares of pairs whose energy is greater at f/16, and sheets of the first pairs; OUT/ebb.md and .json.

    Energies are per pixel, as the two pictures of EBB! are cropped alike and others need not be. Pairs that
    cannot be read are named and left out.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows, left_out, shown = [], {}, []
    for pair in find_pairs(folder):
        try:
            deep, shallow = read_srgb(pair.deep), read_srgb(pair.shallow)
        except ValueError as error:
            left_out[pair.name] = str(error)
            log.warning("%s", error)
            continue
        row: dict[str, Any] = {"pair": pair.name}
        for space, convert in (("srgb", lambda t: t), ("linear", srgb_to_linear)):
            found = [[e.item() / t[0, 0].numel() for e in energy(convert(t))] for t in (deep, shallow)]
            for place, name in enumerate((space, f"{space}_mean_removed")):
                row[name] = [found[0][place], found[1][place]]
        rows.append(row)
        if len(shown) < sheets:
            shown.append((row, deep, shallow))
    if not rows:
        raise ValueError(f"No pair of {folder} could be read.")
    columns = {}
    for name in _COLUMNS:
        hits = sum(deep > shallow for deep, shallow in (row[name] for row in rows))
        columns[name] = {
            "hits": hits,
            "share": hits / len(rows),
            "interval": wilson(hits, len(rows), confidence),
        }
    found = {
        "pairs": len(rows),
        "confidence": confidence,
        "paper_percent": PAPER_SHARE,
        "columns": columns,
        "left_out": left_out,
        "rows": rows,
    }
    (out / "ebb.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "ebb.md").write_text(markdown(found), encoding="utf-8")
    _sheets(out, shown)
    return found


def _sheets(out: Path, shown: list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]) -> None:
    """A pair to a line, with the energies below, after figure A2."""
    for start in range(0, len(shown), _PER_SHEET):
        part = shown[start : start + _PER_SHEET]
        rows = [[deep, shallow] for _, deep, shallow in part]
        labels = [
            [f"{row['pair']}  f/16  E {row['srgb'][0]:.4f}", f"f/1.8  E {row['srgb'][1]:.4f}"]
            for row, *_ in part
        ]
        save_sheet(
            out / "sheets" / f"pairs_{start // _PER_SHEET:03d}.png",
            rows,
            labels,
            title="Energy per pixel of 8-bit sRGB values",
            picture_width=384,
        )


def markdown(found: Mapping[str, Any]) -> str:
    """The table for people."""
    lines = [
        "# Energy of f/16 against f/1.8",
        "",
        f"| {found['pairs']} pairs | E(f/16) > E(f/1.8) | {100 * found['confidence']:g} % Wilson interval |",
        "|---|---|---|",
    ]
    for name, heading in _COLUMNS.items():
        column = found["columns"][name]
        low, high = column["interval"]
        lines.append(
            f"| {heading} | {100 * column['share']:.2f} % ({column['hits']}) | {100 * low:.2f} to "
            f"{100 * high:.2f} % |"
        )
    lines += [
        "",
        f"The paper found {found['paper_percent']:g} % on about 5,000 pairs of EBB!, and does not say "
        "of which values.",
    ]
    if found["left_out"]:
        lines += ["", f"Left out: {len(found['left_out'])}, see ebb.json."]
    return "\n".join(lines) + "\n"
