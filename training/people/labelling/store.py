"""The labels, in one SQLite file that several processes may write to at once."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from .. import database

#: The classes of the blur network, in its order; a photo that cannot be judged is skipped.
LABELS, SKIPPED = ("none", "desirable", "undesirable"), "skipped"
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
_NAME = re.compile(r"[A-Z0-9-]{2,32}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS set_up (only INTEGER PRIMARY KEY CHECK (only = 1), seed INTEGER NOT NULL,
    shared INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS photo (number INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS label (
    annotator TEXT NOT NULL, number INTEGER NOT NULL REFERENCES photo,
    label TEXT NOT NULL CHECK (label IN ('none', 'desirable', 'undesirable', 'skipped')), given REAL NOT NULL,
    PRIMARY KEY (annotator, number)
) WITHOUT ROWID;
"""


class LabelError(ValueError):
    """A label that does not count; the message is for the annotator."""


@dataclass(frozen=True)
class Asked:
    """A photo for an annotator. done: photos that this annotator has labelled or skipped, of `total`."""

    annotator: str
    number: int
    path: Path
    done: int
    total: int


def annotator_name(text: str) -> str:
    """A name as it is stored: upper case, 2 to 32 of A-Z, 0-9 and -. Raises LabelError for others."""
    name = text.strip().upper()
    if not _NAME.fullmatch(name):
        raise LabelError("A name has 2 to 32 letters, digits and hyphens, such as ANNA.")
    return name


class Labels:
    """Photos of a folder and what people say of them.

    The first `shared` photos are for everybody, so that annotators can be compared; each of the others is for
    whoever comes first, and for the next one where that one skipped it. Threads and processes may share the
    file (`database`).
    """

    def __init__(
        self, path: str | Path, photos: str | Path, shared: int | None = None, seed: int | None = None
    ) -> None:
        """Open or make the file; shared and seed: those of the file when not given, of a new one 50 and 0.

        New photos of the folder come after those that are known. Raises FileNotFoundError for a folder
        without photos, ValueError for other settings than the file's.
        """
        self.path, self.photos = Path(path), Path(photos)
        found = sorted(p for p in self.photos.rglob("*") if p.suffix.lower() in ENDINGS)
        if not found:
            raise FileNotFoundError(f"There are no pictures in {photos}.")
        database.make(self.path, _SCHEMA)
        with database.changing(self.path) as file:
            new = (0 if seed is None else seed, 50 if shared is None else shared)
            file.execute("INSERT OR IGNORE INTO set_up VALUES (1, ?, ?)", new)
            self.seed, self.shared = file.execute("SELECT seed, shared FROM set_up").fetchone()
            for name, has, wants in (("seed", self.seed, seed), ("shared", self.shared, shared)):
                if wants is not None and has != wants:
                    raise ValueError(
                        f"{path} was begun with {name} {has}, not {wants}: leave it out, or use another file."
                    )
            known = {row[0] for row in file.execute("SELECT path FROM photo")}
            names = [p.relative_to(self.photos).as_posix() for p in found]
            new_names = sorted((n for n in names if n not in known), key=self._place)
            file.executemany("INSERT INTO photo (path) VALUES (?)", [(name,) for name in new_names])

    def next(self, annotator: str) -> Asked | None:
        """The first photo this annotator is to label; None when there is none left."""
        with database.reading(self.path) as file:
            done = file.execute("SELECT COUNT(*) FROM label WHERE annotator = ?", (annotator,)).fetchone()[0]
            row = file.execute(
                "SELECT number, path FROM photo "
                "WHERE number NOT IN (SELECT number FROM label WHERE annotator = ?1) "
                "AND (number <= ?2 OR number NOT IN (SELECT number FROM label WHERE label <> ?3)) "
                "ORDER BY number LIMIT 1",
                (annotator, self.shared, SKIPPED),
            ).fetchone()
            total = file.execute("SELECT COUNT(*) FROM photo").fetchone()[0]
        return Asked(annotator, row[0], self.photos / row[1], done, total) if row else None

    def photo(self, number: int) -> Path | None:
        """The photo of that number."""
        with database.reading(self.path) as file:
            row = file.execute("SELECT path FROM photo WHERE number = ?", (number,)).fetchone()
        return self.photos / row[0] if row else None

    def give(self, annotator: str, number: int, label: str) -> None:
        """Store one label, at once. Raises LabelError for a photo that has this annotator's label already."""
        if label not in (*LABELS, SKIPPED):
            raise LabelError(f"{label} is no label: use one of {', '.join((*LABELS, SKIPPED))}.")
        with database.changing(self.path) as file:
            row = (annotator, number, label, time.time())
            try:
                file.execute("INSERT INTO label VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise LabelError("That photo has your label already; undo takes the last one back.") from None

    def undo(self, annotator: str) -> Asked | None:
        """Take back what this annotator said last, and ask again; None when nothing was said."""
        with database.changing(self.path) as file:
            row = file.execute(
                "SELECT number, path FROM label JOIN photo USING (number) WHERE annotator = ? "
                "ORDER BY given DESC, number DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if row is None:
                return None
            file.execute("DELETE FROM label WHERE annotator = ? AND number = ?", (annotator, row[0]))
            done = file.execute("SELECT COUNT(*) FROM label WHERE annotator = ?", (annotator,)).fetchone()[0]
            total = file.execute("SELECT COUNT(*) FROM photo").fetchone()[0]
        return Asked(annotator, row[0], self.photos / row[1], done, total)

    def all(self) -> dict[str, dict[str, str]]:
        """Labels by photo and annotator, photos in their order; skipped ones among them."""
        found: dict[str, dict[str, str]] = {}
        with database.reading(self.path) as file:
            rows = file.execute(
                "SELECT path, annotator, label FROM label JOIN photo USING (number) "
                "ORDER BY number, annotator"
            )
            for path, annotator, label in rows:
                found.setdefault(path, {})[annotator] = label
        return found

    def _place(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed}\0{name}".encode()).hexdigest()
