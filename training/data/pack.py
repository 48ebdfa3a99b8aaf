"""Packing: samples into the tars and the index that `packed.py` reads."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from lens_models.files import sync

from .packed import FORMAT, IMAGES, LATENTS, PLACE, SAMPLE_COLUMNS, Sample, column_prefix, file_hash

JPEG_QUALITY = 95
_SUFFIX = {LATENTS: ".safetensors", IMAGES: ".jpg"}
#: WebDataset ends a key at its first dot, and a plain tar header holds 100 bytes of name.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TAR_HEADER = 512
#: Rows of the index that are kept in memory; 1.5 million would take some GB.
_ROWS = 1 << 14
_PLACES = {f"{column_prefix(kind)}_{part}" for kind in (LATENTS, IMAGES) for part in PLACE}


@dataclass(frozen=True)
class Record(Sample):
    """A sample on its way into the set; its latent is stored as fp16.

    jpeg: the encoded picture, or None; all samples of a set have one, or none has.
    further: scores and the like, one column each, the same ones and of the same types in every record.
    """

    jpeg: bytes | None = None
    further: Mapping[str, str | float | int | bool] = field(default_factory=dict)


def jpeg_bytes(picture: Tensor) -> bytes:
    """`(3, H, W)` uint8 sRGB as a JPEG of quality 95 with full-resolution colour."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(
        encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return encoded.getvalue()


