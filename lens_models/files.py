"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends well.

    with atomic("weights.safetensors") as part:
        save_file(tensors, part)

    Nothing is left when the block raises, and an earlier file stays as it was. The temporary name is hidden,
    ends like `path`, as some writers look at the suffix, and is no other process's. The folder must exist.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{uuid4().hex[:12]}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
