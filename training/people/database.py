"""One SQLite file that threads and processes share: every call opens it, does one transaction, closes it.

It has to be on a disk of this machine, as SQLite's write-ahead log asks for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make(path: Path, schema: str) -> None:
    """Make the file, its folder and its tables where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with reading(path) as file:
        file.executescript("PRAGMA journal_mode = WAL;" + schema)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The open file; each statement is a transaction of its own."""
    file = sqlite3.connect(path, timeout=30.0, isolation_level=None)
    try:
        file.execute("PRAGMA foreign_keys = ON")
        yield file
    finally:
        file.close()


@contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction that takes the write lock first, so what it reads stays true until it writes."""
    with reading(path) as file:
        file.execute("BEGIN IMMEDIATE")
        try:
            yield file
        except BaseException:
            file.execute("ROLLBACK")
            raise
        file.execute("COMMIT")
