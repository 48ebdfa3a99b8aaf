"""The report: what every stage kept and dropped and why, as HTML with pictures.

OUTPUT/report/index.html  and beside it the charts and sheets as PNG
"""

from __future__ import annotations

import hashlib
import html
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ..config.load import ConfigError
from . import charts
from .card import write_card
from .flow import Done, picture_path, read_done, read_table, write_text
from .options import Curation
from .pixels import open_photo
from .rules import DEEP, SHALLOW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SETS = (SHALLOW, DEEP)
_GROUPS = (*_SETS, "kept", "dropped")
#: Column, name of the chart, its title, and lower edges of the bars, the last one the upper edge of all.
_HISTOGRAMS = (
    ("f_number", "f_number", "f-number, from",
     (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 10.0, 11.0, 16.0, 22.0, 32.0, 50.1)),
    ("focal_mm", "focal", "focal length, from, mm",
     (0.0, 14.0, 20.0, 28.0, 35.0, 50.0, 70.0, 105.0, 135.0, 200.0, 300.0, 1e9)),
)  # fmt: skip
_MAKERS, _REASONS = 12, 8
_SHEET_PX = 400
_UNREAD = ("empty", "a symbolic link", "not a", "its name", "cannot be read", "its header", "no picture")
_COLUMNS = ("kept", "reason", "key", "root", "path", "set", "f_number", "focal_mm", "make", "blur", "p_yes")


@dataclass
class StageSummary:
    """What one stage did. samples: rows by kept or not, those with the smallest hashes.

    histograms: by column, photos for each (lower edge or maker, group of _GROUPS).
    """

    name: str
    kept: int = 0
    dropped: int = 0
    reasons: Counter = field(default_factory=Counter)
    histograms: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    samples: dict[bool, list] = field(default_factory=lambda: {True: [], False: []})


def write_report(config: Curation) -> Path:
    """Write the report on the stages that are done, and the sets' cards; returns the report's HTML file.

    Raises ConfigError before any stage.
    """
    folder = Path(config.output) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    stages = [_summary(config, done) for done in _finished(config)]
    funnel = [(stage.name, {"kept": stage.kept, "dropped": stage.dropped}) for stage in stages]
    pieces = ["<!doctype html><meta charset=utf-8><title>Curation</title>", _STYLE, "<h1>Curation</h1>"]
    pieces.append(_saved(folder, "stages", charts.stacked_bars("Photos after each stage", funnel)))
    pieces.append(_table(stages))
    for stage in stages:
        pieces.append(f"<h2>{stage.name}</h2><p>{stage.kept:,} kept, {stage.dropped:,} dropped</p>")
        pieces += [_saved(folder, f"{stage.name}_{name}", chart) for name, chart in _charts(config, stage)]
    write_text(folder / "index.html", "\n".join(pieces) + "\n")
    if stages[-1].name == "pack":
        for name in _SETS:
            write_card(config, stages, name)
    return folder / "index.html"


def _finished(config: Curation) -> Iterator[Done]:
    """The finished stages; the first must be there."""
    first, *others = config.stages
    yield read_done(config, first)
    for stage in others:
        try:
            yield read_done(config, stage)
        except ConfigError:
            return


def _summary(config: Curation, done: Done) -> StageSummary:
    stage = StageSummary(done.stage)
    for file in done.files(config.output):
        names = set(pq.read_schema(file).names)
        for row in read_table(file, [name for name in _COLUMNS if name in names]).to_pylist():
            _count(stage, row)
            _sample(stage.samples[row["kept"]], row, config.report_samples)
    return stage


def _count(stage: StageSummary, row: Mapping[str, Any]) -> None:
    kept = row["kept"]
    stage.kept += kept
    stage.dropped += not kept
    if row["reason"]:
        stage.reasons[kept, kind_of(row["reason"])] += 1
    if "f_number" not in row:
        return
    group = (row.get("set") or "kept") if kept else "dropped"
    for column, _, _, edges in _HISTOGRAMS:
        value = row[column]
        if value is not None and edges[0] <= value < edges[-1]:
            stage.histograms[column][edges[bisect_right(edges, value) - 1], group] += 1
    maker = row["make"].split()[0].capitalize()[:16] if row["make"] else "not named"
    stage.histograms["make"][maker, group] += 1


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


def _charts(config: Curation, stage: StageSummary) -> Iterator[tuple[str, Figure]]:
    if stage.reasons:
        reasons = stage.reasons.most_common(_REASONS)
        rows = [(reason, {"kept" if kept else "dropped": count}) for (kept, reason), count in reasons]
        yield "reasons", charts.stacked_bars(f"{stage.name}: reasons and remarks", rows)
    for column, name, title, edges in _HISTOGRAMS:
        if counter := stage.histograms[column]:
            series = {kind: [counter[edge, kind] for edge in edges[:-1]] for kind in _groups_in(counter)}
            labels = [f"{edge:g}" for edge in edges[:-1]]
            yield name, charts.histogram(f"{stage.name}: {title}", labels, series)
    if counter := stage.histograms["make"]:
        totals, groups = Counter(), _groups_in(counter)
        for (maker, _), count in counter.items():
            totals[maker] += count
        rows = [
            (maker, {kind: counter[maker, kind] for kind in groups})
            for maker, _ in totals.most_common(_MAKERS)
        ]
        yield "makers", charts.stacked_bars(f"{stage.name}: camera makers", rows)
    for kept, word in ((True, "kept"), (False, "dropped")):
        if tiles := [_tile(config, row) for _, row in stage.samples[kept]]:
            yield word, charts.sheet(f"{stage.name}: some of those {word}", tiles)


def _groups_in(counter: Counter) -> list[str]:
    present = {group for _, group in counter}
    return [group for group in _GROUPS if group in present]


def _tile(config: Curation, row: dict[str, Any]) -> tuple[Any, str]:
    """A sample's picture, None where it cannot be read, and what is known of it."""
    words = [row["path"].rpartition("/")[2]]
    if row.get("f_number"):
        words.append(f"f/{row['f_number']:.3g}")
    words += [row[name] for name in ("set", "blur") if row.get(name) and row[name] not in row["reason"]]
    if row.get("p_yes") is not None:
        words.append(f"P(photo) {row['p_yes']:.2f}")
    if row["reason"]:
        words.append(f"({row['reason']})")
    picture = None
    if not row["reason"].startswith(_UNREAD):
        with suppress(Exception):  # damaged, as its row says
            picture = open_photo(picture_path(config, row), draft_px=_SHEET_PX)
    return picture, " ".join(words)


def _table(stages: list[StageSummary]) -> str:
    lines = ["<table><tr><th>stage<th>kept<th>dropped<th>why, most often"]
    for stage in stages:
        why = [f"{html.escape(r)} ({n:,})" for (kept, r), n in stage.reasons.most_common() if not kept]
        lines.append(f"<tr><td>{stage.name}<td>{stage.kept:,}<td>{stage.dropped:,}<td>{'; '.join(why[:3])}")
    return "\n".join([*lines, "</table>"])


def _saved(folder: Path, name: str, figure: Figure) -> str:
    figure.savefig(folder / f"{name}.png")
    return f'<p><img src="{name}.png" alt="{html.escape(name.replace("_", " "))}">'


_STYLE = """<style>
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 82em; padding: 0 1em; color: #202020 }
img { max-width: 100%; height: auto }
td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top }
</style>"""
