"""The first stage: every file of the folders, its hash and what its bytes say it is."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..units import Unit
from .flow import VERDICT, Done, Engine, RowWorker, dropped, kept, run_stage, signed
from .options import Curation, digest

_BLOCK = 1 << 20
#: Names' endings, and the format that they promise.
_EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".gif": "GIF", ".webp": "WEBP",
    ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".heic": "HEIF", ".heif": "HEIF", ".avif": "AVIF",
    ".dng": "TIFF", ".nef": "TIFF", ".arw": "TIFF", ".cr2": "TIFF", ".jxl": "JXL",
}  # fmt: skip
#: How files start, in their order.
_FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8",
    "TIFF": rb"II\*\0|MM\0\*",
    "JXL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "WEBP": rb"RIFF.{4}WEBP",
    "HEIF": rb".{4}ftyp(?:heic|heix|hevc|mif1|msf1|heim|heis)",
    "AVIF": rb".{4}ftyp(?:avif|avis)",
    # "BM" starts many a text: the header's own size has few values
    "BMP": rb"BM.{12}[\x28\x6c\x7c\x0c]\0\0\0",
}


def run(config: Curation, engine: Engine, progress: Any = None) -> Done:
    """Walk the folders and hash all files."""
    inputs = [(digest(*files), tuple(tuple(f[:2]) for f in files)) for files in _groups(config)]
    total, make = sum(len(items) for _, items in inputs), partial(IndexWorker, config)
    return run_stage(config, "index", inputs, make, engine, total=total, progress=progress)


def _groups(config: Curation) -> Iterator[list[tuple]]:
    """The files in units. Where one ends depends on a file's name, so that a new file changes one unit."""
    group: list[tuple] = []
    for file in _files(config):
        group.append(file)
        ends = int(hashlib.sha256(os.fsencode(file[1])).hexdigest()[:8], 16) % config.unit_photos == 0
        if ends or len(group) == 2 * config.unit_photos:
            yield group
            group = []
    if group:
        yield group


def _files(config: Curation) -> Iterator[tuple[int, str, int, int]]:
    """Folder's number, path within it, bytes, time of the last change, in the order of the paths."""
    output = Path(config.output).resolve()
    for number, folder in enumerate(config.photos):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        yield from ((number, *file) for file in _walk(Path(folder), "", output))


def _walk(root: Path, below: str, output: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(root / below) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield below, -1, 0
        return
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            if Path(entry.path).resolve() != output:
                yield from _walk(root, path, output)
            continue
        try:
            status = entry.stat(follow_symlinks=False)
            yield path, status.st_size, status.st_mtime_ns
        except OSError:
            yield path, -1, 0


class IndexWorker(RowWorker):
    """Hashes a unit's files."""

    columns = (
        ("key", pa.string()),
        ("root", pa.int32()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
    )

    def __call__(self, unit: Unit) -> pa.Table:
        rows = [self._row(*item) for item in unit.items]
        table = pa.Table.from_pylist(rows, schema=pa.schema([*self.columns, *VERDICT]))
        return signed(table, self.config, self.stage, unit)

    def _row(self, root: int, path: str) -> dict[str, Any]:
        printable = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        row = {"key": "", "root": root, "path": printable, "bytes": None, "format": None}
        if printable != path:
            return row | dropped("its name is not UTF-8")
        try:
            return row | self._examine(Path(self.config.photos[root]) / path)
        except OSError as error:
            return row | dropped(f"cannot be read: {error.strerror or error}")

    def _examine(self, path: Path) -> dict[str, Any]:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and self.config.index.links == "skip":
            return dropped("a symbolic link")
        if not stat.S_ISREG(path.stat().st_mode):
            return dropped("not a regular file")
        with path.open("rb") as file:
            start = file.read(_BLOCK)
            sha, size, block = hashlib.sha256(start), len(start), start
            while block:
                block = file.read(_BLOCK)
                sha.update(block)
                size += len(block)
        columns = {"key": sha.hexdigest(), "bytes": size, "format": format_of(start)}
        if not size:
            return dropped("empty: 0 bytes", **columns)
        promised = _EXTENSIONS.get(path.suffix.lower())
        if columns["format"] is None:
            if promised:
                return dropped(f"not a picture, although it is named {path.suffix}", **columns)
            return dropped("not a picture", **columns)
        if promised != columns["format"]:
            reason = f"a {columns['format']} that is named {path.suffix or 'without an ending'}"
            if self.config.index.wrong_extension == "drop":
                return dropped(reason, **columns)
            return kept(reason, **columns)
        return kept(**columns)


def format_of(start: bytes) -> str | None:
    """The kind of picture that starts with these bytes; None for anything else.

    >>> format_of(bytes.fromhex("ffd8ffe0")), format_of(b"GIF89a"), format_of(b"<!doctype html>")
    ('JPEG', 'GIF', None)
    """
    return next((name for name, magic in _FORMATS.items() if re.match(magic, start, re.DOTALL)), None)
