"""Labels by hand: a CSV with path and label, and what Label Studio exports as CSV, JSON and JSON_MIN."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .net import CLASSES

log = logging.getLogger("fine_defocus")

#: Columns of the photo and of the label, where they have the usual names.
_PHOTO_COLUMNS, _LABEL_COLUMNS = ("path", "image"), ("label", "choice", "blur")
#: Label Studio puts 8 hexadecimal digits before the name of an uploaded file.
_UPLOADED = re.compile(r"[0-9a-f]{8}-")

Row = tuple[str, dict[str, Any]]


def read_labels(files: Sequence[str | Path], photos: str | Path | None = None) -> dict[str, str]:
    """Class of each labelled photo by its path: the class that most annotators gave it.

    Photos whose annotators are evenly divided and annotations without a class (skipped, cancelled) are left
    out, and counted in the log. photos: folder with the photos; not given, the folder of each file. A name in
    a file is looked for as it stands and relative to the folder, as a whole and then without its leading
    folders; last by its file name anywhere below the folder, without the digits that uploads put before it.
    Raises ValueError, naming file and row, for other classes, photos that are not there and other files.
    """
    votes: dict[str, dict[tuple[Any, ...], str]] = {}
    skipped = 0
    for file in map(Path, files):
        folder = _Photos(Path(photos) if photos else file.parent)
        rows = _read_json(file) if file.suffix.lower() == ".json" else _read_csv(file)
        photo_column, label_column = _columns(file, rows)
        for number, (where, row) in enumerate(sorted(rows, key=lambda row: str(row[1].get("created_at")))):
            label = _label(row.get(label_column), f"{where} of {file.name}")
            if label is None:
                skipped += 1
                continue
            path = folder.find(row.get(photo_column), f"{where} of {file.name}")
            # every annotator has one vote, the newest: two exports may both know them as number 1
            annotator = row.get("annotator") or f"row {number}"
            votes.setdefault(path, {})[file, str(annotator)] = label
    labels = {}
    for path, given in votes.items():
        (label, most), *others = Counter(given.values()).most_common(2)
        if not others or others[0][1] < most:
            labels[path] = label
    several = [set(given.values()) for given in votes.values() if len(given) > 1]
    log.info(
        "labels by hand: %s; left out: %d photos without a majority, %d annotations without a class; "
        "%d of %d photos with several annotators have the same class from all",
        ", ".join(f"{label} {count}" for label, count in Counter(labels.values()).items()) or "none",
        len(votes) - len(labels),
        skipped,
        sum(len(classes) == 1 for classes in several),
        len(several),
    )
    return labels


def _read_csv(file: Path) -> list[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        return [(f"Line {reader.line_num}", row) for row in reader]


def _read_json(file: Path) -> list[Row]:
    """One row for each annotation, whether the tasks hold them (JSON) or each is an entry (JSON_MIN)."""
    try:
        tasks = json.loads(file.read_text(encoding="utf-8-sig"))
        return [row for number, task in enumerate(tasks, start=1) for row in _annotations(task, number)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file.name} is not a JSON or JSON_MIN export of Label Studio ({error!r}): export it again."
        ) from error


def _annotations(task: Mapping[str, Any], number: int) -> Iterator[Row]:
    where = f"Task {task.get('id', number)}"
    if "data" not in task:
        yield where, dict(task)
        return
    for annotation in task.get("annotations", ()):
        person = annotation.get("completed_by")
        row = dict(
            task["data"],
            annotator=person.get("id") if isinstance(person, dict) else person,
            created_at=annotation.get("created_at"),
        )
        if not annotation.get("was_cancelled"):
            choices = [result for result in annotation["result"] if "choices" in result.get("value", ())]
            row |= {result["from_name"]: result["value"] for result in choices}
        yield where, row


def _columns(file: Path, rows: Sequence[Row]) -> tuple[str, str]:
    """Names of the columns with the photo and with the label."""
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    photo = [name for name in _PHOTO_COLUMNS if name in names]
    label = [name for name in names if any(set(_classes(row.get(name))) & set(CLASSES) for _, row in rows)]
    label = label or [name for name in _LABEL_COLUMNS if name in names]
    if not photo or not label:
        raise ValueError(
            f"{file.name} has the columns {', '.join(map(str, names)) or 'none'}: it needs path or image, "
            f"and one with the labels {', '.join(CLASSES)}."
        )
    return photo[0], label[0]


def _classes(value: Any) -> list[str]:
    """The choices in a cell: one as plain text, several as a list or as JSON with `choices`."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        value = value.get("choices")
    choices = value if isinstance(value, list) else [value]
    return [choice for choice in choices if isinstance(choice, str) and choice]


def _label(value: Any, where: str) -> str | None:
    labels = _classes(value)
    if len(labels) > 1 or any(label not in CLASSES for label in labels):
        raise ValueError(f"{where} has the label {', '.join(labels)}: use one of {', '.join(CLASSES)}.")
    return labels[0] if labels else None


class _Photos:
    """The files below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """All of them, by their names as an upload spells them."""
        by_name = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            by_name[_uploaded_name(path.name)].append(path)
        return by_name

    def find(self, name: str | None, where: str) -> str:
        """The path of the photo that a table calls `name`."""
        if not name:
            raise ValueError(f"{where} names no photo: export the table with its column of photos.")
        address = urlsplit(name)
        # Label Studio's addresses of local files hold the path in their query
        path = parse_qs(address.query).get("d", [unquote(address.path)])[0].replace("\\", "/")
        parts = [part for part in path.split("/") if part]
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        for candidate in (name, path, *tails):
            if (self.folder / candidate).is_file():
                return str(self.folder / candidate)
        last = parts[-1] if parts else name
        names = last, _UPLOADED.sub("", last, count=1)
        matches = next(filter(None, (self.by_name.get(_uploaded_name(name)) for name in names)), [])
        if len(matches) != 1:
            problem = f"{len(matches)} photos have this name" if matches else "there is no such photo"
            raise ValueError(
                f"{where} names {name}, and {problem} in {self.folder}: set `photos` to the folder that was "
                "imported, with different names for different photos."
            )
        return str(matches[0])


def _uploaded_name(name: str) -> str:
    """As an upload spells it: without spaces and signs."""
    return re.sub(r"[^-\w.]", "", name.replace(" ", "_"))
