"""The fourth stage: photos that look the same, of which the largest stays.

A photo's hash is the sign of the differences of neighbours in a 9 × 8 px thumbnail (dHash). Hashes that
differ in d bits agree in at least one of d + 1 stretches, so only photos that agree in one are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..units import Unit
from .flow import (
    VERDICT,
    Done,
    Engine,
    Progress,
    RowWorker,
    counts,
    dropped,
    inputs_of,
    kept,
    picture_path,
    read_table,
    run_stage,
    write_settings,
)
from .options import Curation, digest
from .pixels import open_photo

_BITS = 64
_WIDTH, _HEIGHT = 9, 8
#: Decoding smaller makes other thumbnails; this is the next power of two that leaves room to average.
_DRAFT_PX = 64
#: Photos of one stretch that are compared with one another at a time.
_BLOCK = 2048


def run(config: Curation, before: Done, engine: Engine, progress: Progress | None = None) -> Done:
    """Hash all photos, then compare them, in this process."""
    make = partial(Hasher, config)
    hashed = run_stage(
        config,
        "duplicates",
        inputs_of(before),
        make,
        engine,
        note="hashes",
        total=counts(config, before)[0],
        progress=progress,
    )
    verdict = compare(_photos(config, hashed), config.duplicates.distance)
    inputs = []
    for number, name in enumerate(hashed.units):
        own = tuple(sorted(verdict.of(number).items()))
        inputs.append((digest(name, own), (f"{hashed.folder}/{name}.parquet", own)))
    make = partial(Judge, config)
    # the comparison has its result in memory: writing it here is a matter of seconds
    done = run_stage(config, "duplicates", inputs, make, Engine())
    write_settings(config, done)
    return done


def dhash(picture: Any) -> tuple[int, float]:
    """64 bits of a Pillow picture, and the thumbnail's standard deviation, of 255."""
    from PIL import Image

    grey = picture.convert("L").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.int16)
    bits = np.packbits(pixels[:, 1:] > pixels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big"), float(pixels.std())


class Hasher(RowWorker):
    """Hashes a unit's photos; what cannot be decoded is dropped."""

    columns = (("dhash", pa.uint64()), ("contrast", pa.float32()))

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._judged(row) for row in rows]

    def _judged(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            value, contrast = dhash(open_photo(picture_path(self.config, row), draft_px=_DRAFT_PX))
        except Exception as error:  # damaged files fail in every way there is
            return dropped(f"its pixels cannot be decoded: {str(error) or type(error).__name__}")
        return kept(row["reason"], dhash=value, contrast=contrast)


class Judge:
    """Writes a unit's verdicts; items: file of the hashes, (row, reason) of those that are dropped."""

    def __init__(self, config: Curation):
        self.config = config

    def __call__(self, unit: Unit) -> pa.Table:
        file, own = unit.items
        table = read_table(Path(self.config.output) / file)
        stays = table["kept"].to_pylist()
        reasons = table["reason"].to_pylist()
        for row, reason in own:
            stays[row], reasons[row] = False, reason
        for (name, kind), values in zip(VERDICT, (stays, reasons), strict=True):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, pa.field(name, kind), pa.array(values, kind))
        told = {"settings": self.config.chain("duplicates"), "unit": unit.name}
        return table.replace_schema_metadata(told)


@dataclass(frozen=True)
class Photos:
    """Columns of all photos: unit and row where it stands, its set, sha256, path, dHash, pixels, contrast."""

    unit: np.ndarray
    row: np.ndarray
    set: list[str]
    key: list[str]
    path: list[str]
    dhash: np.ndarray
    pixels: np.ndarray
    contrast: np.ndarray

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class Verdicts:
    """reasons: {(unit, row): reason} of those that are dropped."""

    reasons: dict[tuple[int, int], str]

    def of(self, unit: int) -> dict[int, str]:
        """{row: reason} of one unit."""
        return self._by_unit.get(unit, {})

    def __post_init__(self) -> None:
        units: dict[int, dict[int, str]] = {}
        for (unit, row), reason in self.reasons.items():
            units.setdefault(unit, {})[row] = reason
        object.__setattr__(self, "_by_unit", units)


