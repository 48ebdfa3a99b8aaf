"""From samples to a table beside the paper's values."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lens_models.files import atomic
from lens_models.generator.camera_words import DEEP_FROM

from ..images import SUFFIXES, read_srgb
from .grid import COLUMNS, LABELLED, read_samples
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
    meters = Meters(config.metrics, "cuda" if torch.cuda.is_available() else "cpu")
    photos = _reference(config, meters, Path(out))
    found = {}
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
    def mean(values: Sequence[float | None], missing: str, scale: float, decimals: int) -> dict[str, Any]:
        known = [scale * v for v in values if v is not None]
        if not known:
            return {"why_not": missing}
        interval = bootstrap(known, config.confidence, config.resamples, config.seed)
        # rounded, so that the last bits of another machine's sums make no other table
        ends = None if interval is None else [round(end, decimals) for end in interval]
        return {"value": round(math.fsum(known) / len(known), decimals), "interval": ends}

    found = {
        column.replace("energy", "monotonicity"): mean([growing(s[column]) for s in samples], "", 100.0, 2)
        for column in COLUMNS
    }
    for column, scale, decimals in (*((name, 100.0, 2) for name in LABELLED), ("lpips", 1.0, 4)):
        values = [None if s[column] is None else math.fsum(s[column]) / len(s[column]) for s in samples]
        found[column] = mean(values, NO_WEIGHTS, scale, decimals)
    for name in ("deep", "shallow"):
        found[f"fid_{name}"] = _fid(samples, name, photos[name])
    return found


def _fid(samples: Sequence[Mapping[str, Any]], name: str, photos: Any) -> dict[str, Any]:
    if isinstance(photos, str):
        return {"why_not": photos}
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
    distance = frechet_distance(made.mean, made.covariance, *photos[:2])
    return {"value": round(distance, 2), "interval": None, "pictures": made.count, "photos": photos[2]}


def _reference(config: Evaluation, meters: Meters, out: Path) -> dict[str, Any]:
    """Mean, covariance and count of both sets of photos, or why there are none."""
    given = config.metrics
    if given.inception is None:
        return {"deep": NO_WEIGHTS, "shallow": NO_WEIGHTS}
    return {
        name: NO_PHOTOS if folder is None else _statistics(Path(folder), given.inception, meters, out)
        for name, folder in (("deep", given.deep), ("shallow", given.shallow))
    }


def _statistics(folder: Path, weights: str, meters: Meters, out: Path) -> Any:
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
    headings = ["row", "method", "samples"]
    for _, heading, _, paper in _SHOWN:
        headings += [heading, *(["paper"] if paper in known else [])]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for name, row in found["rows"].items():
        cells = [name, row["title"], str(row["samples"])]
        for column, _, decimals, paper in _SHOWN:
            cell = row["columns"][column]
            if "value" in cell:
                cells.append(with_interval(cell["value"], cell["interval"], decimals))
            else:
                cells.append(cell["why_not"])
            if paper in known:
                cells.append(f"{row['paper'][paper]:.{decimals}f}" if paper in row["paper"] else "")
        lines.append("| " + " | ".join(cells) + " |")
    stops = ", ".join(f"f/{n:g}" for n in found["f_numbers"])
    notes = [
        f"Blur monotonicity over {stops}: share of neighbours whose energy Σ v² grows strictly, of values "
        "before any rounding. The paper does not say of which values, nor whether the mean is removed: its "
        "figure stands beside linear light, where its theorem holds.",
        f"Brackets: {100 * found['confidence']:g} % bootstrap interval of the mean over "
        "samples. FID has none.",
        "Empty cells in the paper's columns are values not known here.",
        f"Config {found['config_hash']}.",
    ]
    title = found["table"].replace("table", "Table ")
    tiny = found["source"] == "tiny"
    warning = ["**Made with small untrained networks: these numbers say nothing of any method.**", ""] * tiny
    return "\n".join([f"# {title}", "", *warning, *lines, "", *(f"{note}\n" for note in notes)])


def with_interval(value: float, interval: Sequence[float] | None, decimals: int) -> str:
    """A number for people, with its interval in brackets where it has one."""
    ends = "" if interval is None else f" [{', '.join(f'{end:.{decimals}f}' for end in interval)}]"
    return f"{value:.{decimals}f}{ends}"


def write_table(found: Mapping[str, Any], out: str | Path) -> Path:
    """OUT/table1.md and .json; the path of the first."""
    out = Path(out)
    path = out / f"{found['table']}.md"
    for target, text in (
        (path, markdown(found)),
        (path.with_suffix(".json"), json.dumps(found, indent=1, ensure_ascii=False) + "\n"),
    ):
        with atomic(target) as part:
            part.write_text(text, encoding="utf-8")
    return path
