"""The fourth stage: photos that look the same, of which the largest stays.

A photo's hash is the sign of the differences of neighbours in a 9 × 8 px thumbnail (dHash). Hashes that
differ in d bits agree in at least one of d + 1 stretches, so only photos that agree in one are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..units import Unit
from .flow import VERDICT, Done, Engine, RowWorker, kept, read_table, run_stage, signed, with_columns
from .options import Curation, digest

_BITS = 64
_WIDTH, _HEIGHT = 9, 8
#: Decoding smaller makes other thumbnails; this is the next power of two that leaves room to average.
_DRAFT_PX = 64
#: Photos of one stretch that are compared with one another at a time.
_BLOCK = 2048


def run(config: Curation, before: Done, engine: Engine, progress: Any = None) -> Done:
    """Hash all photos, then compare them, in this process."""
    hashed = DhashWorker.run(config, before, engine, progress)
    reasons: dict[int, dict[int, str]] = defaultdict(dict)
    if hashed.units:
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
    note = "hashes"

    def verdict(self, row: dict[str, Any]) -> dict[str, Any]:
        value, contrast = dhash(self.open(row, _DRAFT_PX))
        return kept(row["reason"], dhash=value, contrast=contrast)


class VerdictWorker(RowWorker):
    """Writes a unit's verdicts; items: file of the hashes, (row, reason) of those that are dropped."""

    def __call__(self, unit: Unit) -> pa.Table:
        file, own = unit.items
        table = read_table(Path(self.config.output) / file)
        stays, reasons = table["kept"].to_pylist(), table["reason"].to_pylist()
        for row, reason in own:
            stays[row], reasons[row] = False, reason
        columns = ((*column, values) for column, values in zip(VERDICT, (stays, reasons), strict=True))
        return signed(with_columns(table, columns), self.config, self.stage, unit)


def _photos(config: Curation, hashed: Done) -> dict[str, np.ndarray]:
    """All photos as `compare` wants them."""
    columns, tables = ("kept", "set", "key", "path", "dhash", "contrast", "width", "height"), []
    for number, file in enumerate(hashed.files(config.output)):
        table = read_table(file, columns)
        places = ("unit", pa.int64(), np.full(len(table), number)), ("row", pa.int64(), np.arange(len(table)))
        tables.append(with_columns(table, places).filter(table["kept"]))
    table = pa.concat_tables(tables)
    photos = {name: table[name].to_numpy() for name in table.column_names}
    photos["pixels"] = photos["width"].astype(np.int64) * photos["height"]
    photos["contrast"] = photos["contrast"] >= config.duplicates.least_contrast
    return photos


def compare(photos: Mapping[str, np.ndarray], distance: int) -> dict[tuple[int, int], str]:
    """{(unit, row): reason} of those that are dropped. The answer does not depend on the order of the photos.

    photos: columns of all of them: unit and row where it stands, its set, key, path, dhash, pixels, and
    contrast, whether there is enough of it to compare the hashes.
    Photos of different sets are never the same: one scene at two apertures is what training wants.
    distance: bits of 64 up to which two photos are the same. Of a group, joined by chains of such pairs, the
    one with the most pixels stays, then the one with the smallest key, then the first path.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unit, row, sets, key, path = (photos[name] for name in ("unit", "row", "set", "key", "path"))
    count = len(key)
    if not count:
        return {}
    first: dict[str, int] = {}
    pairs = [(index, first.setdefault(own, index)) for index, own in enumerate(key)]
    for name in sorted(set(sets)):
        comparable = np.flatnonzero(photos["contrast"] & (sets == name))
        # equal hashes first: pairs among n of them would be n² / 2
        hashes, start, which = np.unique(photos["dhash"][comparable], return_index=True, return_inverse=True)
        representative = comparable[start]
        pairs += zip(comparable.tolist(), representative[which].tolist(), strict=True)
        pairs += [(representative[one], representative[other]) for one, other in near_pairs(hashes, distance)]
    joined = coo_array((np.ones(len(pairs), bool), tuple(np.array(pairs).T)), shape=(count, count))
    groups = connected_components(joined, directed=False)[1].tolist()
    best: dict[int, int] = {}
    for index in sorted(range(count), key=lambda i: (-photos["pixels"][i], key[i], path[i], unit[i])):
        best.setdefault(groups[index], index)
    reasons = {}
    for index, group in enumerate(groups):
        stays = best[group]
        if stays != index:
            same = "the same file as" if key[stays] == key[index] else "looks the same as"
            reasons[int(unit[index]), int(row[index])] = f"{same} {path[stays]}"
    return reasons


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    """All pairs of 64-bit hashes that differ in at most `distance` bits, some more than once."""
    stretches = distance + 1
    edges = [_BITS * k // stretches for k in range(stretches + 1)]
    for low, high in pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(part, kind="stable")
        ordered = part[order]
        for group in np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1):
            if len(group) > 1:
                yield from _near_within(hashes, group, distance)


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