def _photos(config: Curation, hashed: Done) -> Photos:
    columns = ("kept", "set", "key", "path", "dhash", "contrast", "width", "height")
    parts: dict[str, list] = {name: [] for name in ("unit", "row", "dhash", "pixels", "contrast")}
    sets: list[str] = []
    keys: list[str] = []
    paths: list[str] = []
    for number, file in enumerate(hashed.files(config.output)):
        table = read_table(file, columns)
        rows = np.flatnonzero(table["kept"].to_numpy(zero_copy_only=False))
        table = table.take(rows)
        sets += table["set"].to_pylist()
        keys += table["key"].to_pylist()
        paths += table["path"].to_pylist()
        parts["unit"].append(np.full(len(rows), number))
        parts["row"].append(rows)
        parts["dhash"].append(table["dhash"].to_numpy(zero_copy_only=False).astype(np.uint64))
        sides = [table[name].to_numpy(zero_copy_only=False).astype(np.int64) for name in ("width", "height")]
        parts["pixels"].append(sides[0] * sides[1])
        parts["contrast"].append(table["contrast"].to_numpy() >= config.duplicates.least_contrast)
    empty = {"dhash": np.uint64, "contrast": bool}
    merged = {
        name: np.concatenate(part) if part else np.zeros(0, empty.get(name, np.int64))
        for name, part in parts.items()
    }
    return Photos(set=sets, key=keys, path=paths, **merged)


def compare(photos: Photos, distance: int) -> Verdicts:
    """Which photos are dropped. The answer does not depend on the order of the photos.

    Photos of different sets are never the same: one scene at two apertures is what training wants.
    distance: bits of 64 up to which two photos are the same. Of a group, joined by chains of such pairs, the
    one with the most pixels stays, then the one with the smallest key, then the first path.
    """
    count = len(photos)
    groups = _Union(count)
    first: dict[str, int] = {}
    for index, key in enumerate(photos.key):
        groups.join(index, first.setdefault(key, index))
    for name in sorted(set(photos.set)):
        comparable = np.flatnonzero(photos.contrast & (np.array(photos.set) == name))
        # equal hashes first: pairs among n of them would be n² / 2
        hashes, start, which = np.unique(photos.dhash[comparable], return_index=True, return_inverse=True)
        for index, number in zip(comparable.tolist(), which.tolist(), strict=True):
            groups.join(index, int(comparable[start[number]]))
        for one, other in near_pairs(hashes, distance):
            groups.join(int(comparable[start[one]]), int(comparable[start[other]]))
    best: dict[int, int] = {}

    def rank(index: int) -> tuple:
        return -photos.pixels[index], photos.key[index], photos.path[index], photos.unit[index]

    for index in range(count):
        group = groups.root(index)
        if group not in best or rank(index) < rank(best[group]):
            best[group] = index
    reasons = {}
    for index in range(count):
        stays = best[groups.root(index)]
        if stays == index:
            continue
        same = "the same file as" if photos.key[stays] == photos.key[index] else "looks the same as"
        reasons[int(photos.unit[index]), int(photos.row[index])] = f"{same} {photos.path[stays]}"
    return Verdicts(reasons)


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    """All pairs of 64-bit hashes that differ in at most `distance` bits, some more than once."""
    if not len(hashes):
        return
    stretches = distance + 1
    edges = [_BITS * k // stretches for k in range(stretches + 1)]
    for low, high in pairwise(edges):
        mask = np.uint64((1 << (high - low)) - 1)
        part = (hashes >> np.uint64(low)) & mask if high - low < _BITS else hashes
        order = np.argsort(part, kind="stable")
        ordered = part[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            if end - start > 1:
                yield from _near_within(hashes, order[start:end], distance)


def _near_within(hashes: np.ndarray, group: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    values = hashes[group]
    for start in range(0, len(group), _BLOCK):
        block = values[start : start + _BLOCK]
        for other in range(start, len(group), _BLOCK):
            far = values[other : other + _BLOCK]
            near = np.bitwise_count(block[:, None] ^ far[None]) <= distance
            for i, j in zip(*np.nonzero(near), strict=True):
                if start + i < other + j:
                    yield int(group[start + i]), int(group[other + j])


class _Union:
    """Groups that are joined pair by pair."""

    def __init__(self, count: int):
        self._above: Sequence[int] = list(range(count))

    def root(self, index: int) -> int:
        while self._above[index] != index:
            self._above[index] = self._above[self._above[index]]
            index = self._above[index]
        return index

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self._above[max(one, other)] = min(one, other)
