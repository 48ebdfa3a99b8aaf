"""What the labels say: the table for the blur network, and how far annotators agree."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from .store import SKIPPED, Labels


def decided(labels: Mapping[str, str]) -> str | None:
    """The label of a photo: what more annotators say than anything else; None without such a one."""
    counts = Counter(label for label in labels.values() if label != SKIPPED).most_common(2)
    if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0]


def kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa of two annotators on the same photos: (p - e) / (1 - e), 1 agrees, 0 is chance.

    None without photos, and where both say one and the same of all.
    """
    count = len(first)
    if not count:
        return None
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / count
    shares = [Counter(said) for said in (first, second)]
    chance = sum(shares[0][label] * shares[1][label] for label in shares[0]) / count**2
    return None if chance == 1.0 else (agree - chance) / (1.0 - chance)


def agreement(labels: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, int, float | None]]:
    """(annotator, annotator, photos both labelled, kappa) of all pairs."""
    people = sorted({name for said in labels.values() for name in said})
    found = []
    for a, b in combinations(people, 2):
        both = [(said[a], said[b]) for said in labels.values() if a in said and b in said]
        both = [pair for pair in both if SKIPPED not in pair]
        first, second = ([pair[k] for pair in both] for k in (0, 1))
        found.append((a, b, len(both), kappa(first, second)))
    return found


def export(labels: Labels, path: str | Path) -> dict[str, int]:
    """Write `path,label` as `curate train-blur` reads it; how many of each label, and "undecided"."""
    path, counts = Path(path), Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(("path", "label"))
        for photo, said in labels.all().items():
            label = decided(said)
            if label is not None:
                table.writerow((os.path.relpath(labels.photos / photo, path.parent), label))
            counts[label or "undecided"] += 1
    part.replace(path)
    return dict(counts)
