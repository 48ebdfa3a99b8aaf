"""The fourth stage: photos that look the same, of which the largest stays.

A photo's hash is the sign of the differences of neighbours in a 9 × 8 px thumbnail (dHash). Hashes that
differ in d bits agree in at least one of d + 1 stretches, so only photos that agree in one are compared.
"""

from __future__ import annotations

from collections import defaultdict
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
    Undecodable,
    dropped,
    judge_photos,
    kept,
    read_table,
    run_stage,
    with_columns,
)
from .options import Curation, digest

_BITS = 64
_WIDTH, _HEIGHT = 9, 8
#: Decoding smaller makes other thumbnails; this is the next power of two that leaves room to average.
_DRAFT_PX = 64
#: Photos of one stretch that are compared with one another at a time.
_BLOCK = 2048


def drop_duplicates(config: Curation, before: Done, engine: Engine, progress: Progress | None = None) -> Done:
    """Hash all photos, then compare them, in this process."""
    hashed = judge_photos(config, "duplicates", DhashWorker, before, engine, progress, note="hashes")
    reasons: dict[int, dict[int, str]] = defaultdict(dict)
    for (unit, row), reason in compare(_photos(config, hashed), config.duplicates.distance).items():
        reasons[unit][row] = reason
    inputs = []
    for number, name in enumerate(hashed.units):
        own = tuple(sorted(reasons[number].items()))
        inputs.append((digest(name, own), (f"{hashed.folder}/{name}.parquet", own)))
    # the comparison has its result in memory: writing it here is a matter of seconds
    return run_stage(config, "duplicates", inputs, partial(VerdictWorker, config), Engine())


def dhash(picture: Any) -> tuple[int, float]:
    """64 bits of a Pillow picture, and the thumbnail's standard deviation, of 255."""
    from PIL import Image

    grey = picture.convert("L").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.int16)
    bits = np.packbits(pixels[:, 1:] > pixels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big"), float(pixels.std())


class DhashWorker(RowWorker):
    """Hashes a unit's photos; what cannot be decoded is dropped."""

    columns = (("dhash", pa.uint64()), ("contrast", pa.float32()))

    def judge(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._judge(row) for row in rows]

    def _judge(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            value, contrast = dhash(self.open(row, _DRAFT_PX))
        except Undecodable as error:
            return dropped(str(error))
        return kept(row["reason"], dhash=value, contrast=contrast)


class VerdictWorker:
    """Writes a unit's verdicts; items: file of the hashes, (row, reason) of those that are dropped."""

    def __init__(self, config: Curation):
        self.config = config

    def __call__(self, unit: Unit) -> pa.Table:
        file, own = unit.items
        table = read_table(Path(self.config.output) / file)
        stays, reasons = table["kept"].to_pylist(), table["reason"].to_pylist()
        for row, reason in own:
            stays[row], reasons[row] = False, reason
        table = with_columns(
            table, ((*column, v) for column, v in zip(VERDICT, (stays, reasons), strict=True))
        )
        settings = {"settings": self.config.chain("duplicates"), "unit": unit.name}
        return table.replace_schema_metadata(settings)


@dataclass(frozen=True)
class Photos:
    """Columns of all photos: unit and row where it stands, its set, sha256, path, dHash, pixels.

    contrast: whether there is enough of it to compare the hashes.
    """

    unit: np.ndarray
    row: np.ndarray
    set: list[str]
    key: list[str]
    path: list[str]
    dhash: np.ndarray
    pixels: np.ndarray
    contrast: np.ndarray


def _photos(config: Curation, hashed: Done) -> Photos:
    columns = ("kept", "set", "key", "path", "dhash", "contrast", "width", "height")
    tables = [read_table(file, columns) for file in hashed.files(config.output)]
    if not tables:
        nothing = np.zeros(0, np.int64)
        return Photos(nothing, nothing, [], [], [], nothing.astype(np.uint64), nothing, nothing.astype(bool))
    unit = np.concatenate([np.full(len(table), number) for number, table in enumerate(tables)])
    row = np.concatenate([np.arange(len(table)) for table in tables])
    table = pa.concat_tables(tables)
    stays = np.flatnonzero(table["kept"].to_numpy())
    table = table.take(stays)
    return Photos(
        unit[stays],
        row[stays],
        *(table[name].to_pylist() for name in ("set", "key", "path")),
        dhash=table["dhash"].to_numpy().astype(np.uint64),
        pixels=table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy(),
        contrast=table["contrast"].to_numpy() >= config.duplicates.least_contrast,
    )


def compare(photos: Photos, distance: int) -> dict[tuple[int, int], str]:
    """{(unit, row): reason} of those that are dropped. The answer does not depend on the order of the photos.

    Photos of different sets are never the same: one scene at two apertures is what training wants.
    distance: bits of 64 up to which two photos are the same. Of a group, joined by chains of such pairs, the
    one with the most pixels stays, then the one with the smallest key, then the first path.
    """
    count = len(photos.key)
    first: dict[str, int] = {}
    pairs = [(index, first.setdefault(key, index)) for index, key in enumerate(photos.key)]
    for name in sorted(set(photos.set)):
        comparable = np.flatnonzero(photos.contrast & (np.array(photos.set) == name))
        # equal hashes first: pairs among n of them would be n² / 2
        hashes, start, which = np.unique(photos.dhash[comparable], return_index=True, return_inverse=True)
        representative = comparable[start]
        pairs += zip(comparable.tolist(), representative[which].tolist(), strict=True)
        pairs += [(representative[one], representative[other]) for one, other in near_pairs(hashes, distance)]

    def rank(index: int) -> tuple:
        return -photos.pixels[index], photos.key[index], photos.path[index], photos.unit[index]

    groups = _connected(count, pairs)
    best: dict[int, int] = {}
    for index in sorted(range(count), key=rank):
        best.setdefault(groups[index], index)
    reasons = {}
    for index in range(count):
        stays = best[groups[index]]
        if stays != index:
            same = "the same file as" if photos.key[stays] == photos.key[index] else "looks the same as"
            reasons[int(photos.unit[index]), int(photos.row[index])] = f"{same} {photos.path[stays]}"
    return reasons


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the group of each of `count` things that are joined pair by pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return []
    ends = np.array(pairs).T
    joined = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(count, count))
    return connected_components(joined, directed=False)[1].tolist()


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
