"""From samples to a table beside the paper's values."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lens_models.files import atomic
from lens_models.generator.camera_words import DEEP_FROM

from ..images import SUFFIXES, read_srgb
from .grid import read_samples
from .measures import Meters
from .methods import METHODS
from .metrics.fid import FeatureStatistics, frechet_distance
from .options import Evaluation
from .prompts import PromptEntry
from .statistics import bootstrap

log = logging.getLogger("fine_defocus")
NO_WEIGHTS, NO_PHOTOS, NO_EXIF = "no weights", "no reference photos", "no f-numbers in the prompts"
TOO_FEW = "fewer than 2 pictures"
#: What the paper prints, as far as it is known here; anything else stays empty.
PAPER: dict[str, dict[str, dict[str, float]]] = {
    "table1": {
        row: dict(zip(("monotonicity", "consistency", "lpips", "fid_deep", "fid_shallow"), v, strict=True))
        for row, v in {
            "9": (82.12, 87.62, 0.0338, 18.54, 24.04),
            "10": (93.91, 92.34, 0.0064, 13.24, 16.69),
            "11": (96.89, 91.42, 0.0144, 13.67, 17.51),
        }.items()
    },
    "table2": {},
}
#: Columns: name in table1.json, heading, decimals, name of the paper's column.
_SHOWN = (
    ("monotonicity_linear", "monotonicity %, linear light", 2, "monotonicity"),
    ("monotonicity_linear_mean_removed", "the same, mean removed", 2, ""),
    ("monotonicity_srgb", "monotonicity %, sRGB values", 2, ""),
    ("monotonicity_srgb_mean_removed", "the same, mean removed", 2, ""),
    ("consistency_adjacent", "consistency %, neighbours", 2, "consistency"),
    ("consistency_all", "consistency %, all pairs", 2, ""),
    ("consistency_reference", "consistency %, with f/22", 2, ""),
    ("lpips", "LPIPS", 4, "lpips"),
    ("fid_deep", "FID deep", 2, "fid_deep"),
    ("fid_shallow", "FID shallow", 2, "fid_shallow"),
)


def growing(energies: Sequence[float]) -> float:
    """Share (0..1) of neighbours whose energy grows strictly."""
    return sum(low < high for low, high in pairwise(energies)) / (len(energies) - 1)


def summary(
    config: Evaluation, table: str, rows: Sequence[str], prompts: Sequence[PromptEntry], out: str | Path
) -> dict[str, Any]:
    """What table1.json holds: every column of every row, a number with its interval or why there is none."""
    meters, found = Meters(config.metrics, "cuda" if torch.cuda.is_available() else "cpu"), {}
    photos = {
        name: _reference(folder, config.metrics.inception, meters, Path(out))
        for name, folder in (("deep", config.metrics.deep), ("shallow", config.metrics.shallow))
    }
    for row in rows:
        samples = read_samples(out, row, len(prompts), config.unit_size)
        found[row] = {
            "title": METHODS[table][row].title,
            "samples": len(samples),
            "columns": _columns(config, samples, photos),
            "paper": PAPER[table].get(row, {}),
        }
    return {
        "table": table,
        "source": config.source,
        "config_hash": config.hash,
        "f_numbers": list(config.f_numbers),
        "confidence": config.confidence,
        "rows": found,
    }


def _columns(
    config: Evaluation, samples: Sequence[Mapping[str, Any]], photos: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, _, decimals, _ in _SHOWN:
        if name.startswith("fid_"):
            found[name] = _fid(samples, name.removeprefix("fid_"), photos)
            continue
        # rounded, so that the last bits of another machine's sums make no other table
        mean = mean_of_samples(config, samples, name.replace("monotonicity", "energy"), decimals)
        found[name] = mean or {"why_not": NO_WEIGHTS}
    return found


def mean_of_samples(
    config: Evaluation, samples: Sequence[Mapping[str, Any]], column: str, decimals: int | None = None
) -> dict[str, Any] | None:
    """Mean and interval of a column, percent but for LPIPS; None where no sample has the column.

    Of energies it is the mean of the shares that grow. decimals: that are kept; None keeps all.
    """
    one = growing if column.startswith("energy") else lambda values: math.fsum(values) / len(values)
    scale = 1.0 if column == "lpips" else 100.0
    values = [scale * one(s[column]) for s in samples if s.get(column) is not None]
    if not values:
        return None
    interval = bootstrap(values, config.confidence, config.resamples, config.seed)
    mean = {"value": math.fsum(values) / len(values), "interval": interval}
    if decimals is not None:
        ends = None if interval is None else [round(end, decimals) for end in interval]
        mean = {"value": round(mean["value"], decimals), "interval": ends}
    return mean


def _fid(samples: Sequence[Mapping[str, Any]], name: str, photos: Mapping[str, Any]) -> dict[str, Any]:
    reference = photos[name]
    if isinstance(reference, str):
        return {"why_not": reference}
    if all(s["own_features"] is None for s in samples):
        return {"why_not": NO_EXIF}
    features = [
        s["own_features"]
        for s in samples
        if s["own_features"] is not None and (s["own_f_number"] >= DEEP_FROM) == (name == "deep")
    ]
    if len(features) < 2:
        return {"why_not": TOO_FEW}
    made = FeatureStatistics().add(torch.tensor(features))
    distance = frechet_distance(made.mean, made.covariance, *reference[:2])
    return {"value": round(distance, 2), "interval": None, "pictures": made.count, "photos": reference[2]}


def _reference(photos: str | None, weights: str | None, meters: Meters, out: Path) -> Any:
    """Mean, covariance and count of a folder of photos, or why there are none."""
    if weights is None or photos is None:
        return NO_WEIGHTS if weights is None else NO_PHOTOS
    folder = Path(photos)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} photos: FID compares with at least 2.")
    identity = [weights, *(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files)]
    cache = out / f"reference_{hashlib.sha256(chr(10).join(identity).encode()).hexdigest()[:16]}.npz"
    if not cache.is_file():
        log.info("features of %d photos in %s", len(files), folder)
        found = FeatureStatistics()
        for file in files:
            found.add(torch.tensor([meters.features(read_srgb(file))]))
        with atomic(cache) as part:
            np.savez(part, mean=found.mean.numpy(), covariance=found.covariance.numpy())
    with np.load(cache) as held:
        return torch.from_numpy(held["mean"]), torch.from_numpy(held["covariance"]), len(files)


def markdown(found: Mapping[str, Any]) -> str:
    """The table for people; brackets are intervals."""
    known = {c for row in found["rows"].values() for c in row["paper"]}
    headings, rows = ["row", "method", "samples"], []
    for _, heading, _, paper in _SHOWN:
        headings += [heading, *(["paper"] if paper in known else [])]
    for name, row in found["rows"].items():
        cells = [name, row["title"], str(row["samples"])]
        for column, _, decimals, paper in _SHOWN:
            cells.append(with_interval(row["columns"][column], decimals))
            if paper in known:
                cells.append(f"{row['paper'][paper]:.{decimals}f}" if paper in row["paper"] else "")
        rows.append(cells)
    notes = [
        f"Blur monotonicity over {listed(found['f_numbers'])}: share of neighbours whose energy Σ v² grows "
        "strictly, of values before any rounding. The paper does not say of which values, nor whether the "
        "mean is removed: its figure stands beside linear light, where its theorem holds.",
        f"Brackets: {100 * found['confidence']:g} % bootstrap interval of the mean over samples. FID has "
        "none.",
        "Empty cells in the paper's columns are values not known here.",
        f"Config {found['config_hash']}.",
    ]
    title = found["table"].replace("table", "Table ")
    tiny = found["source"] == "tiny"
    warning = ["**Made with small untrained networks: these numbers say nothing of any method.**", ""] * tiny
    return "\n".join(
        [f"# {title}", "", *warning, *markdown_table(headings, rows), "", *(f"{note}\n" for note in notes)]
    )


def listed(f_numbers: Sequence[float]) -> str:
    """Apertures as a text."""
    return ", ".join(f"f/{n:g}" for n in f_numbers)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return [lines[0], "|" + "---|" * len(headings), *lines[1:]]


def with_interval(cell: Mapping[str, Any], decimals: int) -> str:
    """A number for people, with its interval in brackets where it has one; or why there is no number."""
    if "why_not" in cell:
        return cell["why_not"]
    interval = cell["interval"]
    ends = "" if interval is None else f" [{', '.join(f'{end:.{decimals}f}' for end in interval)}]"
    return f"{cell['value']:.{decimals}f}{ends}"


def write_report(found: Mapping[str, Any], text: str, path: Path) -> Path:
    """Write the text to PATH, a .md, and what it was made of to the .json beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    for target, written in ((path, text), (path.with_suffix(".json"), content)):
        with atomic(target) as part:
            part.write_text(written, encoding="utf-8")
    return path
