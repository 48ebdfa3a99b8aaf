"""What the votes say: how often ours was chosen over each baseline."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ...evaluate.statistics import wilson
from .manifest import Manifest
from .store import Store, Vote

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("fine_defocus")


def preferences(votes: Sequence[Vote], manifest: Manifest) -> list[dict[str, Any]]:
    """Ours against each baseline, in the manifest's order.

    share, low and high (Wilson, 95 %) are None without votes. The interval takes votes as independent, though
    each participant gives several.
    """
    rows = []
    for baseline in manifest.baselines:
        won = [vote.won for vote in votes if vote.baseline == baseline]
        low, high = wilson(sum(won), len(won)) if won else (None, None)
        rows.append(
            {
                "baseline": baseline,
                "name": manifest.methods[baseline],
                "votes": len(won),
                "wins": sum(won),
                "share": sum(won) / len(won) if won else None,
                "low": low,
                "high": high,
            }
        )
    return rows


def summary(store: Store) -> dict:
    """All figures: preferences, participants, share of left votes (a habit shows here), median seconds."""
    votes = store.votes()
    began, finished = store.participants()
    left = sum(vote.side == "left" for vote in votes)
    return {
        "ours": store.manifest.methods[store.manifest.ours],
        "question": store.manifest.question,
        "manifest": store.manifest.digest,
        "participants": began,
        "finished": finished,
        "votes": len(votes),
        "left_share": left / len(votes) if votes else None,
        "left_interval": list(wilson(left, len(votes))) if votes else None,
        "median_seconds": median(vote.seconds for vote in votes) if votes else None,
        "baselines": preferences(votes, store.manifest),
    }


def write_results(store: Store, folder: str | Path) -> list[Path]:
    """FOLDER/study.json, study.md and, where matplotlib is installed, study.png."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures, paths = summary(store), [folder / f"study.{suffix}" for suffix in ("json", "md", "png")]
    paths[0].write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(figures), encoding="utf-8")
    try:
        plot = preference_plot(figures["baselines"], f"{figures['ours']} chosen over")
        plot.savefig(paths[2])
    except ImportError as error:
        log.warning("There is no plot, which needs matplotlib (%s): python -m pip install matplotlib.", error)
        del paths[2]
    return paths


def preference_plot(rows: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """Shares with their intervals as horizontal bars, in the manner of the paper's figure A6.

    The dashed line is chance. A baseline without votes keeps its place and says so.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure((12.0, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if not row["votes"]:
            axes.text(0.01, place, "no votes yet", va="center", color="grey")
            continue
        share = row["share"]
        interval = [[share - row["low"]], [row["high"] - share]]
        axes.barh(place, share, 0.55, xerr=interval, color="#5c8ec7", ecolor="#183052", capsize=4)
        axes.text(1.02, place, f"{share:.1%} of {row['votes']:,}", va="center", clip_on=False)
    axes.axvline(0.5, color="#c85a3c", linestyle="--")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(xlim=(0.0, 1.0), ylim=(len(rows) - 0.5, -0.5), title=title)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def markdown(figures: dict) -> str:
    """The table of `summary` for people."""
    text = f"""# {figures["ours"]} against each baseline

> {figures["question"]}

Participants {figures["participants"]}, finished {figures["finished"]}; votes {figures["votes"]}.

| baseline | votes | ours chosen | share | Wilson 95 % |
|---|---|---|---|---|
"""
    for row in figures["baselines"]:
        share = "–" if row["share"] is None else f"{100 * row['share']:.1f} %"
        interval = "–" if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"
        name = row["name"].replace("|", "\\|")
        text += f"| {name} | {row['votes']} | {row['wins']} | {share} | {interval} |\n"
    if figures["votes"]:
        low, high = figures["left_interval"]
        text += (
            f"\nLeft side chosen in {100 * figures['left_share']:.1f} % ({100 * low:.1f} to {100 * high:.1f} "
            f"%); median time to a vote {figures['median_seconds']:.1f} s.\n"
        )
    return text
