"""The data card of a packed set: where its samples come from, what was dropped and why, what is not known.

OUTPUT/deep/DATACARD.md and OUTPUT/shallow/DATACARD.md, written with the report from the same counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.packed import read_manifest
from . import STAGES
from .flow import write_text
from .options import Curation

_REASONS = 5
#: Settings that say where and how fast the work ran, and not what was chosen.
_NOT_ABOUT_THE_DATA = {"batch", "skip", "timeout_s"}
#: Settings that name a file or a folder; so does a model without a revision.
_FILES = {"weights", "phones", "vae"}
_UNKNOWN = (
    "Who is in the photos, whether they agreed, and the licences: none of it is read. Check the sources.",
    "Photos without EXIF, and those whose makers or editors took it out, are not in the set.",
    "Distances: the EXIF tag of the subject's distance is rare and not checked.",
    "Captions and the verdicts on blur and on being a photo are networks' guesses, whose errors are not "
    "measured here. With random or tiny networks they mean nothing.",
)


def write_card(config: Curation, stages: Sequence[Any], name: str) -> Path | None:
    """The card of one set, from the report's counts of each stage; None where the set is not there."""
    path = Path(config.output) / name
    if not path.is_dir():
        return None
    manifest = read_manifest(path)
    side, counts = config.pack.size_px, defaultdict(Counter)
    for column, counter in stages[-1].histograms.items():
        counts[column] = Counter({value: n for (value, group), n in counter.items() if group == name})
    makers = ", ".join(f"{maker} {count:,}" for maker, count in counts["make"].most_common())
    pieces = [
        f"# The {name} set",
        f"{manifest['samples']:,} samples of {side} × {side} px: latent, EXIF and caption"
        + (", with the picture.\n" if config.pack.images else ".\n")
        + f"Settings `{manifest['about']['settings']}`, index `{manifest['index']['sha256'][:16]}`.",
        "## Sources",
        "\n".join(f"- `{Path(folder).name}`" for folder in config.photos),
        "## From photos to samples",
        "Both sets together; the last stage has this set's share in the histograms.",
        "\n".join(
            ["| stage | kept | dropped | why, most often |", "|---|---|---|---|", *map(_stage_row, stages)]
        ),
        "## Decisions",
        "\n".join(decisions(config)),
        "## What is in it",
        *_histogram("f-number from", counts["f_number"]),
        *_histogram("focal length from, mm", counts["focal_mm"]),
        f"Makers: {makers}.",
        "## Not known",
        "\n".join(f"- {line}" for line in _UNKNOWN),
    ]
    write_text(path / "DATACARD.md", "\n\n".join(pieces) + "\n")
    return path / "DATACARD.md"


def _stage_row(stage: Any) -> str:
    reasons = [(reason, n) for (kept, reason), n in stage.reasons.most_common() if not kept][:_REASONS]
    why = "; ".join(f"{reason} ({n:,})".replace("|", "\\|") for reason, n in reasons)
    return f"| {stage.name} | {stage.kept:,} | {stage.dropped:,} | {why} |"


def decisions(config: Curation) -> Iterator[str]:
    """A line for each stage: the settings that decide what is in the sets, files by their names alone."""
    for stage in STAGES:
        options = getattr(config, stage)
        if options.skip:
            yield f"- **{stage}**: left out"
            continue
        values = options.model_dump(exclude=_NOT_ABOUT_THE_DATA)
        files = _FILES if values.get("revision") else {*_FILES, "model"}
        settings = (f"{key} {_setting(value, key in files)}" for key, value in values.items())
        yield f"- **{stage}**: " + ", ".join(settings)


def _setting(value: Any, is_file: bool) -> str:
    return "–" if value is None else f"`{Path(value).name if is_file else value}`"


def _histogram(title: str, counts: Counter) -> Iterator[str]:
    if counts:
        edges, numbers = zip(*sorted(counts.items()), strict=True)
        head, row = " | ".join(f"{edge:g}" for edge in edges), " | ".join(f"{count:,}" for count in numbers)
        yield f"| {title} | {head} |\n{'|---' * (len(edges) + 1)}|\n| samples | {row} |"
