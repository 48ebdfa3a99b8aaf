"""The report: what every stage kept and dropped and why, as HTML with pictures.

OUTPUT/report/index.html  and beside it the charts and sheets as PNG
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import charts
from .card import write_card
from .flow import Done, columns_of, is_current, picture_path, read_done, read_table, write_text
from .options import Curation
from .pixels import open_photo
from .rules import DEEP, SHALLOW

_SETS = (SHALLOW, DEEP)
_F_EDGES = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 10.0, 11.0, 16.0, 22.0, 32.0, 50.1)
_FOCAL_EDGES = (0.0, 14.0, 20.0, 28.0, 35.0, 50.0, 70.0, 105.0, 135.0, 200.0, 300.0, 1e9)
_MAKERS, _REASONS = 12, 8
_SHEET_PX = 400
_UNREAD = ("empty", "a symbolic link", "not a", "its name", "cannot be read", "its header", "no picture")


@dataclass
class _Stage:
    """What one stage did. samples: rows by kept or not, those with the smallest hashes."""

    name: str
    kept: int = 0
    dropped: int = 0
    reasons: Counter = field(default_factory=Counter)
    f_numbers: Counter = field(default_factory=Counter)
    focals: Counter = field(default_factory=Counter)
    makers: Counter = field(default_factory=Counter)
    samples: dict[bool, list] = field(default_factory=lambda: {True: [], False: []})
    f_number_edges: tuple[float, ...] = _F_EDGES
    focal_edges: tuple[float, ...] = _FOCAL_EDGES


def write_report(config: Curation) -> Path:
    """Write the report on the stages that are done, and the sets' cards; returns the report's HTML file.

    Raises ConfigError before any stage.
    """
    folder = Path(config.output) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    stages = [_counted(config, done) for done in _done(config)]
    pieces = ["<!doctype html><meta charset=utf-8><title>Curation</title>", _STYLE, "<h1>Curation</h1>"]
    pieces.append(_saved(folder, "stages", charts.stacked_bars("Photos after each stage", _funnel(stages))))
    pieces.append(_table(stages))
    for stage in stages:
        pieces.append(f"<h2>{stage.name}</h2><p>{stage.kept:,} kept, {stage.dropped:,} dropped</p>")
        pieces += [_saved(folder, f"{stage.name}_{name}", chart) for name, chart in _charts(stage)]
        for kept in (True, False):
            word = "kept" if kept else "dropped"
            if tiles := _tiles(config, stage, kept):
                title = f"{stage.name}: some of those {word}"
                pieces.append(_saved(folder, f"{stage.name}_{word}", charts.sheet(title, tiles)))
    write_text(folder / "index.html", "\n".join(pieces) + "\n")
    if stages[-1].name == "pack":
        for name in _SETS:
            write_card(config, stages, name)
    return folder / "index.html"


def _done(config: Curation) -> Iterator[Done]:
    """The finished stages; the first must be there."""
    for number, stage in enumerate(config.stages):
        if number and not (Path(config.output) / f"{stage}.json").is_file():
            return
        done = read_done(config, stage, current=number == 0)
        if not is_current(config, done):
            return
        yield done


def _counted(config: Curation, done: Done) -> _Stage:
    stage = _Stage(done.stage)
    wanted = ("kept", "reason", "key", "root", "path", "set", "f_number", "focal_mm", "make", "blur", "p_yes")
    for file in done.files(config.output):
        there = set(columns_of(file))
        _count(config, stage, _rows(file, [name for name in wanted if name in there]))
    return stage


def _rows(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    yield from read_table(file, columns).to_pylist()


def _count(config: Curation, stage: _Stage, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        kept = row["kept"]
        stage.kept += kept
        stage.dropped += not kept
        if row["reason"]:
            stage.reasons[kept, kind_of(row["reason"])] += 1
        if "f_number" in row:
            told = row.get("set") if kept and row.get("set") else ("kept" if kept else "dropped")
            for counter, edges, name in (
                (stage.f_numbers, _F_EDGES, "f_number"),
                (stage.focals, _FOCAL_EDGES, "focal_mm"),
            ):
                place = _place(row[name], edges)
                if place is not None:
                    counter[place, told] += 1
            stage.makers[_maker(row["make"]), told] += 1
        _sample(stage.samples[kept], row, config.report_samples)


def _sample(samples: list, row: dict[str, Any], most: int) -> None:
    """Keep the rows whose names have the smallest hashes: the same ones in every report."""
    order = hashlib.sha256(f"{row['root']} {row['path']}".encode()).hexdigest()
    if len(samples) < most or order < samples[-1][0]:
        samples.append((order, row))
        samples.sort(key=lambda pair: pair[0])
        del samples[most:]


def kind_of(reason: str) -> str:
    """The reason without what is the photo's own.

    >>> kind_of("deep, and exposed for 0.5 s, longer than 0.1 s"), kind_of("looks the same as a/b.jpg")
    ('deep, and exposed for … s, longer than … s', 'looks the same as …')
    """
    for start in ("looks the same as", "the same file as", "its pixels cannot be decoded"):
        if reason.startswith(start):
            return f"{start} …"
    reason = reason.partition(": ")[0] if reason.startswith("its header") else reason
    return re.sub(r"\d[\d.,]*", "…", reason)


def _maker(make: str | None) -> str:
    return make.split()[0].capitalize()[:16] if make else "not told"


def _place(value: float | None, edges: tuple[float, ...]) -> int | None:
    if value is None or not edges[0] <= value < edges[-1]:
        return None
    return sum(value >= edge for edge in edges) - 1


def _funnel(stages: list[_Stage]) -> list[tuple[str, dict[str, int]]]:
    return [(stage.name, {"kept": stage.kept, "dropped": stage.dropped}) for stage in stages]


def _charts(stage: _Stage) -> Iterator[tuple[str, Any]]:
    if stage.reasons:
        rows = [
            (reason, {"kept" if kept else "dropped": count})
            for (kept, reason), count in stage.reasons.most_common(_REASONS)
        ]
        yield "reasons", charts.stacked_bars(f"{stage.name}: reasons and remarks", rows)
    for name, title, counter, edges in (
        ("f_number", "f-number, from", stage.f_numbers, _F_EDGES),
        ("focal", "focal length, from, mm", stage.focals, _FOCAL_EDGES),
    ):
        if counter:
            labels = [f"{edge:g}" for edge in edges[:-1]]
            series = {
                kind: [counter[place, kind] for place in range(len(labels))]
                for kind in (*_SETS, "kept", "dropped")
                if any(told == kind for _, told in counter)
            }
            yield name, charts.histogram(f"{stage.name}: {title}", labels, series)
    if stage.makers:
        totals = Counter()
        for (maker, _), count in stage.makers.items():
            totals[maker] += count
        kinds = [k for k in (*_SETS, "kept", "dropped") if any(told == k for _, told in stage.makers)]
        rows = [
            (maker, {kind: stage.makers[maker, kind] for kind in kinds})
            for maker, _ in totals.most_common(_MAKERS)
        ]
        yield "makers", charts.stacked_bars(f"{stage.name}: camera makers", rows)


def _tiles(config: Curation, stage: _Stage, kept: bool) -> list[tuple[Any, str]]:
    tiles = []
    for _, row in stage.samples[kept]:
        words = [row["path"].rpartition("/")[2]]
        if row.get("f_number"):
            words.append(f"f/{row['f_number']:.3g}")
        words += [row[name] for name in ("set", "blur") if row.get(name) and row[name] not in row["reason"]]
        if row.get("p_yes") is not None:
            words.append(f"P(photo) {row['p_yes']:.2f}")
        if row["reason"]:
            words.append(f"({row['reason']})")
        tiles.append((_small(config, row), " ".join(words)))
    return tiles


def _small(config: Curation, row: dict[str, Any]) -> Any:
    if row["reason"].startswith(_UNREAD):
        return None
    try:
        return open_photo(picture_path(config, row), draft_px=_SHEET_PX)
    except Exception:  # as the stages found
        return None


def _table(stages: list[_Stage]) -> str:
    lines = ["<table><tr><th>stage<th>kept<th>dropped<th>why, most often"]
    for stage in stages:
        told = [f"{html.escape(r)} ({n:,})" for (kept, r), n in stage.reasons.most_common() if not kept]
        lines.append(f"<tr><td>{stage.name}<td>{stage.kept:,}<td>{stage.dropped:,}<td>{'; '.join(told[:3])}")
    return "\n".join([*lines, "</table>"])


def _saved(folder: Path, name: str, figure: Any) -> str:
    figure.savefig(folder / f"{name}.png")
    return f'<p><img src="{name}.png" alt="{html.escape(name.replace("_", " "))}">'


_STYLE = """<style>
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 82em; padding: 0 1em; color: #202020 }
img { max-width: 100%; height: auto }
td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top }
</style>"""
