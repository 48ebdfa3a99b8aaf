"""Everything is Better with Bokeh! (Ignatov et al. 2020): does the theorem hold on pairs from a real camera?

A folder has either `original` and `bokeh`, as the data set comes, with the same names in both, or pairs named
`NAME_f16.jpg` and `NAME_f1.8.jpg`. The first of a pair is taken at f/16, the second at f/1.8.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lens_models.light import srgb_to_linear
from lens_models.metrics.monotonicity import energy

from ..images import photos_in, read_srgb, save_sheet
from .statistics import wilson
from .table import markdown_table, write_report

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


def find_pairs(folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Photos at f/16 and f/1.8 by the scene's name. Raises ValueError for no pair; halves are logged."""
    folder = Path(folder)
    halves: dict[str, dict[str, Path]] = {}
    if (folder / DEEP).is_dir() and (folder / SHALLOW).is_dir():
        for kind in (DEEP, SHALLOW):
            for path in photos_in(folder / kind):
                halves.setdefault(path.stem, {})[kind] = path
    else:
        for path in photos_in(folder):
            if named := _NAMED.match(path.stem):
                kind = DEEP if named["f_number"] == "16" else SHALLOW
                halves.setdefault(named["name"], {})[kind] = path
    pairs = {name: (h[DEEP], h[SHALLOW]) for name, h in sorted(halves.items()) if len(h) == 2}
    if len(pairs) < len(halves):
        log.warning("%d pictures have no partner and are left out", len(halves) - len(pairs))
    if not pairs:
        raise ValueError(
            f"{folder} has no pairs: put them into {DEEP} (f/16) and {SHALLOW} (f/1.8) with the same names, "
            "or call them NAME_f16.jpg and NAME_f1.8.jpg."
        )
    return pairs


def judge_pairs(
    folder: str | Path, out: str | Path, *, sheets: int = 24, confidence: float = 0.95
) -> dict[str, Any]:
    """Shares of pairs whose energy is greater at f/16, and sheets of the first pairs; OUT/ebb.md and .json.

    Energies are per pixel, as the two pictures of EBB! are cropped alike and others need not be. Pairs that
    cannot be read are named and left out.
    """
    out, rows, left_out, shown = Path(out), [], {}, []
    for scene, paths in find_pairs(folder).items():
        try:
            deep, shallow = map(read_srgb, paths)
        except ValueError as error:
            left_out[scene] = str(error)
            log.warning("%s", error)
            continue
        row: dict[str, Any] = {"pair": scene}
        for space, convert in (("srgb", lambda t: t), ("linear", srgb_to_linear)):
            energies = [[e.item() / t[0, 0].numel() for e in energy(convert(t))] for t in (deep, shallow)]
            row[space], row[f"{space}_mean_removed"] = map(list, zip(*energies, strict=True))
        rows.append(row)
        if len(shown) < sheets:
            labels = [f"{scene}  f/16  E {row['srgb'][0]:.4f}", f"f/1.8  E {row['srgb'][1]:.4f}"]
            shown.append((labels, [deep, shallow]))
    if not rows:
        raise ValueError(f"No pair of {folder} could be read.")
    columns = {}
    for name in _COLUMNS:
        hits = sum(deep > shallow for deep, shallow in (row[name] for row in rows))
        interval = wilson(hits, len(rows), confidence)
        columns[name] = {"hits": hits, "share": hits / len(rows), "interval": interval}
    found = {
        "pairs": len(rows),
        "confidence": confidence,
        "paper_percent": PAPER_SHARE,
        "columns": columns,
        "left_out": left_out,
        "rows": rows,
    }
    write_report(found, markdown(found), out / "ebb.md")
    title = "Energy per pixel of 8-bit sRGB values"
    for start in range(0, len(shown), _PER_SHEET):  # a pair to a line, energies below, after figure A2
        labels, pictures = zip(*shown[start : start + _PER_SHEET], strict=True)
        path = out / "sheets" / f"pairs_{start // _PER_SHEET:03d}.png"
        save_sheet(path, pictures, labels, title=title, picture_width=384)
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The table for people."""
    interval = f"{100 * found['confidence']:g} % Wilson interval"
    rows = []
    for name, heading in _COLUMNS.items():
        column = found["columns"][name]
        low, high = (100 * end for end in column["interval"])
        share = f"{100 * column['share']:.2f} % ({column['hits']})"
        rows.append([heading, share, f"{low:.2f} to {high:.2f} %"])
    lines = [
        "# Energy of f/16 against f/1.8",
        "",
        *markdown_table([f"{found['pairs']} pairs", "E(f/16) > E(f/1.8)", interval], rows),
        "",
        f"The paper found {found['paper_percent']:g} % on about 5,000 pairs of EBB!, and does not say "
        "of which values.",
    ]
    if found["left_out"]:
        lines += ["", f"Left out: {len(found['left_out'])}, see ebb.json."]
    return "\n".join(lines) + "\n"
