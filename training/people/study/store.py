"""The votes, in one SQLite file that threads and processes share: every call opens it and closes it again.

It has to be on a disk of this machine, as SQLite's write-ahead log asks for.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .draw import draw, ours_is_left
from .manifest import Manifest

_CODE = re.compile(r"[A-Z0-9-]{3,32}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (
    only INTEGER PRIMARY KEY CHECK (only = 1), manifest TEXT NOT NULL, seed INTEGER NOT NULL,
    count INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS participant (code TEXT PRIMARY KEY, started REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS question (
    participant TEXT NOT NULL REFERENCES participant, number INTEGER NOT NULL,
    prompt TEXT NOT NULL, baseline TEXT NOT NULL, ours TEXT NOT NULL CHECK (ours IN ('left', 'right')),
    PRIMARY KEY (participant, number), UNIQUE (participant, prompt, baseline)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vote (
    participant TEXT NOT NULL, number INTEGER NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('left', 'right')), seconds REAL NOT NULL CHECK (seconds >= 0),
    voted REAL NOT NULL,
    PRIMARY KEY (participant, number),
    FOREIGN KEY (participant, number) REFERENCES question (participant, number)
) WITHOUT ROWID;
"""
_JOINED = "question JOIN vote USING (participant, number)"
_COUNT = "SELECT prompt, baseline, COUNT(*) FROM {} GROUP BY prompt, baseline"


class VoteError(ValueError):
    """A vote that does not count; the message is for the participant."""


@dataclass(frozen=True)
class Question:
    """Question `number` of `total`, from 1; ours: "left" or "right"."""

    participant: str
    number: int
    total: int
    prompt: str
    baseline: str
    ours: str

    def method(self, side: str, ours: str) -> str:
        """The id of the method on a side; ours: the id of ours."""
        return ours if side == self.ours else self.baseline


@dataclass(frozen=True)
class Vote:
    """One answer; side and ours are "left" or "right"; seconds from when both sides were there."""

    participant: str
    prompt: str
    baseline: str
    ours: str
    side: str
    seconds: float

    @property
    def won(self) -> bool:
        """Whether ours was chosen."""
        return self.side == self.ours


def participant_code(text: str) -> str:
    """A code as it is stored: upper case, 3 to 32 of A-Z, 0-9 and -. Raises VoteError for others."""
    code = text.strip().upper()
    if not _CODE.fullmatch(code):
        raise VoteError("A participant code has 3 to 32 letters, digits and hyphens, such as ANNA-07.")
    return code


class Store:
    """Questions and votes of one study."""

    def __init__(
        self, path: str | Path, manifest: Manifest, count: int | None = None, seed: int | None = None
    ):
        """Open or make the file; count and seed: those of the file when not given, of a new one 20 and 0.

        Raises ValueError when the file holds the votes of another study.
        """
        if count is not None and count < 1:
            raise ValueError(f"A participant has to get at least 1 question; {count} were asked for.")
        self.path, self.manifest = Path(path), manifest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _open(self.path) as file:
            file.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)
        with _transaction(self.path) as file:
            new = (manifest.digest, 0 if seed is None else seed, 20 if count is None else count)
            file.execute("INSERT OR IGNORE INTO study VALUES (1, ?, ?, ?)", new)
            stored = file.execute("SELECT manifest, seed, count FROM study").fetchone()
        _, self.seed, self.count = stored
        wanted = (manifest.digest, seed, count)
        what = ", ".join(
            f"{name} {has} and not {wants}"
            for name, has, wants in zip(("manifest", "seed", "questions"), stored, wanted, strict=True)
            if wants is not None and has != wants
        )
        if what:
            raise ValueError(f"{path} holds votes of another study ({what}): give it a file of its own.")

    def join(self, code: str) -> str:
        """Draw the questions of a new participant; the code as stored. Raises VoteError for a bad code."""
        code = participant_code(code)
        with _transaction(self.path) as file:
            if file.execute("SELECT 1 FROM participant WHERE code = ?", (code,)).fetchone():
                return code
            counts = {
                table: {(p, b): n for p, b, n in file.execute(_COUNT.format(table))}
                for table in ("question", _JOINED)
            }
            answered, asked = counts[_JOINED], counts["question"]
            chosen = draw(self.manifest.pairs, answered, asked, code, self.count, self.seed)
            file.execute("INSERT INTO participant VALUES (?, ?)", (code, time.time()))
            file.executemany(
                "INSERT INTO question VALUES (?, ?, ?, ?, ?)",
                [
                    (code, number, *pair, "left" if ours_is_left(code, pair, self.seed) else "right")
                    for number, pair in enumerate(chosen, 1)
                ],
            )
        return code

    def question(self, code: str, number: int | None = None) -> Question | None:
        """A question of a participant: the first without a vote, or one by its number; None past the last."""
        with _open(self.path) as file:
            total = file.execute("SELECT COUNT(*) FROM question WHERE participant = ?", (code,)).fetchone()[0]
            row = _question(file, code, number)
        return Question(code, row[0], total, *row[1:]) if row else None

    def vote(self, code: str, number: int, side: str, seconds: float) -> None:
        """Store one answer, at once and for good.

        side: "left" or "right"; seconds: from when both sides were there. Raises VoteError for a question
        that was answered already and for one that is not the participant's next.
        """
        if side not in ("left", "right") or not math.isfinite(seconds) or seconds < 0:
            raise VoteError("That vote could not be read: load the page again, and vote once more.")
        with _transaction(self.path) as file:
            given = file.execute("SELECT 1 FROM vote WHERE participant = ? AND number = ?", (code, number))
            if given.fetchone():
                raise VoteError(f"Question {number} has your vote already; the first one counts.")
            following = _question(file, code, None)
            if following is None or following[0] != number:
                raise VoteError(f"Question {number} is not your next one: load the page again.")
            row = (code, number, side, seconds, time.time())
            file.execute("INSERT INTO vote VALUES (?, ?, ?, ?, ?)", row)

    def votes(self) -> list[Vote]:
        """All votes, by participant and number."""
        columns = "participant, prompt, baseline, ours, side, seconds"
        with _open(self.path) as file:
            rows = file.execute(f"SELECT {columns} FROM {_JOINED} ORDER BY participant, number").fetchall()
        return [Vote(*row) for row in rows]

    def participants(self) -> tuple[int, int]:
        """How many began, and how many answered all their questions."""
        with _open(self.path) as file:
            began = file.execute("SELECT COUNT(*) FROM participant").fetchone()[0]
            unanswered = "FROM question LEFT JOIN vote USING (participant, number) WHERE side IS NULL"
            unfinished = file.execute(f"SELECT COUNT(DISTINCT participant) {unanswered}").fetchone()[0]
        return began, began - unfinished


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """The open file; each statement is a transaction of its own."""
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as file:
        file.execute("PRAGMA foreign_keys = ON")
        yield file


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that takes the write lock first, so what it reads stays true until it writes."""
    with _open(path) as file:
        file.execute("BEGIN IMMEDIATE")
        with file:  # commits, or rolls back when the block raises
            yield file


def _question(file: sqlite3.Connection, code: str, number: int | None) -> tuple | None:
    return file.execute(
        "SELECT number, prompt, baseline, ours FROM question LEFT JOIN vote USING (participant, number) "
        "WHERE participant = ?1 AND (number = ?2 OR ?2 IS NULL AND side IS NULL) ORDER BY number LIMIT 1",
        (code, number),
    ).fetchone()