class PackedWriter:
    """Writes a set beside its final place and moves it there when it is whole.

        with PackedWriter(path, about={"rules": "..."}) as writer:
            writer.add(record)

    about: strings for the manifest, such as the filters and the hash of the code that chose the samples.
    Remains of an earlier attempt are deleted. An exception inside the `with` leaves no set behind.
    Raises FileExistsError when the set exists; `add` raises ValueError for a sample that does not fit.
    """

    def __init__(
        self, path: str | Path, *, about: Mapping[str, str] | None = None, shard_bytes: int = 1 << 30
    ):
        self._path = Path(path)
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists already: choose another folder or delete it.")
        self._part = self._path.with_name(f".{self._path.name}.part")
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        self._about = dict(about or {})
        self._shard_bytes = shard_bytes
        self._open: dict[str, _Shard] = {}
        self._shards: dict[str, dict[str, Any]] = {}
        self._first: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._index: Any = None

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._close()
        finally:
            for shard in self._open.values():
                shard.file.close()
            if self._index is not None:
                self._index.close()
            shutil.rmtree(self._part, ignore_errors=True)  # gone where the set is in its place

    def add(self, record: Record) -> None:
        """Append one sample."""
        from safetensors.torch import save

        _check(record, self._first)
        if record.key in self._keys:
            raise ValueError(f'The key "{record.key}" is in the set already: keys must be unique.')
        halves = {"mean": record.mean.half().contiguous(), "std": record.std.half().contiguous()}
        if not all(t.isfinite().all() for t in halves.values()):
            raise ValueError(f"The latent of {record.key} is not finite in half precision: leave it out.")
        parts = {LATENTS: save(halves)}
        if record.jpeg is not None:
            parts[IMAGES] = record.jpeg
        row: dict[str, Any] = {"key": record.key}
        for kind, content in parts.items():
            row |= self._stored(kind, record.key, content)
        camera = map(float, (record.f_number, record.focal_mm, record.sensor_mm))
        known = (record.key, *camera, record.caption, *record.crop, *record.original)
        row |= {**dict(zip(SAMPLE_COLUMNS, known, strict=True)), **record.further}
        self._first = self._first or row
        self._keys.add(record.key)
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _close(self) -> None:
        """Write index and manifest, and put the set in its place."""
        if not self._keys:
            raise ValueError(f"No sample was added to {self._path}: an empty set is not written.")
        for kind in list(self._open):
            self._finish(kind)
        self._flush()
        self._index.close()
        index = self._part / "index.parquet"
        manifest = {
            "format": FORMAT,
            "samples": len(self._keys),
            "index": {"sha256": file_hash(index), "bytes": index.stat().st_size},
            "shards": self._shards,
            "about": self._about,
        }
        (self._part / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        for name in ("index.parquet", "manifest.json"):
            sync(self._part / name)
        self._part.rename(self._path)

    def _flush(self) -> None:
        """Write the rows that are in memory."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._index is None:
            schema = pa.Table.from_pylist(self._rows).schema
            self._index = pq.ParquetWriter(self._part / "index.parquet", schema, compression="zstd")
        if self._rows:
            self._index.write_table(pa.Table.from_pylist(self._rows, schema=self._index.schema))
        self._rows.clear()

    def _stored(self, kind: str, key: str, content: bytes) -> dict[str, Any]:
        shard = self._open.get(kind)
        if shard and shard.file.tell() + len(content) > self._shard_bytes:
            self._finish(kind)
            shard = None
        if shard is None:
            number = sum(name.startswith(kind) for name in self._shards)
            shard = self._open[kind] = _Shard(self._part, f"{kind}/{number:06d}.tar")
        place = (shard.name, shard.append(key + _SUFFIX[kind], content), len(content))
        values = zip(PLACE, (*place, hashlib.sha256(content).digest()), strict=True)
        return {f"{column_prefix(kind)}_{part}": value for part, value in values}

    def _finish(self, kind: str) -> None:
        shard = self._open.pop(kind)
        self._shards[shard.name] = shard.closed()


class _Shard:
    """One tar that grows."""

    def __init__(self, root: Path, name: str):
        self.name, self.path = name, root / name
        self.path.parent.mkdir(exist_ok=True)
        self.file: BinaryIO = self.path.open("wb")
        self.count = 0
        self._tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def append(self, name: str, content: bytes) -> int:
        """The offset of the content within the tar."""
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        offset = self.file.tell() + _TAR_HEADER
        self._tar.addfile(entry, io.BytesIO(content))
        self.count += 1
        return offset

    def closed(self) -> dict[str, Any]:
        """What the manifest says about it."""
        self._tar.close()
        self.file.close()
        sync(self.path)
        return {"sha256": file_hash(self.path), "bytes": self.path.stat().st_size, "samples": self.count}


def _check(record: Record, first: Mapping[str, Any] | None) -> None:
    """Raises ValueError for a record that no set or not this set can hold."""
    if not _KEY.fullmatch(record.key):
        raise ValueError(f'"{record.key}" is not a key: use up to 80 letters, digits, - and _.')
    if record.mean.ndim != 3 or record.mean.shape != record.std.shape:
        raise ValueError(
            f"The latent of {record.key} must be two tensors (channels, height, width) of one size; mean is "
            f"{tuple(record.mean.shape)} and std {tuple(record.std.shape)}."
        )
    for name in ("f_number", "focal_mm", "sensor_mm"):
        value = getattr(record, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} of {record.key} is {value}: it must be above 0.")
    taken = sorted(set(record.further) & {*SAMPLE_COLUMNS, *_PLACES})
    if taken:
        raise ValueError(f"{', '.join(taken)} of {record.key}: the index has columns of this name already.")
    for name, value in record.further.items():
        known = type(first[name]) if first and name in first else type(value)
        if type(value) is not known or known not in (str, float, int, bool):
            raise ValueError(
                f"{name} of {record.key} is of the type {type(value).__name__}: use str, float, int or bool, "
                "the same one in every record."
            )
    if first is None:
        return
    if (record.jpeg is None) == ("image_size" in first):
        raise ValueError(
            f"{record.key} comes {'without' if record.jpeg is None else 'with'} a picture, unlike the "
            "samples before it: pack all with pictures or all without."
        )
    columns = set(first) - {*SAMPLE_COLUMNS, *_PLACES}
    if columns != set(record.further):
        differing = ", ".join(sorted(columns ^ set(record.further)))
        raise ValueError(f"{record.key} has other columns than the samples before it: {differing}.")
